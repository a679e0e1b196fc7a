"""The house rules that no single module can hold: who may import whom, words, and sizes."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import metarl

ROOT = Path(__file__).parents[1]

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def rooms(text: str) -> dict[str, tuple[str, ...]]:
    """The table of packages in CONTRIBUTING: each, and the others that it may import."""
    table: dict[str, tuple[str, ...]] = {}
    for names, allowed in re.findall(r"^\| (`[^|]+) \|[^|]*\| ([^|]*) \|$", text, re.MULTILINE):
        group = re.findall(r"`([\w]+)`", names)
        for place, name in enumerate(group):
            lower = tuple(table) if allowed == "all above" else re.findall(r"`(\w+)`", allowed)
            table[name] = (*lower, *group[:place])
    return table


ROOMS = rooms(CONTRIBUTING)
"""packages and modules of the core from the ground up, and what each may import"""
PLUGINS = tuple(re.findall(r"`(\w+)`", re.findall(r"^Plugins .*$", CONTRIBUTING, re.MULTILINE)[0]))
"""what a package of tasks or agents may build on"""
WITHOUT_TORCH = ("errors", "results", "plots")

MOST_FUNCTION_LINES = 60


def module_name(path: Path) -> str:
    """The name a source file is imported by."""
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
    """Every module that a source imports, at its top, in a function, for types, or by a string.

    Relative imports are resolved. A public name taken from `metarl` itself counts as
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
    if package == "metarl" and name not in (*ROOMS, "envs", "agents"):
        return f"metarl:{name}"
    return f"{package}.{name}"


def room(module: str) -> str:
    """The package, or the module of the core, that a dotted name lies in."""
    return module.removeprefix("metarl.").partition(".")[0]


def forbidden_imports(module: str, imported: set[str]) -> list[str]:
    """The imports that the layers forbid to a module, each with the reason."""
    ours = sorted(name for name in imported if re.match(r"metarl\b", name))
    if module.startswith("experiments."):
        return _beyond_public_names(ours)
    if match := re.match(r"metarl\.(envs|agents)\b", module):
        return _beyond_plugins(match[0], ours)
    return _beyond_core(room(module), ours)


def _beyond_public_names(ours: list[str]) -> list[str]:
    public = {"metarl", *(f"metarl:{name}" for name in metarl.__all__)}
    return [
        f"imports {name}, but a script uses only the public names of `metarl` and the plugins"
        for name in ours
        if name not in public and not re.match(r"metarl\.(envs|agents)\.", name)
    ]


def _beyond_plugins(package: str, ours: list[str]) -> list[str]:
    return [
        f"imports {name}, but {package} may use only itself and {', '.join(PLUGINS)} of the core"
        for name in ours
        if room(name) not in PLUGINS and not re.match(rf"{re.escape(package)}\b", name)
    ]


def _beyond_core(here: str, ours: list[str]) -> list[str]:
    if here not in ROOMS:
        return [f"is new here: give {here!r} its place in the table of CONTRIBUTING.md"]
    front_door = {"metarl", *(f"metarl:{name}" for name in metarl.__all__)}
    return [
        f"imports {name}, but {here} may use only: {', '.join(ROOMS[here]) or 'nothing of metarl'}"
        for name in ours
        if room(name) not in (here, *ROOMS[here])
        and name != "metarl:__version__"
        and not (here == "cli" and name in front_door)  # the top may come in by the front door
    ]


def reaches(module: str, target: str, graph: dict[str, set[str]]) -> bool:
    """Whether a module imports the package `target`, itself or through other modules."""
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
def test_library_module_imports_only_what_lies_below_it(module):
    assert forbidden_imports(module, GRAPH[module]) == []


@pytest.mark.parametrize("module", EXPERIMENTS)
def test_experiment_uses_only_public_names(module):
    assert forbidden_imports(module, imported_modules(module, EXPERIMENTS[module])) == []


@pytest.mark.parametrize("module", [name for name in GRAPH if room(name) in WITHOUT_TORCH])
def test_rows_and_plots_are_independent_of_torch(module):
    assert not reaches(module, "torch", GRAPH)


def test_the_table_names_exactly_the_packages_and_modules_that_exist():
    there = {room(name) for name in GRAPH}
    assert there - {"envs", "agents"} == set(ROOMS)


def test_nothing_may_import_what_may_import_it():
    for name, allowed in ROOMS.items():
        assert not [other for other in allowed if name in ROOMS[other]]


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
        ("metarl.results.curves", "from metarl.tasks import Split", "imports metarl.tasks"),
        ("metarl.seeding", "from metarl.errors import ConfigError\nimport metarl.agent", "agent"),
        ("metarl.novelty", "import numpy", "is new here"),
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
        ("metarl.plots.plot", "from metarl.results.curves import Curve"),
        ("metarl.plots.plot", "from metarl.plots.pulls import pulls_figure\nfrom . import style"),
        ("metarl.cli.main", "def main():\n    from metarl.training.loop import train"),
        ("metarl.cli.main", "import metarl\nfrom metarl import train"),
        ("metarl.training.run_folder", "from metarl import __version__"),
        ("metarl.agents.memory.x", "from metarl.agents.memory.ppo import PPO\nfrom . import ppo"),
        ("metarl.envs.bandits.x", "from metarl.networks.policies import UniformPolicy"),
        ("experiments.demo", "import metarl\nfrom metarl import train"),
    ],
)
def test_a_lawful_import_passes(module, source):
    assert forbidden_imports(module, imported_modules(module, source)) == []


def test_torch_is_found_behind_another_module():
    graph = {"metarl.results.curves": {"metarl.errors"}, "metarl.errors": {"torch.nn"}}
    assert reaches("metarl.results.curves", "torch", graph)
    assert not reaches("metarl.results.curves", "torchvision", graph)


def python_files() -> list[Path]:
    """All Python sources of the project."""
    folders = ("metarl", "envs", "agents", "docs", "experiments", "tests")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def text_files() -> list[Path]:
    """All files that a person wrote, as far as they are text."""
    patterns = ("*.md", "*.toml", "*.txt", "Makefile", ".ci/*", "docs/**/*.md")
    return python_files() + [path for one in patterns for path in sorted(ROOT.glob(one))]


def lines_with_name(source: str, name: str) -> list[int]:
    """Line numbers where `name` is an identifier; strings and comments do not count."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [
        token.start[0] for token in tokens if token.type == tokenize.NAME and token.string == name
    ]


def machine_paths(text: str) -> list[str]:
    """Absolute paths that exist on one machine only."""
    return re.findall(r"(?<![\w.~}-])/(?:work|root|tmp|home)/[\w.-]*", text)


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_done_is_not_a_word_here(path):
    # Say terminated, truncated, or that a trial ended: one word for all three has hidden bugs.
    assert lines_with_name(path.read_text(encoding="utf-8"), "done") == []


@pytest.mark.parametrize("path", text_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_path_of_one_machine_is_written_down(path):
    assert machine_paths(path.read_text(encoding="utf-8")) == []


def test_the_word_is_found_where_it_is_a_name():
    source = "x = 1\nend = step.done\n# done\nname = 'done'\ndef f(done): ...\n"
    assert lines_with_name(source, "done") == [2, 5]


def test_a_machine_path_is_found():
    folder = "/" + "tmp/runs"
    assert machine_paths(f'open("{folder}")') == [folder]
    assert machine_paths(f"https://host{folder} tests{folder}") == []


def function_lines(source: str) -> dict[str, int]:
    """Lines of every function, its signature included and its doc-string left out."""
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
    assert {name: size for name, size in sizes.items() if size > MOST_FUNCTION_LINES} == {}


def test_sizes_leave_doc_strings_out():
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
