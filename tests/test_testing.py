"""The conformance kit: the healthy pass, and each broken environment is refused by its promise."""

import random
import sys
import types

import gymnasium
import numpy as np
import pytest
import torch

import metarl.conformance
from metarl import cli
from metarl.errors import ConfigError, MetaRLError
from metarl.testing import BrokenPromisesError, check_task, examine_task
from tests import broken_envs
from tests.broken_envs import Healthy, Lever


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """What has no effect is searched for less long."""
    monkeypatch.setattr(metarl.conformance, "MOST_SEARCHED", 1500)


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


@pytest.mark.parametrize("task_id", metarl.task_ids())
def test_every_built_in_task_keeps_all_promises(task_id):
    check_task(task_id, workers=0)
