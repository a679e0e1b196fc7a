"""The conformance kit: the healthy pass, and each broken environment is refused by its promise."""

import random
import sys
import types

import gymnasium
import numpy as np
import pytest
import torch

import metarl.checks.framework
from metarl.cli import main as cli
from metarl.errors import ConfigError, MetaRLError
from metarl.testing import BrokenPromisesError, check_task, examine_task
from tests import broken_envs
from tests.broken_envs import Healthy, Lever


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Lives are shorter, and what has no effect is searched for less long."""
    monkeypatch.setattr(metarl.checks.framework, "MOST_SEARCHED", 1500)
    monkeypatch.setattr(metarl.checks.framework, "MOST_STEPS", 30)


@pytest.fixture
def examine():
    """Registers an environment class for the length of a test and examines it."""
    registered = []

    def run(env, workers=0, **spec):
        task_id = f"broken/{env if isinstance(env, str) else env.__name__}-v0"
        entry_point = f"tests.broken_envs:{env}" if isinstance(env, str) else env
        gymnasium.register(task_id, entry_point=entry_point, **spec)
        registered.append(task_id)
        return examine_task(task_id, workers=workers)

    yield run
    for task_id in registered:
        del gymnasium.registry[task_id]


def broken(report):
    return {finding.name: finding for finding in report.broken}


def verdicts(report, kind):
    return {finding.name for finding in report.findings if finding.verdict == kind}


# A promise, the environment that breaks it, and some of the words about it.
SHELF = [
    ("task space", "WithoutTaskSpace", "has no task_space"),
    ("task space", "SamplesOutside", "which is not in its task_space"),
    ("spaces of a network", "ManyActions", "Actions must be Discrete or a Box of floats"),
    ("it opens and steps", "NoOptions", "unexpected keyword argument 'options'"),
    ("task is taken", "WarmingUp", "one that had lived in others before: moment 1 "),
    ("task stays", "DrawsAgain", "the life was no longer that of task"),
    ("task stays", "DrawsAgainWithoutSeed", "with the same task again: moment"),
    ("task matters", "Deaf", "Lives in 4 tasks were equal in every number"),
    ("task is hidden", "Telling", "Under equal seeds the first observation is"),
    ("task is hidden", "TellingLater", "component 1 of the flattened observation is number 0"),
    ("observations are copies", "View", "at the end of the life it had become"),
    ("observations are copies", "TakesFromItsObservation", "returned"),
    ("seeds decide", "Clock", "were another life in the same environment: moment 3 "),
    ("no global randomness", "GlobalNumpy", "drew from, or seeded, the global np.random"),
    ("no global randomness", "GlobalPython", "drew from, or seeded, the global random"),
    ("no global randomness", "GlobalTorch", "drew from, or seeded, the global torch generator"),
    ("lanes are separate", "Shared", "a second environment was lived in beside it"),
    ("episodes end", "Endless", "still running after 5 steps"),
    ("episodes end", "WithoutLimit", "has no time limit"),
    ("spaces are the same", "OtherSpaces", "does not lie in Box"),
    ("splits are disjoint", "SharedSplits", "There is no sample_task"),
    ("splits are disjoint", "Overlapping", "for example 7."),
    ("numbers are plain", "NotANumber", "the reward was nan"),
    ("numbers are plain", "Infinite", "was not finite"),
    ("numbers are plain", "RewardVector", "was not one number"),
    ("numbers are plain", "IntegerFlags", "truncated was 0, not True or False"),
]


@pytest.mark.parametrize(("promise", "env", "words"), SHELF, ids=[env for _, env, _ in SHELF])
def test_what_is_broken_is_refused_by_its_own_promise_and_no_other(examine, promise, env, words):
    report = examine(env)
    # Gymnasium's checker, since 1.4, finds the simpler views itself, in other words.
    also = {"gymnasium"} if env == "View" else set()
    assert {promise} <= set(broken(report)) <= {promise} | also, str(report)
    finding = broken(report)[promise]
    assert words in finding.seen
    assert finding.why
    assert finding.mend


def test_the_healthy_keep_all_promises(examine):
    report = examine("Lever")
    assert report.broken == ()
    assert verdicts(report, "noted") == {"gymnasium", "workers agree"}  # counts have no bound
    assert verdicts(report, "unknown") == set()


FAMILIES = [
    ("batched types", "DoubleReward", "float64 for 6 lanes instead of [6] torch.float32"),
    ("functions are pure", "InPlace", "step changed a tensor that it was given"),
    ("lanes do not mix", "Mixing", "changed the reward of other lanes"),
    ("observe gives fresh tensors", "TensorView", "in the memory of the state"),
    ("no global randomness", "GlobalGenerator", "the global torch generator"),
    ("task matters", "DeafFamily", "equal in every number"),
    ("task is hidden", "OpenFamily", "Under equal seeds the first observation is"),
    ("splits are disjoint", "OneSplit", "were also among"),
]


@pytest.mark.parametrize(("promise", "name", "words"), FAMILIES, ids=[f[1] for f in FAMILIES])
def test_a_broken_family_is_refused_by_its_own_promise(promise, name, words):
    report = examine_task(getattr(broken_envs, name)(), workers=0)
    assert promise in broken(report), str(report)
    assert words in broken(report)[promise].seen
    # Nothing between a family and its Gymnasium face copies.
    also = {"observations are copies"} if name == "TensorView" else set()
    assert set(broken(report)) <= {promise} | also, str(report)


def test_a_healthy_family_keeps_all_promises():
    report = check_task(Healthy(), workers=0)
    assert verdicts(report, "noted") == {"gymnasium", "workers agree"}


SLOW = ("Ant", "Hopper", "Humanoid", "Walker", "KrazyWorld", "HalfCheetah")
"""ids whose examination takes seconds"""


@pytest.mark.parametrize(
    "task_id",
    [
        pytest.param(name, marks=pytest.mark.learning if name.startswith(slow) else ())
        for name in metarl.task_ids()
        for slow in [tuple(f"metarl/{kind}" for kind in SLOW)]
    ],
)
def test_every_built_in_task_keeps_all_promises(task_id):
    try:
        check_task(task_id, workers=0)
    except MetaRLError as error:
        if "is not installed" not in str(error):
            raise
        pytest.skip("needs an extra that is not installed")


class Constant(Lever):
    """Nothing in it is random."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.memory[1] = 0
        return self.observe(), {}

    def pay(self, action):
        return float(action == self.task)


def test_where_nothing_is_random_it_is_noted(examine):
    report = examine(Constant)
    assert report.broken == ()
    assert "seeds decide" in verdicts(report, "noted")


class Declared(Lever):
    task_is_observable = True
    splits_share_tasks = True
    sample_task = broken_envs.Overlapping.sample_task
    observe = broken_envs.Telling.observe


def test_what_is_declared_is_noted(examine):
    report = examine(Declared)
    assert report.broken == ()
    assert {"task is hidden", "splits are disjoint"} <= verdicts(report, "noted")


class Single(Lever):
    def sample_task(self, np_random, split):
        return 5


def test_a_single_task_is_no_distribution(examine):
    report = examine(Single)
    assert list(broken(report)) == ["task matters", "splits are disjoint"]
    assert "Every task drawn was 5." in broken(report)["task matters"].seen


class SharedLuck(Lever):
    """The luck of the first environment of a process is everybody's; seeds work in one alone."""

    def reset(self, *, seed=None, options=None):
        if seed is not None and seed > 10**6:  # what the engine draws is hardly ever less
            seed = 0
        return super().reset(seed=seed, options=options)


def test_lanes_that_share_their_luck_are_found(examine):
    report = examine(SharedLuck)
    assert "lived exactly the same life" in broken(report)["lanes are separate"].seen


def test_what_hangs_on_a_broken_promise_is_not_examined(examine):
    report = examine("Clock")
    assert verdicts(report, "unknown") >= {"task stays", "task matters", "lanes are separate"}
    (stays,) = (finding for finding in report.findings if finding.name == "task stays")
    assert stays.seen == "not examined: first mend 'seeds decide'"


def test_the_effect_of_a_task_is_looked_for_where_ceilings_go(monkeypatch):
    # Random steps of a quarter of the way never reach a goal; who knows it does.
    monkeypatch.setattr(metarl.checks.framework, "MOST_SEARCHED", 0)
    report = examine_task("metarl/SparsePointNavigation-v0", workers=0)
    assert report.broken == ()


def other_world(original):
    def open_env(family, tasks, generator, workers=None):
        return original(family, tasks, generator.manual_seed(5) if workers else generator)

    return open_env


def failing_world(original):
    def open_env(family, tasks, generator, workers=None):
        if workers:
            raise ModuleNotFoundError("No module named 'my_lab'")
        return original(family, tasks, generator)

    return open_env


@pytest.mark.parametrize(
    ("world", "words"),
    [
        (other_world, "With workers=2 the transitions are others from step 0 on"),
        (failing_world, "in a fresh one it cannot be made or stepped: ModuleNotFoundError: No mod"),
    ],
)
def test_workers_that_disagree_or_fail_are_found(examine, monkeypatch, world, words):
    original = metarl.checks.framework.EnvFamily.open_env
    monkeypatch.setattr(metarl.checks.framework.EnvFamily, "open_env", world(original))
    report = examine("Lever", workers=2)
    assert list(broken(report)) == ["workers agree"]
    assert words in broken(report)["workers agree"].seen


def test_workers_that_agree_are_ok(examine, monkeypatch):
    original = metarl.checks.framework.EnvFamily.open_env
    monkeypatch.setattr(
        metarl.checks.framework.EnvFamily,
        "open_env",
        lambda family, tasks, generator, workers=None: original(family, tasks, generator),
    )
    assert "workers agree" in verdicts(examine("Lever", workers=2), "ok")


def test_the_error_explains_all_that_is_broken(examine):
    examine("DrawsAgain")
    with pytest.raises(BrokenPromisesError) as caught:
        check_task("broken/DrawsAgain-v0", workers=0)
    assert isinstance(caught.value, MetaRLError)
    message = str(caught.value)
    assert message.startswith("broken/DrawsAgain-v0\n  broken   task stays: The task stays over")
    for words in ("seen: After reset(seed=0)", "why:  A trial is several", "mend: Keep the task"):
        assert words in message
    assert message.endswith("1 promises: 1 broken.")
    assert "ok" not in message.split()


def test_an_examination_is_repeatable_and_leaves_global_generators_alone(examine):
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    first = examine("GlobalNumpy")
    again = examine_task("broken/GlobalNumpy-v0", workers=0)
    assert first == again
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_wrong_use_is_refused():
    with pytest.raises(ConfigError, match="workers=-1 must be 0"):
        check_task("metarl/GoalBandit-v0", workers=-1)
    with pytest.raises(ConfigError, match="Options arms go with the id"):
        check_task(Healthy(), arms=2)
    with pytest.raises(ConfigError, match="has no option 'arm'"):
        check_task("metarl/GoalBandit-v0", arm=2)


def test_options_reach_the_task():
    # With held-out arms the splits are disjoint, and no longer declared as shared.
    report = check_task("metarl/GoalBandit-v0", workers=0, held_out_arms=2)
    assert "splits are disjoint" in verdicts(report, "ok")


@pytest.fixture
def lab(monkeypatch, tmp_path):
    """A folder with a module of environments, as a user has it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "lever_lab_to_check.py").write_text(
        "import gymnasium\nfrom tests.broken_envs import DrawsAgain, Lever\n"
        "gymnasium.register('lab/Lever-v0', entry_point=Lever)\n"
        "gymnasium.register('lab/Again-v0', entry_point=DrawsAgain)\n"
    )
    yield "lever_lab_to_check"
    sys.modules.pop("lever_lab_to_check", types.ModuleType)
    for name in ("lab/Lever-v0", "lab/Again-v0"):
        gymnasium.registry.pop(name, None)


def test_the_command_says_what_was_found_and_returns_its_exit_code(lab, capsys):
    assert cli.main(["check", f"{lab}:lab/Lever-v0", "--workers", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{lab}:lab/Lever-v0"
    assert "  ok       task stays: The task stays over resets, seeded ones included, until" in str(
        lines
    )
    assert lines[-1] == "17 promises: 15 ok, 2 noted."
    assert cli.main(["check", f"{lab}:lab/Again-v0", "--workers", "0", "--seed", "3"]) == 1
    out = capsys.readouterr().out
    assert "  broken   task stays" in out
    assert "mend: Keep the task in an attribute" in out


def test_the_command_takes_options_of_the_task(capsys):
    words = ["check", "metarl/GoalBandit-v0", "--workers", "0", "--task.held-out-arms", "2"]
    assert cli.main(words) == 0
    assert "ok       splits are disjoint" in capsys.readouterr().out


def test_the_command_wants_a_task(capsys):
    assert cli.main(["check"]) == 2
    assert "TASK is missing: metarl check TASK" in capsys.readouterr().err
    assert cli.main(["check", "--help"]) == 0
    assert "usage: metarl check TASK" in capsys.readouterr().out
    assert cli.main(["check", "lab/Nothing-v0"]) == 2
