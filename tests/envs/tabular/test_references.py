"""Tabular references in rollouts: plain double-precision values, published returns, ranking."""

import itertools
import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from tabular_references import COMPUTED, PUBLISHED

from metarl.envs.tabular.planning import (
    MDPSize,
    Prior,
    action_values,
    posterior_mean_mdp,
    posterior_sample_mdp,
)
from metarl.envs.tabular.references import (
    EPSILON,
    Planner,
    PosteriorMeanValues,
    PosteriorSampleValues,
)
from metarl.envs.tabular.tabular_mdp import TabularMDP
from metarl.noise import LaneNoise
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.trajectory import Percept
from tests.bandit_rollouts import seeded
from tests.envs.tabular.test_planning import values_by_definition


@lru_cache
def totals(name, num_tasks=1000, episodes=10):
    """Total reward of each task, [N] float64."""
    family = TabularMDP()
    tasks = family.sample_tasks(num_tasks, Seeds(0).torch("tasks"), "test")
    policy = family.references(episodes)[name].build(tasks)
    trajectory = collect(family, tasks, policy, episodes=episodes, seeds=Seeds(1))
    return trajectory.reward.sum(0).flatten().double()


def test_the_oracle_earns_the_optimal_value_of_every_task():
    family, episodes = TabularMDP(), 40
    tasks = family.sample_tasks(150, seeded(0))
    policy = family.references(episodes)["oracle"].build(tasks)
    trajectory = collect(
        family, tasks, policy, episodes=episodes, rollouts_per_task=5, seeds=Seeds(2)
    )
    returns = trajectory.episode_returns(episodes).double().movedim(1, 0).flatten(1)
    mdp = family.mdp(tasks.double())
    expected = [values_by_definition(*(t[i].numpy() for t in mdp), 10)[0, 0] for i in range(150)]
    value = torch.tensor([max(row) for row in expected], dtype=torch.float64)
    error = returns.std(1) / returns.shape[1] ** 0.5
    assert ((returns.mean(1) - value).abs() < 4.5 * error).all()
    pooled = float((returns.mean(1) - value).mean())
    assert abs(pooled) < 4 * float(error.square().mean().sqrt()) / 150**0.5


def test_the_mean_value_of_the_oracle_is_the_one_computed_before():
    family = TabularMDP()
    mdp = family.mdp(family.sample_tasks(3000, seeded(0), "test"))
    value = 10 * action_values(mdp, 10)[:, 0, 0].amax(-1)
    error = float(value.std()) / 3000**0.5
    assert abs(float(value.mean()) - 218.4) < 4 * error < 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_references_reproduce_published_returns(name):
    num_tasks = 400 if name.startswith("opsrl") else 1000
    total = totals(name, num_tasks)
    # Half a digit of rounding, and the errors of this sample and of the published 1000 tasks.
    error = float(total.std()) / num_tasks**0.5
    joint = 0.05 + 3.5 * error * math.sqrt(1 + num_tasks / 1000)
    assert abs(float(total.mean()) - PUBLISHED[name]) < joint


@pytest.mark.parametrize("name", COMPUTED)
def test_references_reproduce_the_computed_returns(name):
    total = totals(name)
    joint = 3.5 * math.hypot(float(total.std()) / 1000**0.5, 0.6)
    assert abs(float(total.mean()) - COMPUTED[name]) < joint


def test_references_rank_from_random_to_oracle():
    earned = {
        name: totals(name)
        for name in ("random", "psrl", "epsilon_greedy", "greedy", "greedy_replanning", "oracle")
    }
    for low, high in itertools.pairwise(earned):
        gain = earned[high] - earned[low]  # same tasks, same noise
        assert float(gain.mean()) > 3 * float(gain.std()) / 1000**0.5, (low, high)


def percept_at(trajectory, t):
    """What the policy was shown at step t, [L, ...]."""
    percepts = vars(trajectory.percepts())
    return Percept(**{name: value[t].flatten(0, 1) for name, value in percepts.items()})


def test_a_planner_counts_exactly_the_steps_it_took():
    family, episodes = TabularMDP(states=3, actions=2, steps=4), 5
    tasks = family.sample_tasks(2, seeded(0))
    policy = family.references(episodes)["psrl"].build(tasks)
    trajectory = collect(
        family,
        tasks,
        policy,
        episodes=episodes,
        rollouts_per_task=3,
        seeds=Seeds(1),
        keep_next_obs=True,
    )
    memory, noise = policy.initial_memory(6, 20), LaneNoise.of(Seeds(0), "noise", 6)
    for t in range(20):
        memory = policy.act(percept_at(trajectory, t), memory, noise.at(t)).memory
    transitions, reward_sum = np.zeros((2, 3, 3, 2, 3)), np.zeros((2, 3, 3, 2))
    visits = np.zeros_like(reward_sum)
    for t, lane in ((t, lane) for t in range(19) for lane in np.ndindex(2, 3)):
        state, action = trajectory.obs[t][lane].argmax(), trajectory.action[t][lane]
        pair = (*lane, int(state), int(action))
        reward_sum[pair] += float(trajectory.reward[t][lane])
        visits[pair] += 1
        if t % 4 != 3:  # the state after the last step of an episode is not observed
            transitions[(*pair, int(trajectory.next_obs[t][lane].argmax()))] += 1
    counts = type(memory.counts)(*(part.unflatten(0, (2, 3)) for part in memory.counts))
    np.testing.assert_array_equal(counts.transitions, transitions)
    np.testing.assert_array_equal(counts.visits, visits)
    np.testing.assert_allclose(counts.reward_sum, reward_sum, atol=1e-5)


@pytest.mark.parametrize("replan_every_step", [False, True])
def test_a_planner_follows_its_latest_plan(replan_every_step):
    size, plans = MDPSize(states=3, actions=4, steps=5), []

    def values(counts, noise):
        plans.append(noise.uniform(5, 3, 4))
        return plans[-1]

    family = TabularMDP(states=3, actions=4, steps=5)
    tasks = family.sample_tasks(2, seeded(0))
    policy = Planner(size, values, torch.device("cpu"), replan_every_step=replan_every_step)
    trajectory = collect(family, tasks, policy, episodes=4, rollouts_per_task=3, seeds=Seeds(1))
    assert len(plans) == (20 if replan_every_step else 4)
    for t in range(20):
        plan = plans[t if replan_every_step else t // 5]
        for lane in np.ndindex(2, 3):
            row = plan.unflatten(0, (2, 3))[lane][t % 5, int(trajectory.obs[t][lane].argmax())]
            assert int(trajectory.action[t][lane]) == int(row.argmax())
    assert not trajectory.log_prob.any()


def test_lanes_in_the_middle_of_an_episode_keep_their_plan():
    size, best_actions = MDPSize(states=1, actions=7, steps=3), iter(range(7))
    one_hot = torch.nn.functional.one_hot(torch.arange(7), 7)

    def values(counts, noise):
        return one_hot[next(best_actions)].expand(2, 3, 1, 7)

    policy = Planner(size, values, torch.device("cpu"))
    memory, no = policy.initial_memory(2, 9), torch.zeros(2, dtype=torch.bool)
    taken, noise = [], LaneNoise.of(Seeds(0), "noise", 2)
    for starts in ([True, True], [False, False], [True, False], [False, True]):
        percept = Percept(
            obs=torch.ones(2, 1),
            previous_action=torch.zeros(2, dtype=torch.int64),
            previous_reward=torch.zeros(2),
            previous_terminated=no,
            previous_truncated=no,
            first_of_episode=torch.tensor(starts),
            first_of_trial=~no if not taken else no,
        )
        action, _, memory = policy.act(percept, memory, noise.at(len(taken)))
        taken.append(action.tolist())
    assert taken == [[0, 0], [0, 0], [1, 0], [1, 2]]
    assert memory.step.tolist() == [1, 0]


def test_exploration_does_not_depend_on_whether_other_lanes_plan():
    size = MDPSize(states=1, actions=50, steps=9)
    values = PosteriorMeanValues(Prior(), 9)
    policy = Planner(size, values, torch.device("cpu"), epsilon=1.0)
    no, taken = torch.zeros(2, dtype=torch.bool), []
    for starts in (False, True):
        percept = Percept(
            obs=torch.ones(2, 1),
            previous_action=torch.zeros(2, dtype=torch.int64),
            previous_reward=torch.zeros(2),
            previous_terminated=no,
            previous_truncated=no,
            first_of_episode=torch.tensor([False, starts]),
            first_of_trial=no,
        )
        noise = LaneNoise.of(Seeds(0), "noise", 2)
        action, _, _ = policy.act(percept, policy.initial_memory(2, 9), noise)
        taken.append(int(action[0]))
    assert taken[0] == taken[1]


def test_epsilon_greedy_takes_a_random_action_in_its_share_of_the_lanes():
    size, lanes = MDPSize(states=1, actions=4, steps=1), 20_000
    best = torch.tensor([0.0, 0.0, 1.0, 0.0])

    def values(counts, noise):
        return best.expand(lanes, 1, 1, 4)

    family = TabularMDP(states=1, actions=4, steps=1)
    policy = Planner(size, values, torch.device("cpu"), epsilon=EPSILON)
    tasks = family.sample_tasks(lanes, seeded(0))
    trajectory = collect(family, tasks, policy, episodes=1, seeds=Seeds(0))
    share = torch.bincount(trajectory.action.flatten(), minlength=4) / lanes
    expected = torch.full((4,), EPSILON / 4) + (1 - EPSILON) * best
    assert (share - expected).abs().max() < 4 * (0.1 * 0.9 / lanes) ** 0.5


def counts_of_a_rollout(family, tasks):
    policy = family.references(3)["psrl"].build(tasks)
    trajectory = collect(family, tasks, policy, episodes=3, seeds=Seeds(1))
    steps, lanes = len(trajectory.reward), len(tasks)
    memory, noise = policy.initial_memory(lanes, steps), LaneNoise.of(Seeds(0), "noise", lanes)
    for t in range(steps):
        memory = policy.act(percept_at(trajectory, t), memory, noise.at(t)).memory
    return memory.counts


def test_posterior_sample_values_are_the_largest_over_the_samples():
    family, prior = TabularMDP(states=3, actions=2, steps=4), Prior()
    counts = counts_of_a_rollout(family, family.sample_tasks(5, seeded(0)))
    noise = LaneNoise.of(Seeds(7), "noise", 5)
    each = [action_values(posterior_sample_mdp(counts, prior, noise), 4) for _ in range(3)]
    for samples in (1, 2, 3):
        values = PosteriorSampleValues(prior, 4, samples=samples)(counts, noise.at(0))
        assert torch.equal(values, torch.stack(each[:samples]).amax(0))
    assert not torch.equal(each[0], each[1])


def test_ties_are_broken_at_random_and_otherwise_the_best_action_is_taken():
    family = TabularMDP(states=3, actions=5, steps=4)
    counts = counts_of_a_rollout(family, family.sample_tasks(400, seeded(0)))
    plain = action_values(posterior_mean_mdp(counts, Prior()), 4)
    values = PosteriorMeanValues(Prior(), 4)(counts, LaneNoise.of(Seeds(0), "noise", 400))
    assert (values - plain).abs().max() < 1.1e-4
    taken = plain.gather(-1, values.argmax(-1, keepdim=True))
    assert (plain.amax(-1, keepdim=True) - taken).max() < 1.1e-4
    untried = counts.visits.sum(-1) == 0  # states with five equal actions
    share = torch.bincount(values.argmax(-1).movedim(1, -1)[untried].flatten(), minlength=5)
    share = share / share.sum()
    assert (share - 0.2).abs().max() < 4 * (0.16 / (4 * int(untried.sum()))) ** 0.5


@pytest.mark.parametrize("name", TabularMDP().references(10))
def test_a_reference_depends_on_nothing_but_its_seed(name):
    family = TabularMDP(states=4, actions=3, steps=5)
    tasks = family.sample_tasks(4, Seeds(0).torch("tasks"))
    policy = family.references(6)[name].build(tasks)
    trajectories = [
        collect(family, tasks, policy, episodes=6, rollouts_per_task=5, seeds=Seeds(seed))
        for seed in (0, 0, 1)
    ]
    first, same_seed, other_seed = trajectories
    assert first.action.shape == (30, 4, 5)
    assert torch.equal(first.action, same_seed.action)
    assert torch.equal(first.reward, same_seed.reward)
    assert not torch.equal(first.reward, other_seed.reward)
    assert set(first.action.unique().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("name", TabularMDP().references(10))
def test_every_tensor_is_created_on_the_device_of_the_tasks(name):
    family, noise = TabularMDP(states=4, actions=3, steps=5), LaneNoise.of(Seeds(1), "noise", 3)
    with torch.device("meta"):  # tensors created without an explicit device hold no data
        tasks = family.sample_tasks(3, seeded(0))
        policy = family.references(2)[name].build(tasks)
        memory, state = policy.initial_memory(3, 7), family.reset(tasks, noise)
        no = torch.zeros(3, dtype=torch.bool, device="cpu")
        action, reward = no.long(), no.float()
        for t in range(7):
            percept = Percept(
                obs=family.observe(tasks, state),
                previous_action=action,
                previous_reward=reward,
                previous_terminated=no,
                previous_truncated=no,
                first_of_episode=~no if t % 5 == 0 else no,
                first_of_trial=~no if t == 0 else no,
            )
            action, log_prob, memory = policy.act(percept, memory, noise.at(t))
            state, reward, _ = family.step(tasks, state, action, noise)
            assert {x.device.type for x in (action, log_prob, state, reward)} == {"cpu"}


def test_references_are_listed_from_floor_to_ceiling():
    references = TabularMDP().references(10)
    assert [(name, r.role, r.label, r.by_default) for name, r in references.items()] == [
        ("random", "floor", "random", True),
        ("greedy", "baseline", "greedy", True),
        ("greedy_replanning", "baseline", "greedy, replanning", True),
        ("epsilon_greedy", "baseline", "epsilon-greedy (0.1)", False),
        ("psrl", "baseline", "PSRL", True),
        ("opsrl", "baseline", "OPSRL (10 draws)", True),
        ("greedy_at_zero", "baseline", "greedy (prior mean 0, flat)", False),
        (
            "epsilon_greedy_at_zero",
            "baseline",
            "epsilon-greedy (0.1, prior mean 0, flat)",
            False,
        ),
        ("psrl_at_zero", "baseline", "PSRL (prior mean 0)", False),
        ("opsrl_at_zero", "baseline", "OPSRL (10 draws, prior mean 0)", False),
        ("oracle", "ceiling", "oracle, MDP known", True),
    ]
    assert set(references) - set(TabularMDP(prior_mean=0.0).references(10)) == {
        "greedy_at_zero",
        "epsilon_greedy_at_zero",
        "psrl_at_zero",
        "opsrl_at_zero",
    }
