"""The house rules that no single module can hold: who may import whom, words, and sizes."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import metarl

ROOT = Path(__file__).parents[1]

CORE = (
    "cpu",
    "errors",
    "seeding",
    "trajectory",
    "tables",
    "rows",
    "trials",
    "metrics",
    "evaluations",
    "statistics",
    "measures",
    "returns",
    "losses",
    "optimisation",
    "agent",
    "worlds",
    "tasks",
    "trust_region",
    "baselines",
    "heads",
    "gru",
    "networks",
    "cores",
    "stacked",
    "policies",
    "registry",
    "lanes",
    "env_worlds",
    "env_family",
    "varied",
    "trial_worlds",
    "drawing",
    "gymnasium_bridge",
    "trial_env",
    "sb3",
    "sb3_policies",
    "rollout",
    "lives",
    "progress",
    "files",
    "records",
    "training",
    "evaluation",
    "policy_evaluation",
    "films",
    "recording",
    "conformance",
    "conformance_tasks",
    "conformance_lives",
    "conformance_lanes",
    "conformance_families",
    "testing",
    "comparison",
    "figures",
    "figures_curves",
    "figures_learning",
    "figures_paths",
    "figures_pulls",
    "plotting",
    "terminal",
    "results_commands",
    "check_command",
    "cli",
    "__main__",
)
"""the core's modules from the ground up; each may import only those before it"""

OPEN_TO_PLUGINS = CORE[: CORE.index("registry") + 1]
"""what a package of tasks or agents may build on"""

PICTURES = CORE[CORE.index("comparison") : CORE.index("plotting") + 1]
ROWS = (
    "errors",
    "tables",
    "rows",
    "trials",
    "metrics",
    "evaluations",
    "statistics",
    "measures",
)
"""all that tables and pictures are made from"""
WITHOUT_TORCH = (*ROWS, *PICTURES)

MOST_FUNCTION_LINES = 60
MOST_MODULE_LINES = 350


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
    if package == "metarl" and name not in (*CORE, "envs", "agents"):
        return f"metarl:{name}"
    return f"{package}.{name}"


def forbidden_imports(module: str, imported: set[str]) -> list[str]:
    """The imports that the layers forbid to a module, each with the reason."""
    ours = sorted(name for name in imported if re.match(r"metarl\b", name))
    if module.startswith("experiments."):
        return _beyond_public_names(ours)
    if match := re.match(r"metarl\.(envs|agents)\b", module):
        return _beyond_plugins(match[0], ours)
    return _beyond_core(module.removeprefix("metarl."), ours)


def _beyond_public_names(ours: list[str]) -> list[str]:
    public = {"metarl", *(f"metarl:{name}" for name in metarl.__all__)}
    return [
        f"imports {name}, but a script uses only the public names of `metarl` and the plugins"
        for name in ours
        if name not in public and not re.match(r"metarl\.(envs|agents)\.", name)
    ]


def _beyond_plugins(package: str, ours: list[str]) -> list[str]:
    allowed = {f"metarl.{name}" for name in OPEN_TO_PLUGINS}
    return [
        f"imports {name}, but {package} may use only itself and the core up to 'registry'"
        for name in ours
        if name not in allowed and not re.match(rf"{re.escape(package)}\b", name)
    ]


def _beyond_core(module: str, ours: list[str]) -> list[str]:
    if module not in CORE:
        return [f"is new here: give {module!r} its place in CORE, tests/test_layers.py"]
    earlier = CORE[: CORE.index(module)]
    if module in PICTURES:
        earlier = tuple(name for name in earlier if name in WITHOUT_TORCH)
    allowed = {f"metarl.{name}" for name in earlier} | {"metarl:__version__"}
    if module == "cli":  # the top of the house may also come in by the front door
        allowed |= {"metarl", *(f"metarl:{name}" for name in metarl.__all__)}
    return [
        f"imports {name}, but {module} may use only: {', '.join(earlier) or 'nothing of metarl'}"
        for name in ours
        if name not in allowed
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


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_rows_and_plots_are_independent_of_torch(name):
    assert not reaches(f"metarl.{name}", "torch", GRAPH)


def test_the_order_names_exactly_the_modules_that_exist():
    there = {name.removeprefix("metarl.") for name in LIBRARY if name.count(".") == 1}
    assert there - {"envs", "agents"} == set(CORE)


@pytest.mark.parametrize("folder", ["metarl", "envs", "agents"])
def test_folders_are_flat(folder):
    # A nested package would work in a checkout and be missing from the wheel.
    assert list((ROOT / folder).glob("*/*.py")) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("metarl.returns", "import metarl.rollout", "imports metarl.rollout"),
        ("metarl.returns", "from metarl import rollout", "imports metarl.rollout"),
        ("metarl.returns", "from .rollout import collect", "imports metarl.rollout"),
        ("metarl.returns", "from . import rollout", "imports metarl.rollout"),
        ("metarl.returns", "from metarl import collect", "imports metarl:collect"),
        ("metarl.returns", "import metarl", "imports metarl,"),
        ("metarl.returns", "def f():\n    from metarl.rollout import collect", "metarl.rollout"),
        ("metarl.returns", "if TYPE_CHECKING:\n    import metarl.rollout", "metarl.rollout"),
        ("metarl.training", "importlib.import_module('metarl.agents')", "metarl.agents"),
        ("metarl.training", "from metarl.agents.rl2 import RL2", "imports metarl.agents.rl2"),
        ("metarl.cli", "from metarl import envs", "imports metarl.envs"),
        ("metarl.plotting", "from metarl.records import Run", "imports metarl.records"),
        ("metarl.figures_curves", "from metarl.tasks import Split", "imports metarl.tasks"),
        ("metarl.novelty", "import numpy", "is new here"),
        ("metarl.envs.bandits", "from metarl.agents import rl2", "imports metarl.agents.rl2"),
        ("metarl.envs.bandits", "from ..agents.rl2 import x", "imports metarl.agents.rl2"),
        ("metarl.agents.rl2", "from metarl.rollout import collect", "imports metarl.rollout"),
        ("metarl.agents.rl2", "from metarl import collect", "imports metarl:collect"),
        ("experiments.demo", "from metarl.training import train", "imports metarl.training"),
        ("experiments.demo", "from metarl import _HOMES", "imports metarl:_HOMES"),
    ],
)
def test_a_forbidden_import_is_found(module, source, complaint):
    (found,) = forbidden_imports(module, imported_modules(module, source))
    assert complaint in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("metarl.rollout", "import torch\nfrom metarl.worlds import World"),
        ("metarl.plotting", "from metarl.rows import Curve"),
        ("metarl.plotting", "from metarl.figures_pulls import pulls_figure"),
        ("metarl.cli", "def main():\n    from metarl.training import train"),
        ("metarl.cli", "import metarl\nfrom metarl import train"),
        ("metarl.records", "from metarl import __version__"),
        ("metarl.agents.rl2", "from metarl.agents.ppo import PPO\nfrom . import ppo"),
        ("metarl.envs.bandits", "from metarl.policies import Policy"),
        ("experiments.demo", "import metarl\nfrom metarl import train"),
    ],
)
def test_a_lawful_import_passes(module, source):
    assert forbidden_imports(module, imported_modules(module, source)) == []


def test_torch_is_found_behind_another_module():
    graph = {"metarl.rows": {"metarl.errors"}, "metarl.errors": {"torch.nn"}}
    assert reaches("metarl.rows", "torch", graph)
    assert not reaches("metarl.rows", "torchvision", graph)


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
def test_functions_and_modules_stay_short(module):
    assert len(LIBRARY[module].splitlines()) <= MOST_MODULE_LINES
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
