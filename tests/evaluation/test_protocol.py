from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import metarl
from metarl.envs.navigation.point_navigation import PointNavigation
from metarl.evaluation import protocol
from metarl.evaluation.protocol import (
    LOGGED_ROLLOUTS,
    LOGGED_TASKS,
    EvaluationProtocol,
    Schedule,
)
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import draw_tasks
from metarl.training.process import torch_threads
from tests.simple_families import Countdown, Recorder

MEMORY = Schedule(steps=0, rollouts_per_task=4, episodes=2)
GRADIENT = Schedule(steps=2, rollouts_per_task=4, episodes=2)


COLUMNS = {"run": "", "agent": "a", "role": "agent", "label": "a", "family": "f"}


def protocol_of(family=None, num_tasks=8, split="test"):
    return EvaluationProtocol(
        family=family or Countdown(), num_tasks=num_tasks, seed=0, split=split, device="cpu"
    )


def measure_agent(agent=None, schedule=GRADIENT, **options):
    return protocol_of(**options).measure_agent(agent or Adapting(), schedule, COLUMNS)


def measure_policy(build, schedule=GRADIENT, **options):
    return protocol_of(**options).measure_policy(build, schedule.points, COLUMNS)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_of_the_protocol_while_it_measures(threads):
    found = []

    def build(tasks):
        found.append(torch.get_num_threads())
        return Always(0)

    measuring = replace(protocol_of(), threads=threads)
    with torch_threads(3):
        measuring.measure_policy(build, GRADIENT.points, COLUMNS)
        assert torch.get_num_threads() == 3
    assert found == [threads]


class Adapting:
    """Pulls arm k after k adaptation steps."""

    def start(self, num_tasks, noise):
        return Always(0)

    def adapt(self, policy, experience, noise):
        return metarl.Adapted(Always(policy.arm + 1))


class Always:
    def __init__(self, arm):
        self.arm = arm

    def initial_memory(self, lanes, horizon):
        return None

    def act(self, percept, memory, noise):
        zeros = torch.zeros_like(percept.previous_reward)
        return metarl.PolicyOutput(zeros.long() + self.arm, zeros, None)


def noisy(built=None):
    """Builds a random policy; the numbers of tasks it was built for are added to `built`."""

    def build(tasks):
        if built is not None:
            built.append(len(tasks))
        return Recorder(noise=True)

    return build


def test_points_are_counted_in_episodes_of_experience():
    # Each phase has two episodes in each of four copies.
    assert GRADIENT.points.tolist() == [1, 2, 9, 10, 17, 18]
    assert GRADIENT.total_episodes == 18
    assert MEMORY.points.tolist() == [1, 2]
    assert Schedule(steps=3, rollouts_per_task=20, episodes=1).points.tolist() == [1, 21, 41, 61]


def test_steps_are_logged_by_phase_and_copy():
    log = vars(measure_agent().log)
    assert set(log["rollout"]) == set(range(LOGGED_ROLLOUTS))
    points = {(p, e) for p, e in zip(log["phase"], log["episode"], strict=True)}
    assert points == {(0, 1), (0, 2), (1, 9), (1, 10), (2, 17), (2, 18)}
    np.testing.assert_array_equal(log["action"][:, 0], log["phase"])
    # The reward encodes the task, the step and the action.
    parameter = log["parameter"][:, 0]
    np.testing.assert_array_equal(
        log["reward"], 100 * parameter + 10 * log["step"] + log["action"][:, 0]
    )
    np.testing.assert_array_equal(log["observation"][:, 1], log["step"] - 1)
    assert log["num_actions"] == 3
    assert log["expected_reward"].shape == (len(parameter), 0)


def test_a_reference_is_measured_at_the_episodes_of_the_agent():
    # Tasks of the train split have episodes of different lengths, so step counts tell them apart.
    agent = measure_agent(split="train").curve
    found = measure_policy(noisy(), split="train").curve
    np.testing.assert_array_equal(found.episode, agent.episode)
    np.testing.assert_array_equal(found.env_steps, agent.env_steps)

    seeds = Seeds(0).child("evaluation")
    tasks = draw_tasks(Countdown(), 8, seeds.torch("train tasks"), "train")
    trajectory = collect(
        Countdown(),
        tasks,
        Recorder(noise=True),
        episodes=18,
        seeds=seeds.child("phase", 0),
    )
    for task in range(8):
        for point, episode in enumerate([1, 2, 9, 10, 17, 18]):
            valid, number = trajectory.valid[:, task, 0], trajectory.episode[:, task, 0]
            steps = valid & (number == episode - 1)
            assert found.returns[point, task] == trajectory.reward[steps, task, 0].sum()
            assert found.success[point, task] == trajectory.success[steps, task, 0].any()
            assert found.env_steps[point, task] == (valid & (number < episode)).sum()


@pytest.mark.parametrize("tasks_per_batch", [1, 3, 8, 100])
def test_the_size_of_a_batch_changes_no_number(monkeypatch, tasks_per_batch):
    whole, agent = measure_policy(noisy(), split="train"), measure_agent(split="train")
    monkeypatch.setattr(protocol, "TASKS_PER_BATCH", tasks_per_batch)
    for one, two in (
        (measure_policy(noisy(), split="train"), whole),
        (measure_agent(split="train"), agent),
    ):
        for name in ("episode", "env_steps", "returns", "success"):
            np.testing.assert_array_equal(getattr(one.curve, name), getattr(two.curve, name))
    monkeypatch.setattr(protocol, "TASKS_PER_BATCH", 8)
    for name, value in vars(measure_policy(noisy(), split="train").log).items():
        np.testing.assert_array_equal(value, getattr(whole.log, name))


def test_a_policy_is_measured_in_one_rollout_of_each_task():
    built = []
    found = measure_policy(noisy(built), MEMORY).curve
    assert built == [8]
    seeds = Seeds(0).child("evaluation")
    tasks = draw_tasks(Countdown(), 8, seeds.torch("test tasks"), "test")
    policy, seeds = Recorder(noise=True), seeds.child("phase", 0)
    trajectory = collect(Countdown(), tasks, policy, episodes=2, seeds=seeds)
    assert found.episode.tolist() == [1, 2]
    np.testing.assert_array_equal(found.returns, trajectory.episode_returns(2)[..., 0])


@pytest.mark.parametrize(("room", "batches"), [(3, [3, 3, 2]), (0, [1] * 8), (100, [8])])
def test_batches_of_long_trials_are_limited_by_memory(monkeypatch, room, batches):
    built = []
    # 18 episodes of at most 4 steps; 2 numbers observed before and after, an action, and the rest.
    monkeypatch.setattr(protocol, "MAX_BYTES", 18 * 4 * (8 * 2 + 8 + 64) * room)
    found = measure_policy(noisy(built))
    assert built == batches
    assert found.curve.returns.shape == (6, 8)
    found = measure_policy(lambda tasks: Always(1)).curve
    tasks = draw_tasks(Countdown(), 8, Seeds(0).child("evaluation").torch("test tasks"), "test")
    by_hand = 4 * 100 * tasks + (10 + 20 + 30 + 40) + 4 * 1  # four steps, each action 1
    np.testing.assert_array_equal(found.returns, np.tile(by_hand, (6, 1)))


def test_agents_with_many_rollouts_run_in_fewer_tasks_at_once(monkeypatch):
    started = []

    class Counting(Adapting):
        def start(self, num_tasks, noise):
            started.append(num_tasks)
            return super().start(num_tasks, noise)

    # rollouts, episodes, steps, tasks
    monkeypatch.setattr(protocol, "MAX_TRANSITIONS", 4 * 2 * 4 * 3)
    for schedule in (GRADIENT, MEMORY):
        assert measure_agent(Counting(), schedule).curve.returns.shape[1] == 8
    assert started == [3, 3, 2, 8]


def test_the_steps_of_the_measured_episodes_of_a_reference_are_logged():
    found = measure_policy(noisy(), split="train")
    log, curve = vars(found.log), found.curve
    assert set(log["episode"]) == set(GRADIENT.points)
    assert set(log["phase"]) == {0}
    for task in range(LOGGED_TASKS):
        for point, episode in enumerate(curve.episode):
            reward = log["reward"][(log["task"] == task) & (log["episode"] == episode)]
            assert reward.sum() == curve.returns[point, task]


@dataclass(frozen=True, kw_only=True)
class Paying(Countdown):
    """Has known expected rewards."""

    def expected_rewards(self, task):
        return torch.stack([task, 2 * task, 3 * task], 1).float()


def test_expected_rewards_are_logged_if_the_family_defines_them():
    schedule = replace(GRADIENT, rollouts_per_task=1)
    log = vars(measure_agent(schedule=schedule, family=Paying()).log)
    expected = log["parameter"] * np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(log["expected_reward"], expected)


def test_vectors_with_too_many_components_are_not_logged(monkeypatch):
    monkeypatch.setattr(protocol, "MAX_COMPONENTS", 1)
    log = vars(measure_agent(schedule=replace(GRADIENT, rollouts_per_task=1)).log)
    assert log["observation"].shape == (len(log["task"]), 0)
    assert log["action"].shape == (len(log["task"]), 1)


def test_the_memory_of_a_trajectory_is_estimated_within_a_factor_of_three():
    family = PointNavigation()
    tasks = family.sample_tasks(10, Seeds(0).torch("tasks"))
    policy = family.references(2)["random"].build(tasks)
    trajectory = collect(family, tasks, policy, episodes=2, seeds=Seeds(0), keep_next_obs=True)
    columns = trajectory.columns.values()
    held = sum(value.element_size() * value.nelement() for value in columns)
    estimate = trajectory.valid.nelement() * protocol._transition_bytes(family)
    # The estimate includes what is computed from the trajectory.
    assert held < estimate < 3 * held
