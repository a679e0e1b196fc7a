"""The two-step task against a plain loop, and its optimum against brute force."""

import itertools

import pytest
import torch

from metarl.envs.two_step.references import BayesFilter, WinStay
from metarl.envs.two_step.two_step import TwoStep
from metarl.errors import ConfigError
from metarl.noise import LaneNoise
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.tensor_env import TensorEnv
from metarl.trajectory import Percept
from tests.bandit_rollouts import seeded


def noise_of(lanes):
    return LaneNoise.of(Seeds(0), "noise", lanes)


def test_every_lane_equals_a_plain_loop_over_rounds():
    family = TwoStep(rounds=40, common=0.7, reward=0.8, reversal=0.2)
    tasks = torch.tensor([0, 1, 0, 1, 1])
    env, same_noise, choices = TensorEnv(family, tasks, noise_of(5)), noise_of(5), seeded(3)
    good, place = tasks.tolist(), [0] * 5
    assert env.reset().tolist() == [[1.0, 0.0, 0.0]] * 5
    seen = set()
    for step in range(80):
        action = torch.randint(2, (5,), generator=choices)
        last = env.step(action)
        uniform = same_noise.at(step).uniform(2)
        for lane in range(5):
            paid, reversed_now = False, False
            if place[lane] == 0:
                rare = not uniform[lane, 0] < 0.7
                place[lane] = 1 + (int(action[lane]) ^ rare)
                seen.add(("transition", rare))
            else:
                is_good = place[lane] - 1 == good[lane]
                paid = bool(uniform[lane, 0] < (0.8 if is_good else 0.2))
                reversed_now = bool(uniform[lane, 1] < 0.2)
                seen.add(("payout", is_good, paid, reversed_now))
                good[lane] ^= reversed_now
                place[lane] = 0
            assert float(last.reward[lane]) == paid
            assert last.next_obs[lane].tolist() == [float(place[lane] == i) for i in range(3)]
        assert not last.terminated.any()
        assert last.truncated.tolist() == [step == 79] * 5
    assert len(seen) == 2 + 8  # every possible event occurred


def test_the_action_in_the_second_stage_has_no_effect():
    family = TwoStep(rounds=30)
    tasks = family.sample_tasks(50, seeded(0))
    trajectories = []
    for second in (0, 1):
        env = TensorEnv(family, tasks, noise_of(50))
        obs, steps = env.reset(), []
        for _ in range(60):
            last = env.step(torch.where(obs[:, 0] > 0, 0, second))
            obs = last.next_obs
            steps.append((last.next_obs.tolist(), last.reward.tolist()))
        trajectories.append(steps)
    assert trajectories[0] == trajectories[1]


def test_event_frequencies_match_their_probabilities():
    family = TwoStep(rounds=100)
    tasks = family.sample_tasks(4000, seeded(0), "test")
    assert abs(int(tasks.sum()) - 2000) < 4 * 1000**0.5
    noise = noise_of(4000)
    state = family.reset(tasks, noise)
    action = torch.zeros_like(tasks)
    reversed_now = common = paid = 0.0
    for round_ in range(100):
        state, _, _ = family.step(tasks, state, action, noise.at(2 * round_))
        common += float((state.place == 1).double().mean()) / 100
        good, reached = state.good, state.place - 1
        state, reward, _ = family.step(tasks, state, action, noise.at(2 * round_ + 1))
        reversed_now += float((state.good != good).double().mean()) / 100
        paid += float(((reached == good) == (reward > 0)).double().mean()) / 100
    n = 4000 * 100
    for frequency, p in ((common, 0.8), (paid, 0.9), (reversed_now, 0.025)):
        assert abs(frequency - p) < 4 * (p * (1 - p) / n) ** 0.5


def best_by_definition(belief, rounds, common, reward, reversal):
    """Expectimax over both choices, all outcomes of a round, and the belief after it."""
    if not rounds:
        return 0.0
    values = []
    for choice in (0, 1):
        value = 0.0
        for state, paid in itertools.product((0, 1), (0, 1)):
            reach = common if state == choice else 1 - common
            # P(payout) if state 0 is good, if state 1 is.
            by_good = [reward if (state == good) == (paid == 1) else 1 - reward for good in (0, 1)]
            chance = belief * by_good[0] + (1 - belief) * by_good[1]
            after = belief * by_good[0] / chance
            after = (1 - reversal) * after + reversal * (1 - after)
            future = best_by_definition(after, rounds - 1, common, reward, reversal)
            value += reach * chance * (paid + future)
        values.append(value)
    return max(values)


@pytest.mark.parametrize("numbers", [(0.8, 0.9, 0.025), (0.6, 0.7, 0.3), (0.95, 0.6, 0.0)])
@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_optimal_return_equals_expectimax(numbers, rounds):
    common, reward, reversal = numbers
    family = TwoStep(rounds=rounds, common=common, reward=reward, reversal=reversal)
    expected = best_by_definition(0.5, rounds, *numbers)
    assert family.optimal_return() == pytest.approx(expected, abs=1e-7)


def test_optimal_return_equals_worked_examples():
    # Without noise and reversals the first payout reveals the good state: .5, then 1 per round.
    family = TwoStep(rounds=7, common=1.0, reward=1.0, reversal=0.0)
    assert family.optimal_return() == pytest.approx(6.5)
    assert family.oracle_return() == 7
    # .8 x .9 + .2 x .1
    assert TwoStep().oracle_return() == pytest.approx(74)
    # Reversals with probability 1/2: observations carry no information about the next round.
    assert TwoStep(reversal=0.5).optimal_return() == pytest.approx(50)
    assert TwoStep().optimal_return() == pytest.approx(
        70.59, abs=0.005
    )  # as stated in the class docstring


def test_simulated_references_earn_their_computed_returns():
    family = TwoStep()
    tasks = family.sample_tasks(2000, seeded(0), "test")
    mean, error = {}, {}
    for name, reference in family.references(1).items():
        trajectory = collect(family, tasks, reference.build(tasks), episodes=1, seeds=Seeds(1))
        total = trajectory.reward.sum(0).flatten().double()
        mean[name], error[name] = float(total.mean()), float(total.std()) / 2000**0.5
    assert abs(mean["random"] - 50) < 4 * error["random"]
    assert abs(mean["bayes_optimal"] - family.optimal_return()) < 4 * error["bayes_optimal"]
    assert mean["random"] < mean["win_stay"] - 5 < mean["bayes_optimal"] - 10
    assert mean["bayes_optimal"] < family.oracle_return()


def percept(place, payout, *, action=0, first_of_trial=False, first_of_episode=False):
    flag = torch.zeros(1, dtype=torch.bool)
    return Percept(
        obs=torch.eye(3)[place].view(1, 3),
        previous_action=torch.tensor([action]),
        previous_reward=torch.full((1,), float(payout)),
        previous_terminated=flag,
        previous_truncated=flag | (first_of_episode and not first_of_trial),
        first_of_episode=flag | first_of_episode,
        first_of_trial=flag | first_of_trial,
    )


def good_by_definition(history, reward, reversal):
    """P(state 0 is good now): a sum over all sequences of good states.

    `history` has a list for each episode, with the state and payout of each round.
    """
    lengths = [len(episode) for episode in history]
    weight = [0.0, 0.0]
    for start in (0, 1):
        probability = 0.5
        for episode, length in zip(history, lengths, strict=True):
            ends = [0.0, 0.0]  # probability of the payouts and of the good state after them
            for path in itertools.product((0, 1), repeat=length):
                goods, chance = (start, *path), 1.0
                for r, (state, paid) in enumerate(episode):
                    chance *= reward if (state == goods[r]) == (paid == 1) else 1 - reward
                    chance *= reversal if goods[r + 1] != goods[r] else 1 - reversal
                ends[goods[-1]] += chance
            if episode is history[-1]:
                for good in (0, 1):
                    weight[good] += probability * ends[good]
            probability *= sum(ends)
    return weight[0] / sum(weight)


def test_the_filter_equals_the_sum_over_all_sequences_of_good_states():
    history = [[(0, 1), (1, 1), (0, 0)], [(1, 0), (1, 1)], [(0, 0), (0, 1), (1, 0)]]
    reward, reversal = 0.8, 0.15
    policy = BayesFilter(reward, reversal)
    memory, payout = policy.initial_memory(1, 16), 0
    for number, episode in enumerate(history):
        for r, (state, paid) in enumerate(episode):
            first = {"first_of_episode": r == 0, "first_of_trial": r == number == 0}
            action, _, memory = policy.act(percept(0, payout, **first), memory, noise_of(1))
            so_far = [*history[:number], episode[:r]]
            expected = good_by_definition(so_far, reward, reversal)
            assert float(memory.joint.sum((0, 1))[0]) == pytest.approx(expected)
            assert int(action) == int(expected < 0.5)
            _, _, memory = policy.act(percept(state + 1, 0), memory, noise_of(1))
            payout = paid


def test_win_stay_depends_on_the_payout_alone():
    policy, taken, choices = WinStay(), 1, []
    memory = policy.initial_memory(1, 8)
    for place, payout in [(1, 0), (0, 1), (1, 0), (0, 0), (2, 0), (0, 0), (2, 0), (0, 1)]:
        now = percept(place, payout, action=taken)
        action, _, memory = policy.act(now, memory, noise_of(1))
        taken = int(action)
        if place == 0:
            choices.append(taken)
    assert choices == [1, 0, 1, 1]


def test_references_are_listed_from_floor_to_ceiling():
    references = TwoStep().references(3)
    assert [(name, reference.role) for name, reference in references.items()] == [
        ("random", "floor"),
        ("win_stay", "baseline"),
        ("bayes_optimal", "ceiling"),
    ]


def test_changing_observations_and_tasks_in_place_does_not_change_the_state():
    family, task = TwoStep(), torch.tensor([1])
    state = family.reset(task, noise_of(1))
    family.observe(task, state).fill_(9.0)
    task.fill_(0)
    assert (state.place.tolist(), state.good.tolist()) == ([0], [1])


def test_a_trial_is_one_episode_of_100_rounds():
    family = TwoStep()
    assert (family.episode_steps, family.trial_episodes) == (200, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds=0 must be greater than zero"),
        ({"common": 0.4}, "common=0.4 must lie between 0.5 and 1.0"),
        ({"reward": 1.1}, "reward=1.1 must lie between 0.5 and 1.0"),
        ({"reversal": -0.1}, "reversal=-0.1 must lie between 0.0 and 1.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TwoStep(**options)
