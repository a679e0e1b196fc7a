from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import metarl
from metarl.envs.navigation.point_navigation import PointNavigation
from metarl.evaluation import protocol
from metarl.evaluation.protocol import LOGGED_COPIES, LOGGED_TASKS, Schedule, Trials
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import Reference, draw_tasks
from tests.simple_families import Countdown, Recorder

MEMORY = Schedule(steps=0, rollouts_per_task=4, episodes=2)
GRADIENT = Schedule(steps=2, rollouts_per_task=4, episodes=2)


def trials_of(schedule=GRADIENT, family=None, num_tasks=8, split="test"):
    return Trials(
        family=family or Countdown(),
        schedule=schedule,
        num_tasks=num_tasks,
        seed=0,
        split=split,
        device="cpu",
    )


class Adapting:
    """Pulls arm k after k adaptation steps."""

    def start(self, num_tasks):
        return Always(0)

    def adapt(self, policy, experience):
        return Always(policy.arm + 1)


class Always:
    def __init__(self, arm):
        self.arm = arm

    def initial_memory(self, num_tasks, copies):
        return None

    def act(self, percept, memory, generator):
        zeros = torch.zeros_like(percept.previous_reward)
        return metarl.PolicyOutput(zeros.long() + self.arm, zeros, None)


def noisy(built=None):
    """A reference whose actions are drawn; the tasks it was built for are added to `built`."""

    def build(tasks):
        if built is not None:
            built.append(len(tasks))
        return Recorder(noise=True)

    return Reference(role="floor", label="noisy", build=build)


def test_points_are_counted_in_episodes_of_experience():
    # Two episodes in each of four copies lie between the phases.
    assert GRADIENT.points.tolist() == [1, 2, 9, 10, 17, 18]
    assert GRADIENT.longest == 18
    assert MEMORY.points.tolist() == [1, 2]
    assert Schedule(steps=3, rollouts_per_task=20, episodes=1).points.tolist() == [1, 21, 41, 61]


def test_phases_and_copies_are_told_apart():
    trials = trials_of()
    log = trials.measured(trials.of_agent(Adapting())).log
    assert set(log["copy"]) == set(range(LOGGED_COPIES))
    points = {(p, e) for p, e in zip(log["phase"], log["episode"], strict=True)}
    assert points == {(0, 1), (0, 2), (1, 9), (1, 10), (2, 17), (2, 18)}
    np.testing.assert_array_equal(log["action"][:, 0], log["phase"])
    # The reward of this world names the task, the step and the action.
    parameter = log["parameter"][:, 0]
    np.testing.assert_array_equal(
        log["reward"], 100 * parameter + 10 * log["step"] + log["action"][:, 0]
    )
    np.testing.assert_array_equal(log["observation"][:, 1], log["step"] - 1)
    assert log["num_actions"] == 3
    assert log["expected_reward"].shape == (len(parameter), 0)


def test_a_reference_is_measured_where_the_agent_is():
    # Tasks of the train split have episodes of different lengths, so steps tell episodes apart.
    trials = trials_of(split="train")
    agent = trials.measured(trials.of_agent(Adapting())).curve
    found = trials.measured(trials.of_reference(noisy())).curve
    np.testing.assert_array_equal(found.episode, agent.episode)
    np.testing.assert_array_equal(found.env_steps, agent.env_steps)

    seeds = Seeds(0).child("evaluation")
    tasks = draw_tasks(Countdown(), 8, seeds.torch("train tasks"), "train")
    life = collect(
        Countdown(),
        tasks,
        Recorder(noise=True),
        episodes=18,
        seeds=seeds.child("batch", 0).child("phase", 0),
    )
    for task in range(8):
        for point, episode in enumerate([1, 2, 9, 10, 17, 18]):
            lived = life.valid[:, task, 0] & (life.episode[:, task, 0] == episode - 1)
            upto = life.valid[:, task, 0] & (life.episode[:, task, 0] < episode)
            assert found.returns[point, task] == life.reward[lived, task, 0].sum()
            assert found.success[point, task] == life.success[lived, task, 0].any()
            assert found.env_steps[point, task] == upto.sum()


def test_a_reference_of_an_agent_without_steps_lives_one_trial_in_one_batch(monkeypatch):
    built = []
    monkeypatch.setattr(protocol, "MOST_BYTES", 1)
    trials = trials_of(MEMORY)
    found = trials.measured(trials.of_reference(noisy(built))).curve
    assert built == [8]
    seeds = Seeds(0).child("evaluation")
    tasks = draw_tasks(Countdown(), 8, seeds.torch("test tasks"), "test")
    seeds = seeds.child("batch", 0).child("phase", 0)
    life = collect(Countdown(), tasks, Recorder(noise=True), episodes=2, seeds=seeds)
    assert found.episode.tolist() == [1, 2]
    np.testing.assert_array_equal(found.returns, life.episode_returns(2)[..., 0])


@pytest.mark.parametrize(("room", "batches"), [(3, [3, 3, 2]), (0, [1] * 8), (100, [8])])
def test_long_lives_are_lived_by_as_many_tasks_as_there_is_room_for(monkeypatch, room, batches):
    built = []
    trials = trials_of()
    # 18 episodes of at most 4 steps; 2 numbers observed before and after, an action, and the rest.
    monkeypatch.setattr(protocol, "MOST_BYTES", 18 * 4 * (8 * 2 + 8 + 64) * room)
    found = trials.measured(trials.of_reference(noisy(built)))
    assert built == batches
    assert found.curve.returns.shape == (6, 8)
    one = Reference(role="floor", label="one", build=lambda tasks: Always(1))
    everybody = trials.measured(trials.of_reference(one)).curve
    tasks = draw_tasks(Countdown(), 8, Seeds(0).child("evaluation").torch("test tasks"), "test")
    by_hand = 4 * 100 * tasks + (10 + 20 + 30 + 40) + 4 * 1  # four steps, each action 1
    np.testing.assert_array_equal(everybody.returns, np.tile(by_hand, (6, 1)))


def test_agents_with_many_copies_live_in_fewer_tasks_at_once(monkeypatch):
    began = []

    class Counting(Adapting):
        def start(self, num_tasks):
            began.append(num_tasks)
            return super().start(num_tasks)

    monkeypatch.setattr(
        protocol, "MOST_ADAPTED_TO", 4 * 2 * 4 * 3
    )  # copies, episodes, steps, tasks
    for schedule in (GRADIENT, MEMORY):
        trials = trials_of(schedule)
        assert trials.measured(trials.of_agent(Counting())).curve.returns.shape[1] == 8
    assert began == [3, 3, 2, 8]


def test_of_a_reference_the_steps_of_the_episodes_measured_are_written_down():
    trials = trials_of(split="train")
    found = trials.measured(trials.of_reference(noisy()))
    log, curve = found.log, found.curve
    assert set(log["episode"]) == set(GRADIENT.points)
    assert set(log["phase"]) == {0}
    for task in range(LOGGED_TASKS):
        for point, episode in enumerate(curve.episode):
            reward = log["reward"][(log["task"] == task) & (log["episode"] == episode)]
            assert reward.sum() == curve.returns[point, task]


@dataclass(frozen=True, kw_only=True)
class Paying(Countdown):
    """Says what its actions are worth."""

    def expected_rewards(self, task):
        return torch.stack([task, 2 * task, 3 * task], 1).float()


def test_what_actions_are_worth_is_written_where_the_family_says_it():
    trials = trials_of(replace(GRADIENT, rollouts_per_task=1), family=Paying())
    log = trials.measured(trials.of_agent(Adapting())).log
    expected = log["parameter"] * np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(log["expected_reward"], expected)


def test_vectors_too_wide_for_a_picture_are_left_out(monkeypatch):
    monkeypatch.setattr(protocol, "MAX_COMPONENTS", 1)
    trials = trials_of(replace(GRADIENT, rollouts_per_task=1))
    log = trials.measured(trials.of_agent(Adapting())).log
    assert log["observation"].shape == (len(log["task"]), 0)
    assert log["action"].shape == (len(log["task"]), 1)


def test_a_life_in_the_plane_takes_about_as_much_room_as_is_reckoned():
    family = PointNavigation()
    tasks = family.sample_tasks(10, Seeds(0).torch("tasks"))
    policy = family.references(2)["random"].build(tasks)
    life = collect(family, tasks, policy, episodes=2, seeds=Seeds(0))
    held = sum(value.element_size() * value.nelement() for value in vars(life).values())
    reckoned = life.valid.nelement() * protocol._transition_bytes(family)
    # And as much again, at most, for what is computed of it.
    assert held < reckoned < 3 * held
