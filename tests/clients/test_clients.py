"""Other libraries train on ids of metarl, each in a virtual environment of its own.

They are downloaded, so these tests run only where a folder for the environments is named:

    python -m pytest tests/clients --clients FOLDER [--cleanrl CLONE] [--gymnasium CLONE]
"""

import re
import shutil
from pathlib import Path

import pytest

from tests.clients.venvs import make_venv, run, version
from tests.known_ids import ENVIRONMENTS, FAMILIES

HERE = Path(__file__).parent
HALF_CHEETAH = "metarl/HalfCheetahVel-v0"

pytestmark = pytest.mark.clients


@pytest.fixture
def python_with(request):
    """Makes the virtual environment of a client; without `--clients` the test is skipped."""
    folder = request.config.getoption("--clients")
    if folder is None:
        pytest.skip("downloads a client; give a folder for it: --clients FOLDER")
    return lambda name, *requirements: make_venv(Path(folder) / name, list(requirements))


def test_torchrl(python_with, tmp_path):
    python = python_with("torchrl", "torchrl==0.14.1")
    out = run(python, [str(HERE / "torchrl_client.py")], tmp_path)
    assert "check_env_specs: " in out
    assert "ParallelEnv: " in out
    assert len(re.findall(r"PPO on \S+: reward per step", out)) == 2


def test_rllib(python_with, tmp_path):
    python = python_with("rllib", "ray[rllib]==2.60.0")
    out = run(python, [str(HERE / "rllib_client.py")], tmp_path)
    assert len(re.findall(r"PPO on \S+: episode return", out)) == 2


@pytest.mark.parametrize("task_id", ["metarl/PointNavigation-v0", "metarl/GridNavigation-v0"])
def test_rl_zoo_trains_and_enjoys(python_with, tmp_path, task_id):
    python = python_with("rl_zoo3", "rl_zoo3==2.9.2")
    (tmp_path / "ppo.yml").write_text(
        "default:\n  n_envs: 4\n  n_timesteps: 8000\n  policy: 'MlpPolicy'\n  n_steps: 256\n"
    )
    common = ["--algo", "ppo", "--env", task_id, "--gym-packages", "metarl", "-f", "logs"]
    train = ["-m", "rl_zoo3.train", *common, "--conf-file", "ppo.yml", "--seed", "1"]
    run(python, [*train, "--eval-freq", "4000", "--eval-episodes", "5"], tmp_path)
    enjoy = ["-m", "rl_zoo3.enjoy", *common, "--no-render", "--n-timesteps", "400"]
    out = run(python, enjoy, tmp_path)
    assert re.search(r"Mean reward: +-?\d", out)


def cloned(request, folder, option, url, *words):
    """The clone that an option names, or a new one."""
    given = request.config.getoption(option)
    if given is not None:
        return Path(given)
    run(Path("git"), ["clone", "-q", "--depth", "1", *words, url, str(folder / "clone")], folder)
    return folder / "clone"


CLEANRL = [
    ("ppo.py", "metarl/GridNavigation-v0"),
    ("ppo.py", "metarl/GoalBandit-v0"),
    ("ppo_continuous_action.py", "metarl/PointNavigation-v0"),
    ("ppo_continuous_action.py", HALF_CHEETAH),
]


@pytest.mark.parametrize(("script", "task_id"), CLEANRL)
def test_cleanrl(python_with, request, tmp_path, script, task_id):
    if task_id == HALF_CHEETAH and HALF_CHEETAH not in ENVIRONMENTS:
        pytest.skip("needs MuJoCo")
    python = python_with("cleanrl", "tensorboard")
    clone = cloned(request, tmp_path, "--cleanrl", "https://github.com/vwxyzjn/cleanrl")
    words = [str(clone / "cleanrl" / script), "--env-id", f"metarl:{task_id}"]
    out = run(python, [*words, "--total-timesteps", "8192", "--no-cuda"], tmp_path)
    assert out.count("SPS:") >= 4


def test_gymnasiums_own_tests_pass_over_all_ids(python_with, request, tmp_path):
    python = python_with("gymnasium", "pytest")
    url, tag = "https://github.com/Farama-Foundation/Gymnasium", f"v{version('gymnasium')}"
    theirs = cloned(request, tmp_path, "--gymnasium", url, "--branch", tag) / "tests" / "envs"
    ours = tmp_path / "run" / "tests" / "envs"
    ours.mkdir(parents=True)
    for folder in (ours, ours.parent):
        (folder / "__init__.py").touch()
    shutil.copy(HERE / "gymnasium_ids.py", ours / "utils.py")
    shutil.copy(theirs / "utils.py", ours / "original.py")
    shutil.copy(theirs / "test_envs.py", ours)
    out = run(python, ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"], tmp_path / "run")
    passed = re.search(r"^(\d+) passed", out, re.MULTILINE)
    assert passed, out[-500:]
    assert int(passed[1]) > 3 * len([*FAMILIES, *ENVIRONMENTS])
