"""Tests of the wheel, which holds the whole library, and of a clone that is not installed."""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# TensorBoard's own
IGNORED = ("-W", "ignore::DeprecationWarning")
PACKAGES = {"metarl": "metarl", "envs": "metarl/envs", "agents": "metarl/agents"}


def run_python(code: str, *arguments: str, cwd: Path, **environment: str) -> str:
    """The output of a new interpreter that is started in `cwd`."""
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def build_wheel(tmp_path_factory, **environment: str) -> Path:
    """A wheel from a copy, so that the checkout stays clean."""
    source = tmp_path_factory.mktemp("source")
    for folder in [*PACKAGES, "tests", "experiments"]:
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", "*.so")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    target = tmp_path_factory.mktemp("wheel")
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    run_python(build, str(target), cwd=source, **environment)
    (path,) = target.glob("metarl_suite-*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory)


@pytest.fixture(scope="module")
def wheel_without_compiler(tmp_path_factory):
    return build_wheel(tmp_path_factory, CC="false", CXX="false")


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """The wheel, unpacked as in site-packages."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_holds_every_source_and_nothing_else(wheel):
    expected = {
        f"{inside}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in PACKAGES.items()
        for path in (ROOT / folder).rglob("*.py*")
        if path.suffix in (".py", ".pyi")
    }
    zoo = ROOT / "experiments" / "zoo"
    trained = {
        f"metarl/zoo/{path.relative_to(zoo).as_posix()}"
        for path in zoo.glob("*/*")
        if path.name in ("README.md", "config.json", "checkpoint.safetensors")
    }
    assert trained
    packed = contents(wheel)
    compiled = {name for name in packed if name.endswith((".so", ".pyd"))}
    assert packed - compiled == expected | trained | {"metarl/py.typed"}
    assert all(name.startswith("metarl/native/_") for name in compiled)


def contents(wheel: Path) -> set[str]:
    """Files of a wheel, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_every_build_depends_on_every_header():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    headers = sorted(f"metarl/native/{path.name}" for path in (ROOT / "metarl/native").glob("*.h"))
    for build in project["tool"]["setuptools"]["ext-modules"]:
        assert build["depends"] == headers, build["name"]  # else a source distribution lacks one


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_wheel_holds_the_compiled_library(wheel):
    suffix = EXTENSION_SUFFIXES[0]
    names = ["baseline"]
    if platform.machine() == "x86_64":
        names += ["avx2", "avx512"]
    assert {f"metarl/native/_{name}{suffix}" for name in names} <= contents(wheel)


def test_without_a_compiler_the_wheel_works_in_torch(wheel_without_compiler, tmp_path):
    assert not any(name.endswith((".so", ".pyd")) for name in contents(wheel_without_compiler))
    with zipfile.ZipFile(wheel_without_compiler) as archive:
        archive.extractall(tmp_path / "site")
    code = """
import metarl
from metarl.native import library
assert library.is_missed()
small = dict(num_tasks=4, iterations=1, progress=False, out="run")
metarl.train("rl2", "metarl/TMaze-v0", **small)
"""
    run_python(code, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))


def test_an_agent_of_the_zoo_is_evaluated_from_the_wheel(site, tmp_path):
    code = """
import metarl
metarl.evaluate("zoo:rl2-bandit-5x10", num_tasks=20, references=False)
policy = metarl.load_policy("zoo:rl2-bandit-5x10")
print(metarl.load_run("zoo:rl2-bandit-5x10").path)
"""
    printed = run_python(code, cwd=tmp_path, PYTHONPATH=str(site)).splitlines()
    assert Path(printed[-1]) == site / "metarl" / "zoo" / "rl2-bandit-5x10"
    assert (tmp_path / "runs" / "zoo" / "rl2-bandit-5x10" / "adaptation.csv").is_file()


def test_wheel_has_entry_points_of_the_command_and_the_plugins(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        lines = archive.read(name).decode().splitlines()
    assert "metarl = metarl.cli.main:main" in lines
    plugins = lines[lines.index("[metarl.plugins]") + 1 :]
    assert {"envs = metarl.envs", "agents = metarl.agents"} <= set(plugins)


def test_import_registers_the_ids_with_gymnasium(site, tmp_path):
    code = """
import gymnasium
assert "metarl/BernoulliBandit-v0" not in gymnasium.registry
import metarl
print(metarl.__file__)
print(*(name for name in gymnasium.registry if name.startswith("metarl/")))
"""
    home, ids = run_python(code, cwd=tmp_path, PYTHONPATH=str(site)).splitlines()
    assert Path(home) == site / "metarl" / "__init__.py"  # not the checkout
    assert "metarl/BernoulliBandit-v0" in ids.split()


def test_spawned_worker_can_import_the_plugins(site, tmp_path):
    code = """
import multiprocessing
from metarl.plugins import load_object

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(load_object, ("metarl.envs:__file__",)))
        print(pool.apply(load_object, ("metarl.agents:__file__",)))
"""
    homes = run_python(code, cwd=tmp_path, PYTHONPATH=str(site)).splitlines()
    assert homes == [str(site / "metarl" / name / "__init__.py") for name in ("envs", "agents")]


def test_constraints_pin_every_direct_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"], *extras["docs"]]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([\w-]+)==\S+$", pins, re.MULTILINE))
    missing = {re.split(r"[<>=]", line)[0].replace("-", "_") for line in wanted} - {
        name.replace("-", "_") for name in pinned
    }
    # The wheel builder, which comes with the interpreter, and this project's extras.
    assert missing <= {"setuptools", "metarl_suite[docs,few_shot,mujoco,sb3,sweep]"}


@pytest.fixture
def dependencies(tmp_path):
    """All installed packages except this project."""
    folder = tmp_path / "dependencies"
    folder.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.match(r"metarl_suite|__editable__|.*\.pth$", path.name):
            (folder / path.name).symlink_to(path)
    return folder


def test_a_clone_that_is_not_installed_finds_its_tasks_and_agents(dependencies, tmp_path):
    for folder in PACKAGES:
        shutil.copytree(ROOT / folder, tmp_path / "clone" / folder)
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "clone")
    code = f"""
import sys
import sysconfig
sys.path.append({str(dependencies)!r})
import metarl
print(metarl.__file__, metarl.__version__, *metarl.agent_names(), *metarl.task_ids())
print(metarl.make_family("metarl/TMaze-v0"), metarl.agent_config("maml").__module__)
small = dict(num_tasks=4, iterations=1, progress=False, out="run")
metarl.evaluate(metarl.train("rl2", "metarl/TMaze-v0", **small), num_tasks=2)
"""
    result = subprocess.run(
        [sys.executable, "-S", "-W", "error", *IGNORED, "-c", code],
        cwd=tmp_path / "clone",
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    names, family = result.stdout.splitlines()
    home, version, *names = names.split()
    assert home == str(tmp_path / "clone" / "metarl" / "__init__.py")
    assert version.endswith("+clone")
    assert {"rl2", "maml", "metarl/BernoulliBandit-v0"} <= set(names)
    assert family.startswith("TMaze(")
    assert family.endswith("metarl.agents.gradient.maml")
