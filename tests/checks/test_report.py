"""The checks: valid environments pass, and each broken environment fails the check it violates."""

import random
import sys
import types

import gymnasium
import numpy as np
import pytest
import torch

import metarl.checks.env_under_test
from metarl.checks.report import all_checks
from metarl.cli import main as cli
from metarl.errors import ConfigError, MetaRLError
from metarl.testing import FailedChecksError, check_task, run_checks
from tests import broken_envs
from tests.broken_envs import Lever, ValidFamily


@pytest.fixture(autouse=True)
def _short_rollouts(monkeypatch):
    """Shorter rollouts and a shorter search, to save time."""
    monkeypatch.setattr(metarl.checks.env_under_test, "MAX_SEARCH_STEPS", 1500)
    monkeypatch.setattr(metarl.checks.env_under_test, "MAX_ROLLOUT_STEPS", 30)


@pytest.fixture
def run_on_env():
    """Registers an environment class during a test and runs the checks on it."""
    registered = []

    def run(env, workers=0, **arguments):
        task_id = f"broken/{env if isinstance(env, str) else env.__name__}-v0"
        if task_id not in registered:
            entry_point = f"tests.broken_envs:{env}" if isinstance(env, str) else env
            gymnasium.register(task_id, entry_point=entry_point)
            registered.append(task_id)
        return run_checks(task_id, workers=workers, **arguments)

    yield run
    for task_id in registered:
        del gymnasium.registry[task_id]


def failed(report):
    return {finding.name: finding for finding in report.failed}


def names(report, verdict):
    return {finding.name for finding in report.findings if finding.verdict == verdict}


# The check, an environment that fails it, and an excerpt of the details.
BROKEN_ENVS = [
    ("tasks lie in the task space", "WithoutTaskSpace", "has no task_space"),
    ("tasks lie in the task space", "SamplesOutside", "which is not in its task_space"),
    ("spaces are supported", "ManyActions", "Actions must be Discrete or a Box of floats"),
    ("reset and step work", "NoOptions", "unexpected keyword argument 'options'"),
    ("reset sets the task", "CarriesOverState", "one used in other tasks before: record 1 "),
    ("the task persists", "DrawsAgain", "the rollout was no longer that of task"),
    ("the task persists", "DrawsAgainWithoutSeed", "with the same task: record"),
    ("the task matters", "IgnoresTask", "Rollouts in 4 tasks were equal in every number"),
    ("close works", "ClosesWhatIsNotThere", "close() before the first reset raised AttributeError"),
    ("the task is hidden", "ShowsTask", "Under equal seeds the initial observation is"),
    ("the task is hidden", "ShowsTaskLater", "At step 1, component 1 of the flattened"),
    (
        "the task is hidden",
        "ShowsTaskInOtherUnits",
        "component 2 of the flattened observation is a linear",
    ),
    ("the task is hidden", "ShowsTaskOneHot", "depends on the task alone"),
    ("the task is hidden", "ShowsTaskInBits", "depends on the task alone"),
    ("the task is hidden", "ShowsPartOfTheTask", "depends on the task alone, whatever the actions"),
    ("the task is hidden", "ShowsSquareOfTheTask", "depends on the task alone"),
    (
        "the task is hidden",
        "ShowsTaskFromTheThirdStep",
        "At step 3, component 2 of the flattened",
    ),
    (
        "the task is hidden",
        "ShowsTaskOnce",
        "At step 2, component 2 of the flattened",
    ),
    (
        "the task is hidden",
        "ShowsTaskAtTheEnd",
        "At step 5, component 2 of the flattened",
    ),
    (
        "the task is hidden",
        "ShowsTaskBeside",
        "At step 1, component 2 of the flattened",
    ),
    (
        "the task is hidden",
        "ShowsTaskInTheSecondEpisode",
        "At the reset after the first episode",
    ),
    ("observations are copies", "ObservationView", "at the end of the rollout"),
    ("observations are copies", "ReadsStateFromObservation", "returned"),
    ("seeds determine rollouts", "UnseededNoise", "rollout in the same environment: record 3 "),
    ("global generators are not used", "GlobalNumpy", "global np.random was drawn from or seeded"),
    ("global generators are not used", "GlobalPython", "global random was drawn from or seeded"),
    ("global generators are not used", "GlobalTorch", "global torch generator was drawn from"),
    ("lanes are independent", "SharedClassState", "when a second environment was stepped"),
    ("episodes end", "ExceedsLimit", "had not ended after 5 steps"),
    ("episodes end", "WithoutLimit", "has no time limit"),
    ("spaces are the same in all tasks", "OutsideObservationSpace", "is not in Box"),
    ("splits are disjoint", "WithoutSampleTask", "There is no sample_task"),
    ("splits are disjoint", "OverlappingSplits", "for example 7."),
    ("step outputs are valid", "NaNReward", "the reward was nan"),
    ("step outputs are valid", "InfiniteObservation", "was not finite"),
    ("step outputs are valid", "RewardVector", "was not one number"),
    ("step outputs are valid", "IntegerFlags", "truncated was 0, not True or False"),
]


@pytest.mark.parametrize(("name", "env", "details"), BROKEN_ENVS, ids=[e[1] for e in BROKEN_ENVS])
def test_a_broken_environment_fails_its_check_and_no_other(run_on_env, name, env, details):
    report = run_on_env(env)
    # Since version 1.4, Gymnasium's checker finds simple views too.
    closes = env == "ClosesWhatIsNotThere"
    also = {"the gymnasium checker passes"} if env == "ObservationView" or closes else set()
    assert {name} <= set(failed(report)) <= {name} | also, str(report)
    finding = failed(report)[name]
    assert details in finding.details
    assert finding.why
    assert finding.fix


NOTED = {"the gymnasium checker passes", "workers agree"}
"""in valid environments: the step count in the observation has no bound; no workers are tested"""


def test_a_valid_environment_passes_all_checks(run_on_env):
    report = run_on_env("Lever")
    assert report.failed == ()
    assert names(report, "noted") == NOTED
    assert names(report, "skipped") == set()


@pytest.mark.parametrize("env", ["AnswersActions", "DrawsNearTheTask", "AddsUp"])
def test_what_follows_from_actions_or_noise_does_not_show_the_task(run_on_env, env):
    report = run_on_env(env)
    assert "the task is hidden" in names(report, "passed"), str(report)


def test_episodes_longer_than_the_probes_leave_it_unknown_whether_the_task_is_hidden(run_on_env):
    report = run_on_env("LongShowsNothing")
    assert names(report, "unknown") == {"the task is hidden"}
    (finding,) = (one for one in report.findings if one.verdict == "unknown")
    assert "in the first 500 of 9000 steps" in finding.details
    assert report.failed == ()


BROKEN_FAMILIES = [
    ("shapes and dtypes are correct", "DoubleReward", "for 6 lanes instead of [6] torch.float32"),
    ("functions are pure", "ModifiesState", "step modified a tensor that was passed to it"),
    ("functions are pure", "CountsCalls", "step returned another result when called again"),
    ("autoreset modes agree", "CountsResets", "between the autoreset modes SAME_STEP and"),
    ("functions are pure", "ModifiesNoise", "or modified numbers that it had drawn"),
    ("lanes do not mix", "MixesLanes", "changed the reward of other lanes"),
    ("lanes do not mix", "SharesNoise", "changed the reward of other lanes in step 0"),
    ("lanes do not mix", "ConditionalDraw", "changed the reward of other lanes"),
    ("episodes end", "TerminatesEarly", "fixed_length is declared, but in task"),
    ("observe returns new tensors", "FamilyObservationView", "shares memory with the state"),
    ("global generators are not used", "FamilyGlobalNoise", "global torch generator was drawn"),
    ("the task matters", "FamilyIgnoresTask", "equal in every number"),
    ("the task is hidden", "FamilyShowsTask", "Under equal seeds the initial observation is"),
    ("the task is hidden", "FamilyShowsTaskLater", "equals number 0 of the task, whatever"),
    ("the task is hidden", "FamilyShowsTaskInOtherUnits", "linear function of number 0"),
    ("the task is hidden", "FamilyShowsPartOfTheTask", "depends on the task alone"),
    ("the task is hidden", "FamilyShowsTaskOnce", "At step 3, component 2"),
    ("splits are disjoint", "FamilyOverlappingSplits", "were also among"),
]
ALSO_FAILED = {
    "CountsCalls": {
        "autoreset modes agree",
        "lanes do not mix",
        "the gymnasium checker passes",
        "seeds determine rollouts",
    },
    "CountsResets": {
        "functions are pure",
        "lanes do not mix",
        "the gymnasium checker passes",
        "seeds determine rollouts",
    },
    # The Gymnasium interface of a family does not copy.
    "FamilyObservationView": {"observations are copies"},
}


@pytest.mark.parametrize(
    ("name", "family", "details"), BROKEN_FAMILIES, ids=[f[1] for f in BROKEN_FAMILIES]
)
def test_a_broken_family_fails_its_check(name, family, details):
    report = run_checks(getattr(broken_envs, family)(), workers=0)
    assert name in failed(report), str(report)
    assert details in failed(report)[name].details
    assert set(failed(report)) <= {name} | ALSO_FAILED.get(family, set()), str(report)


def test_a_valid_family_passes_all_checks():
    report = check_task(ValidFamily(), workers=0)
    assert names(report, "noted") == NOTED


@pytest.mark.parametrize("batched", [False, True])
def test_every_check_runs_after_those_that_it_needs(batched):
    checks = all_checks(batched=batched)
    assert len({check.name for check in checks}) == len(checks)
    known = all_checks(batched=True)
    for index, check in enumerate(checks):
        for needed in check.needs:
            assert needed in known
            assert needed in checks[:index] or needed not in checks


SLOW = ("Ant", "Hopper", "Humanoid", "Walker", "KrazyWorld", "HalfCheetah")
"""tasks whose checks take seconds"""


@pytest.mark.parametrize(
    "task_id",
    [
        pytest.param(name, marks=pytest.mark.learning if name.startswith(slow) else ())
        for name in metarl.task_ids()
        for slow in [tuple(f"metarl/{kind}" for kind in SLOW)]
    ],
)
def test_every_built_in_task_passes_all_checks(task_id):
    try:
        check_task(task_id, workers=0)
    except MetaRLError as error:
        if "is not installed" not in str(error):
            raise
        pytest.skip("needs an extra that is not installed")


class Deterministic(Lever):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.memory[1] = 0
        return self.observe(), {}

    def reward(self, action):
        return float(action == self.task)


def test_a_deterministic_environment_is_noted(run_on_env):
    report = run_on_env(Deterministic)
    assert report.failed == ()
    assert "seeds determine rollouts" in names(report, "noted")


class Declared(Lever):
    task_is_observable = True
    splits_share_tasks = True
    sample_task = broken_envs.OverlappingSplits.sample_task
    observe = broken_envs.ShowsTask.observe


def test_declared_exceptions_are_noted(run_on_env):
    report = run_on_env(Declared)
    assert report.failed == ()
    assert {"the task is hidden", "splits are disjoint"} <= names(report, "noted")


class SingleTask(Lever):
    def sample_task(self, np_random, split):
        return 5


def test_a_single_task_fails(run_on_env):
    report = run_on_env(SingleTask)
    assert list(failed(report)) == ["the task matters", "splits are disjoint"]
    assert "Every sampled task was 5." in failed(report)["the task matters"].details


class SharedNoise(Lever):
    """Ignores the large seeds that the engine draws, so that all lanes have equal noise."""

    def reset(self, *, seed=None, options=None):
        if seed is not None and seed > 10**6:
            seed = 0
        return super().reset(seed=seed, options=options)


def test_lanes_with_equal_noise_fail(run_on_env):
    report = run_on_env(SharedNoise)
    details = failed(report)["lanes are independent"].details
    assert "gave exactly equal rollouts" in details


def test_a_check_is_skipped_if_one_that_it_needs_fails(run_on_env):
    report = run_on_env("UnseededNoise")
    skipped = {"the task persists", "the task matters", "lanes are independent"}
    assert names(report, "skipped") >= skipped
    (finding,) = (one for one in report.findings if one.name == "the task persists")
    assert finding.details == "first fix 'seeds determine rollouts'"


def test_the_effect_of_a_task_is_searched_with_the_actions_of_ceilings(monkeypatch):
    # Random actions do not reach a goal; the ceiling knows the goal.
    monkeypatch.setattr(metarl.checks.env_under_test, "MAX_SEARCH_STEPS", 0)
    report = run_checks("metarl/SparsePointNavigation-v0", workers=0)
    assert report.failed == ()


def open_the_lock(rng, action_space):
    return [*broken_envs.CombinationLock.combination, 0]


def guess_the_last_two_arms(rng, action_space):
    """Reaches the open lock in some of the rollouts."""
    while True:
        yield from (3, 1, *rng.choice([1, 4], 2), action_space.sample())


@pytest.mark.parametrize("actions", [open_the_lock, guess_the_last_two_arms])
def test_user_actions_reach_states_that_random_actions_miss(run_on_env, actions):
    without = run_on_env("CombinationLock")
    assert list(failed(without)) == ["the task matters"]
    report = run_on_env("CombinationLock", actions=actions)
    assert report.failed == (), str(report)
    assert report == run_on_env("CombinationLock", actions=actions)


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ("RareUnseededNoise", "seeds determine rollouts"),
        ("RareGlobalNoise", "global generators are not used"),
        ("RareView", "observations are copies"),
        ("RareNegativeObservation", "spaces are the same in all tasks"),
        ("RareNaNReward", "step outputs are valid"),
        ("RareSharedState", "lanes are independent"),
        ("RareTaskChange", "the task persists"),
        ("RareCarriedOverState", "reset sets the task"),
    ],
)
def test_violations_in_rare_states_are_found_with_user_actions(run_on_env, env, name):
    assert list(failed(run_on_env(env))) == ["the task matters"]
    assert name in failed(run_on_env(env, actions=open_the_lock))


def raise_an_error(rng, action_space):
    raise IndexError("no such\nplan")


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (lambda rng, space: [0, 12], r"returned the action 12, which is not in Discrete\(12\)"),
        (raise_an_error, r"actions\(rng, action_space\) raised IndexError: no such plan"),
        (lambda rng, space: 3, "raised TypeError: 'int' object is not iterable"),
    ],
)
def test_errors_of_the_actions_function_are_not_findings(actions, message):
    with pytest.raises(ConfigError, match=message):
        check_task(ValidFamily(), workers=0, actions=actions)


def test_user_actions_are_converted_to_the_dtype_of_a_box():
    def ahead(rng, action_space):
        return [[0.1, 0.05]] * 3

    check_task("metarl/PointNavigation-v0", workers=0, actions=ahead)


def differently_seeded(open_env):
    def changed(family, tasks, noise, workers=None):
        return open_env(family, tasks, noise.child(5) if workers else noise)

    return changed


def failing_with_workers(open_env):
    def changed(family, tasks, noise, workers=None):
        if workers:
            raise ModuleNotFoundError("No module named 'my_lab'")
        return open_env(family, tasks, noise)

    return changed


@pytest.mark.parametrize(
    ("change", "details"),
    [
        (differently_seeded, "With workers=2 the transitions differ from step 0 on"),
        (failing_with_workers, "cannot create or step it: ModuleNotFoundError: No module"),
    ],
)
def test_workers_that_disagree_or_fail_are_found(run_on_env, monkeypatch, change, details):
    original = metarl.checks.env_under_test.EnvFamily.open_env
    monkeypatch.setattr(metarl.checks.env_under_test.EnvFamily, "open_env", change(original))
    report = run_on_env("Lever", workers=2)
    assert list(failed(report)) == ["workers agree"]
    assert details in failed(report)["workers agree"].details


def test_workers_that_agree_pass(run_on_env, monkeypatch):
    original = metarl.checks.env_under_test.EnvFamily.open_env
    monkeypatch.setattr(
        metarl.checks.env_under_test.EnvFamily,
        "open_env",
        lambda family, tasks, noise, workers=None: original(family, tasks, noise),
    )
    assert "workers agree" in names(run_on_env("Lever", workers=2), "passed")


def test_the_error_explains_all_failed_checks(run_on_env):
    run_on_env("DrawsAgain")
    with pytest.raises(FailedChecksError) as caught:
        check_task("broken/DrawsAgain-v0", workers=0)
    assert isinstance(caught.value, MetaRLError)
    message = str(caught.value)
    assert message.startswith("broken/DrawsAgain-v0\n  failed   the task persists: The task pers")
    for words in (
        "details: After reset(seed=0)",
        "why:     A trial is several",
        "fix:     Keep the task",
    ):
        assert words in message
    assert message.endswith("1 checks: 1 failed.")
    assert "passed" not in message


def test_checks_are_repeatable_and_restore_the_global_generators(run_on_env):
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    assert run_on_env("GlobalNumpy") == run_on_env("GlobalNumpy")
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_invalid_arguments_are_refused():
    with pytest.raises(ConfigError, match="workers=-1 must be 0"):
        check_task("metarl/GoalBandit-v0", workers=-1)
    with pytest.raises(ConfigError, match="the options arms and a "):
        check_task(ValidFamily(), arms=2)
    with pytest.raises(ConfigError, match="has no option 'arm'"):
        check_task("metarl/GoalBandit-v0", arm=2)


def test_options_reach_the_task():
    # With held-out arms the splits are disjoint, and no longer declared as shared.
    report = check_task("metarl/GoalBandit-v0", workers=0, held_out_arms=2)
    assert "splits are disjoint" in names(report, "passed")


@pytest.fixture
def user_module(monkeypatch, tmp_path):
    """The name of a module of environments in the working directory."""
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


def test_the_command_prints_the_report_and_returns_its_exit_code(user_module, capsys):
    assert cli.main(["check", f"{user_module}:lab/Lever-v0", "--workers", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{user_module}:lab/Lever-v0"
    persists = "  passed   the task persists: The task persists over resets, seeded ones included,"
    assert any(line.startswith(persists) for line in lines)
    assert lines[-1] == "18 checks: 16 passed, 2 noted."
    words = ["check", f"{user_module}:lab/Again-v0", "--workers", "0", "--seed", "3"]
    assert cli.main(words) == 1
    out = capsys.readouterr().out
    assert "  failed   the task persists" in out
    assert "fix:     Keep the task in an attribute" in out


def test_the_command_takes_options_of_the_task(capsys):
    words = ["check", "metarl/GoalBandit-v0", "--workers", "0", "--task.held-out-arms", "2"]
    assert cli.main(words) == 0
    assert "passed   splits are disjoint" in capsys.readouterr().out


def test_the_command_requires_a_task(capsys):
    assert cli.main(["check"]) == 2
    assert "TASK is missing: metarl check TASK" in capsys.readouterr().err
    assert cli.main(["check", "--help"]) == 0
    assert "usage: metarl check TASK" in capsys.readouterr().out
    assert cli.main(["check", "lab/Nothing-v0"]) == 2
