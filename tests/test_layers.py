"""Rules for the whole project: allowed imports, banned words, and sizes of functions."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import metarl

ROOT = Path(__file__).parents[1]

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def import_table(text: str) -> dict[str, tuple[str, ...]]:
    """The table of packages in CONTRIBUTING.md: each package and those that it may import."""
    table: dict[str, tuple[str, ...]] = {}
    for names, allowed in re.findall(r"^\| (`[^|]+) \|[^|]*\| ([^|]*) \|$", text, re.MULTILINE):
        group = re.findall(r"`([\w]+)`", names)
        for index, name in enumerate(group):
            lower = tuple(table) if allowed == "all above" else re.findall(r"`(\w+)`", allowed)
            table[name] = (*lower, *group[:index])
    return table


IMPORTS = import_table(CONTRIBUTING)
"""packages and modules of the core, lowest first, and what each may import"""
PLUGINS = tuple(re.findall(r"`(\w+)`", re.findall(r"^Plugins .*$", CONTRIBUTING, re.MULTILINE)[0]))
"""parts of the core that families and agents may import"""
WITHOUT_TORCH = ("errors", "results", "plots")

MAX_FUNCTION_LINES = 60


def module_name(path: Path) -> str:
    """The import name of a source file."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] in ("envs", "agents"):
        parts.insert(0, "metarl")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


LIBRARY = {
    module_name(path): path.read_text(encoding="utf-8")
    for folder in ("metarl", "envs", "agents")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
EXPERIMENTS = {
    module_name(path): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "experiments").rglob("*.py"))
}


def imported_modules(module: str, source: str) -> set[str]:
    """Every module that a source imports: at the top, in a function, for types, or by a string.

    Relative imports are resolved. A public name imported from `metarl` is reported as
    `metarl:name`.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            if base in ("metarl", "metarl.envs", "metarl.agents"):
                found.update(_member(base, alias.name) for alias in node.names)
            else:
                found.add(base)
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            # importlib.import_module("...") and __import__("...")
            found.update(
                argument.value
                for argument in node.args
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            )
    return found


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".")[: -node.level]
    return ".".join([*package, *(node.module or "").split(".")]).rstrip(".")


def _member(package: str, name: str) -> str:
    if package == "metarl" and name not in (*IMPORTS, "envs", "agents"):
        return f"metarl:{name}"
    return f"{package}.{name}"


def part(module: str) -> str:
    """The package or top-level module of the core that contains a dotted name."""
    return module.removeprefix("metarl.").partition(".")[0]


def forbidden_imports(module: str, imported: set[str]) -> list[str]:
    """The imports of a module that its layer forbids, each with the reason."""
    internal = sorted(name for name in imported if re.match(r"metarl\b", name))
    if module.startswith("experiments."):
        return _forbidden_in_script(internal)
    if match := re.match(r"metarl\.(envs|agents)\b", module):
        return _forbidden_in_plugin(match[0], internal)
    return _forbidden_in_core(part(module), internal)


def _forbidden_in_script(internal: list[str]) -> list[str]:
    public = {"metarl", *(f"metarl:{name}" for name in metarl.__all__)}
    return [
        f"imports {name}, but a script uses only the public names of `metarl` and the plugins"
        for name in internal
        if name not in public and not re.match(r"metarl\.(envs|agents)\.", name)
    ]


def _forbidden_in_plugin(package: str, internal: list[str]) -> list[str]:
    return [
        f"imports {name}, but {package} may use only itself and {', '.join(PLUGINS)} of the core"
        for name in internal
        if part(name) not in PLUGINS and not re.match(rf"{re.escape(package)}\b", name)
    ]


def _forbidden_in_core(importer: str, internal: list[str]) -> list[str]:
    if importer not in IMPORTS:
        return [f"is not in the table of CONTRIBUTING.md: add {importer!r} to it"]
    public = {"metarl", *(f"metarl:{name}" for name in metarl.__all__)}
    return [
        f"imports {name}, but {importer} may use only: "
        f"{', '.join(IMPORTS[importer]) or 'nothing of metarl'}"
        for name in internal
        if part(name) not in (importer, *IMPORTS[importer])
        and name != "metarl:__version__"
        and not (importer == "cli" and name in public)  # the top layer may use the public API
    ]


def reaches(module: str, target: str, graph: dict[str, set[str]]) -> bool:
    """Whether a module imports the package `target`, directly or through other modules."""
    seen, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name.split(".")[0] == target:
            return True
        if name not in seen:
            seen.add(name)
            waiting.extend(graph.get(name, ()))
    return False


GRAPH = {name: imported_modules(name, text) for name, text in LIBRARY.items() if name != "metarl"}


@pytest.mark.parametrize("module", GRAPH)
def test_library_module_imports_only_lower_layers(module):
    assert forbidden_imports(module, GRAPH[module]) == []


@pytest.mark.parametrize("module", EXPERIMENTS)
def test_experiment_uses_only_public_names(module):
    assert forbidden_imports(module, imported_modules(module, EXPERIMENTS[module])) == []


@pytest.mark.parametrize("module", [name for name in GRAPH if part(name) in WITHOUT_TORCH])
def test_rows_and_plots_are_independent_of_torch(module):
    assert not reaches(module, "torch", GRAPH)


def test_the_table_names_exactly_the_packages_and_modules_that_exist():
    existing = {part(name) for name in GRAPH}
    assert existing - {"envs", "agents"} == set(IMPORTS)


def test_the_table_allows_no_mutual_imports():
    for name, allowed in IMPORTS.items():
        assert not [other for other in allowed if name in IMPORTS[other]]


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("metarl.learning.losses", "import metarl.rollout", "imports metarl.rollout"),
        ("metarl.learning.losses", "from metarl import rollout", "imports metarl.rollout"),
        ("metarl.learning.losses", "from ..rollout import collect", "imports metarl.rollout"),
        ("metarl.learning.losses", "from .. import rollout", "imports metarl.rollout"),
        ("metarl.learning.losses", "from metarl import collect", "imports metarl:collect"),
        ("metarl.learning.losses", "import metarl", "imports metarl,"),
        ("metarl.learning.losses", "def f():\n    from metarl.rollout import collect", "rollout"),
        ("metarl.learning.losses", "if TYPE_CHECKING:\n    import metarl.rollout", "rollout"),
        ("metarl.training.loop", "importlib.import_module('metarl.agents')", "metarl.agents"),
        ("metarl.training.loop", "from metarl.agents.memory.rl2 import RL2", "memory.rl2"),
        ("metarl.cli.main", "from metarl import envs", "imports metarl.envs"),
        ("metarl.plots.plot", "from metarl.training.run_folder import Run", "run_folder"),
        (
            "metarl.results.adaptation_curves",
            "from metarl.tasks import Split",
            "imports metarl.tasks",
        ),
        ("metarl.seeding", "from metarl.errors import ConfigError\nimport metarl.agent", "agent"),
        ("metarl.novelty", "import numpy", "is not in the table"),
        ("metarl.envs.bandits.x", "from metarl.agents.memory import rl2", "metarl.agents.memory"),
        ("metarl.envs.bandits.x", "from ...agents.memory.rl2 import x", "agents.memory.rl2"),
        ("metarl.agents.memory.x", "from metarl.rollout import collect", "metarl.rollout"),
        ("metarl.agents.memory.x", "from metarl import collect", "imports metarl:collect"),
        ("experiments.demo", "from metarl.training.loop import train", "metarl.training.loop"),
        ("experiments.demo", "from metarl import _registry", "imports metarl:_registry"),
    ],
)
def test_a_forbidden_import_is_found(module, source, complaint):
    (found,) = forbidden_imports(module, imported_modules(module, source))
    assert complaint in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("metarl.rollout", "import torch\nfrom metarl.tasks import BatchedEnv"),
        ("metarl.plots.plot", "from metarl.results.adaptation_curves import Curve"),
        ("metarl.plots.plot", "from metarl.plots.pulls import pulls_figure\nfrom . import style"),
        ("metarl.cli.main", "def main():\n    from metarl.training.loop import train"),
        ("metarl.cli.main", "import metarl\nfrom metarl import train"),
        ("metarl.training.run_folder", "from metarl import __version__"),
        ("metarl.agents.memory.x", "from metarl.agents.memory.ppo import PPO\nfrom . import ppo"),
        ("metarl.envs.bandits.x", "from metarl.networks.policies import UniformPolicy"),
        ("experiments.demo", "import metarl\nfrom metarl import train"),
    ],
)
def test_an_allowed_import_is_not_reported(module, source):
    assert forbidden_imports(module, imported_modules(module, source)) == []


def test_an_import_of_torch_through_another_module_is_found():
    graph = {"metarl.results.adaptation_curves": {"metarl.errors"}, "metarl.errors": {"torch.nn"}}
    assert reaches("metarl.results.adaptation_curves", "torch", graph)
    assert not reaches("metarl.results.adaptation_curves", "torchvision", graph)


def python_files() -> list[Path]:
    """All Python sources of the project."""
    folders = ("metarl", "envs", "agents", "docs", "experiments", "tests")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def text_files() -> list[Path]:
    """All text files of the project that are not generated."""
    patterns = ("*.md", "*.toml", "*.txt", "Makefile", ".ci/*", "docs/**/*.md")
    return python_files() + [path for one in patterns for path in sorted(ROOT.glob(one))]


def lines_with_name(source: str, name: str) -> list[int]:
    """Line numbers where `name` is an identifier; strings and comments do not count."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [
        token.start[0] for token in tokens if token.type == tokenize.NAME and token.string == name
    ]


def machine_paths(text: str) -> list[str]:
    """Absolute paths that exist only on one machine."""
    return re.findall(r"(?<![\w.~}-])/(?:work|root|tmp|home)/[\w.-]*", text)


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_done_is_not_an_identifier(path):
    # It does not distinguish terminated, truncated, and the end of a trial.
    assert lines_with_name(path.read_text(encoding="utf-8"), "done") == []


@pytest.mark.parametrize("path", text_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_contains_a_machine_path(path):
    assert machine_paths(path.read_text(encoding="utf-8")) == []


def test_an_identifier_is_found_but_not_in_strings_or_comments():
    source = "x = 1\nend = step.done\n# done\nname = 'done'\ndef f(done): ...\n"
    assert lines_with_name(source, "done") == [2, 5]


def test_a_machine_path_is_found():
    folder = "/" + "tmp/runs"
    assert machine_paths(f'open("{folder}")') == [folder]
    assert machine_paths(f"https://host{folder} tests{folder}") == []


SAY_INSTEAD = {
    "live": "roll out, run, take steps",
    "lives": "rollouts, episodes, trials",
    "lived": "rolled out, collected, measured",
    "living": "rollout, experience",
    "alive": "active",
    "life": "rollout, trial, episode, experience",
    "luck": "noise, randomness, chance",
    "whoever": "a policy that, a user who",
    "somebody": "a policy, an agent, a user",
    "anybody": "any policy, any agent",
    "anew": "again",
    "mend": "fix",
    "mends": "fixes",
    "mended": "fixed",
    "mending": "fixing",
    "lesson": "batch",
    "lessons": "batches",
    "to be seen": "visible, rendered",
}
"""words that are banned from names and prose, and what to say instead"""
ALLOWED_PHRASES = {
    "metarl/sweeps/ray_tasks.py": ('each["Alive"]',),
    "experiments/reporting.py": ('seeds.torch("lived tasks")', 'seeds.child("lives")'),
}
"""by file; the names of Ray, and addresses of random streams, on which all numbers depend"""
_SPACE = r"[\s_#\"']+"
_BANNED = re.compile(
    r"(?:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))"  # a word, or a part of snake_case or CamelCase
    rf"(?i:({'|'.join(word.replace(' ', _SPACE) for word in SAY_INSTEAD)}))"
    r"(?![a-z]|(?<=[A-Z])[A-Z])"
)


def worded_files() -> list[Path]:
    """Library, scripts and documentation: the files without banned words."""
    library = [path for one in ("metarl", "envs", "agents") for path in (ROOT / one).rglob("*.py*")]
    patterns = (
        "*.md",
        "docs/*.py",
        "docs/*.md",
        "docs/tutorials/*.md",
        "experiments/*.py",
        "experiments/**/*.md",
    )
    others = [path for pattern in patterns for path in ROOT.glob(pattern)]
    return sorted(path for path in library + others if path.suffix in (".py", ".pyi", ".md"))


def banned_words(text: str, allowed: tuple[str, ...] = ()) -> list[tuple[int, str]]:
    """Line number and word of every banned word in names and prose, outside allowed phrases."""
    for phrase in allowed:
        text = text.replace(phrase, re.sub(r"\w", "-", phrase))
    return [
        (text.count("\n", 0, found.start()) + 1, " ".join(re.findall("[a-z]+", found[1].lower())))
        for found in _BANNED.finditer(text)
    ]


@pytest.mark.parametrize("path", worded_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_word_is_used(path):
    name = path.relative_to(ROOT).as_posix()
    found = banned_words(path.read_text(encoding="utf-8"), ALLOWED_PHRASES.get(name, ()))
    complaints = [f"{name}:{line}: {word!r}; say {SAY_INSTEAD[word]}" for line, word in found]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lived_steps = max_lives", ["lived", "lives"]),
        ("class OracleLife(LifeSpan): MAX_LIFE_2", ["life"] * 3),
        ("# Live or living; x = alive", ["live", "living", "alive"]),
        ("Whoever trains, somebody or anybody, anew", ["whoever", "somebody", "anybody", "anew"]),
        ("one more step is to\n# be seen; to_be_seen", ["to be seen"] * 2),
        ("mend, mends, mended and mending", ["mend", "mends", "mended", "mending"]),
        ("a lesson, many lessons; luck", ["lesson", "lessons", "luck"]),
    ],
)
def test_a_banned_word_is_found(text, words):
    assert [word for _, word in banned_words(text)] == words


@pytest.mark.parametrize(
    "text",
    [
        "deliver, olive, OLIVE, LIVELY, relive, outlive, lifetime",
        "recommend, amended, pluck, lessen, renewed",
        "to be. Seen; today be seen; to seen",
    ],
)
def test_a_word_that_only_contains_a_banned_word_is_not_reported(text):
    assert banned_words(text) == []


def test_allowed_phrases_are_exempt_and_keep_line_numbers():
    text = 'seeds\n.child("lives")\nlives'
    assert banned_words(text, ('child("lives")',)) == [(3, "lives")]


def test_allowed_phrases_are_in_use():
    for name, phrases in ALLOWED_PHRASES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert [phrase for phrase in phrases if phrase not in text] == []


def function_lines(source: str) -> dict[str, int]:
    """Lines of every function, with its signature and without its docstring."""
    sizes = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            sizes[f"{node.name}, line {node.lineno}"] = (
                node.end_lineno - node.lineno + 1 - _docstring_lines(node)
            )
    return sizes


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if ast.get_docstring(node) is None or first.end_lineno is None:
        return 0
    return first.end_lineno - first.lineno + 1


@pytest.mark.parametrize("module", LIBRARY)
def test_functions_stay_short(module):
    sizes = function_lines(LIBRARY[module])
    assert {name: size for name, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}


def test_function_lines_exclude_docstrings():
    source = '''
class A:
    async def short(self):
        """One.

        Two.
        """
        return 1

    def long(self):
        x = 1

        return x
'''
    assert function_lines(source) == {"short, line 3": 2, "long, line 10": 4}
