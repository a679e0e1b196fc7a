"""The T-maze against a plain map, its cue, its references, and invalid options."""

import pytest
import torch

from metarl.envs.grids.t_maze import TMaze
from metarl.errors import ConfigError
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.tensor_env import TensorEnv
from tests.bandit_rollouts import noise_of, seeded

MAP = """
#############
###########.#
#...........#
###########.#
#############
"""
"""a passive corridor of ten: the cue on the left, the arms on the right"""
STEP = {0: (1, 0), 1: (0, 1), 2: (-1, 0), 3: (0, -1)}


class PlainMaze:
    """One lane on a text map."""

    def __init__(self, goal, active):
        rows = MAP.split()
        if active:
            rows = [row[:2] + row[1:] for row in rows]  # one more cell, for the cue
        self.free = {
            (x - 1, 2 - y) for y, row in enumerate(rows) for x, c in enumerate(row) if c == "."
        }
        self.end = max(x for x, _ in self.free)
        self.goal, self.active = goal, active
        self.here, self.time, self.shown = ((1, 0) if active else (0, 0)), 0, False

    def observe(self):
        x, y = self.here
        if x == 0:
            cue, self.shown = (0 if self.shown else self.goal), True
            return [0, cue]
        return [1, y] if x == self.end else [0, 0]

    def step(self, action):
        self.time += 1
        there = (self.here[0] + STEP[action][0], self.here[1] + STEP[action][1])
        self.here = there if there in self.free else self.here
        last = self.time == (13 if self.active else 11)
        if last:
            reward = float(self.here[1] == self.goal)
        else:
            reward = -0.05 if action != 0 and self.time > self.active else 0.0
        return self.observe(), reward, last


@pytest.mark.parametrize("active", [False, True])
def test_every_lane_equals_a_walk_on_a_map(active):
    family = TMaze(active=active, detour_cost=0.5)
    lanes = 200
    tasks, draws = torch.arange(lanes) % 2, seeded(0)
    env = TensorEnv(family, tasks, noise_of(0, lanes))
    plain = [PlainMaze(2 * int(task) - 1, active) for task in tasks]
    assert env.reset().tolist() == [maze.observe() for maze in plain]
    # Probability of a forward step in each lane; above 0.93 in half of them.
    straight = torch.rand(lanes, generator=draws) ** 0.1
    seen = set()
    for step in range(family.episode_steps):
        straight = straight * (step < family.episode_steps - 1)
        any_action = torch.randint(4, (lanes,), generator=draws)
        action = torch.where(torch.rand(lanes, generator=draws) < straight, 0, any_action)
        last = env.step(action)
        for lane, maze in enumerate(plain):
            obs, reward, ended = maze.step(int(action[lane]))
            assert last.next_obs[lane].tolist() == obs
            assert float(last.reward[lane]) == pytest.approx(reward)
            assert bool(last.terminated[lane]) == ended
            assert bool(last.success[lane]) == (ended and reward == 1)
            seen.add((tuple(obs), reward))
    assert {((1, 1), 1.0), ((1, 1), 0.0), ((1, -1), 1.0), ((1, -1), 0.0), ((1, 0), 0.0)} < seen
    assert ((0, 1), 0.0) in seen or not active  # some lane turned back to the cue
    assert not last.truncated.any()


@pytest.mark.parametrize("task", [0, 1])
def test_the_cue_is_shown_once(task):
    family, cue = TMaze(), 2.0 * task - 1
    env = TensorEnv(family, torch.tensor([task]), noise_of(0, 1))
    shown = [env.reset().tolist()[0]]
    for action in (2, 0, 2, 0):  # into the wall, away from the cue, back, away
        shown.append(env.step(torch.tensor([action])).next_obs.tolist()[0])
    assert shown == [[0, cue], [0, 0], [0, 0], [0, 0], [0, 0]]
    assert env.reset().tolist()[0] == [0, cue]  # and again in a new episode


@pytest.mark.parametrize("task", [0, 1])
def test_an_agent_that_turns_back_to_the_cue_reaches_the_arm_in_time(task):
    family = TMaze(active=True, corridor=4)
    env = TensorEnv(family, torch.tensor([task]), noise_of(0, 1))
    assert env.reset().tolist() == [[0, 0]]
    assert env.step(torch.tensor([2])).next_obs.tolist() == [[0, 2.0 * task - 1]]
    actions = [0] * 5 + [1 if task else 3]
    transitions = [env.step(torch.tensor([action])) for action in actions]
    assert [float(one.reward) for one in transitions] == [0, 0, 0, 0, 0, 1]
    assert bool(transitions[-1].terminated)


@pytest.mark.parametrize("active", [False, True])
def test_references_earn_their_computed_returns(active):
    family = TMaze(active=active)
    tasks = torch.arange(2000) % 2
    total = {}
    for name, reference in family.references(2).items():
        trajectory = collect(family, tasks, reference.build(tasks), episodes=2, seeds=Seeds(0))
        total[name] = trajectory.episode_returns(2).flatten().double()
    assert total["oracle"].tolist() == [1.0] * 4000
    assert set(total["guess"].tolist()) == {0.0, 1.0}
    assert abs(float(total["guess"].mean()) - 0.5) < 4 * 0.5 / 4000**0.5
    # 10 steps (active: 12, one of them free) cost 1/10 with probability 3/4.
    expected = -0.75 * (1.1 if active else 1.0)
    error = float(total["random"].std()) / 4000**0.5
    assert abs(float(total["random"].mean()) - expected) < 4 * error


def test_without_detour_cost_only_the_last_step_is_rewarded():
    family = TMaze(detour_cost=0.0)
    env = TensorEnv(family, torch.tensor([1]), noise_of(0, 1))
    env.reset()
    assert [float(env.step(torch.tensor([3])).reward) for _ in range(11)] == [0.0] * 11


@pytest.mark.parametrize("split", ["train", "test"])
def test_both_arms_are_equally_likely(split):
    tasks = TMaze().sample_tasks(4000, seeded(0), split)
    assert sorted(tasks.unique().tolist()) == [0, 1]
    assert abs(int(tasks.sum()) - 2000) < 4 * 1000**0.5


def test_references_are_ordered_from_floor_to_ceiling():
    references = TMaze().references(1)
    assert [(name, reference.role) for name, reference in references.items()] == [
        ("random", "floor"),
        ("guess", "floor"),
        ("oracle", "ceiling"),
    ]


def test_observations_do_not_share_memory_with_the_state():
    family, task = TMaze(), torch.tensor([1])
    state = family.reset(task, noise_of(0, 1))
    family.observe(task, state).fill_(9.0)
    assert family.observe(task, state).tolist() == [[0.0, 1.0]]


def test_an_episode_lasts_as_long_as_the_walk_to_an_arm():
    assert (TMaze().episode_steps, TMaze().trial_episodes) == (11, 1)
    assert TMaze(active=True, corridor=50).episode_steps == 53
    assert TMaze.task_is_observable


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corridor": 0}, "corridor=0 must be greater than zero"),
        ({"detour_cost": -1.0}, "detour_cost=-1.0 must lie between 0.0 and inf"),
        ({"detour_cost": float("inf")}, "detour_cost=inf must be finite"),
    ],
)
def test_invalid_options_raise_an_error(options, message):
    with pytest.raises(ConfigError, match=message):
        TMaze(**options)
