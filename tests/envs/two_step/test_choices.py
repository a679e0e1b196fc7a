"""Stay probabilities against plain counting, and the patterns of model-free and -based policies."""

import numpy as np
import pytest
import torch

from metarl.envs.two_step.choices import Rounds, rounds_of, stay_counts, stay_probabilities
from metarl.envs.two_step.two_step import TwoStep
from metarl.errors import ShapeError
from metarl.networks.policies import UniformPolicy
from metarl.rollout import collect
from metarl.seeding import Seeds
from tests.bandit_rollouts import seeded


def as_rounds(choice, state, payout, first=None):
    """One lane."""
    starts = [r == 0 for r in range(len(choice))] if first is None else first
    columns = choice, state, [float(p) for p in payout], starts
    return Rounds(*(torch.tensor(column).view(-1, 1, 1) for column in columns))


def stays(rounds):
    """Stay probabilities over all lanes, [2, 2]."""
    return stay_probabilities(stay_counts(rounds).sum((3, 4)))


def roll_out(family, name_or_policy, num_tasks=200):
    tasks = family.sample_tasks(num_tasks, seeded(0))
    policy = name_or_policy
    if isinstance(policy, str):
        policy = family.references(2)[policy].build(tasks)
    return collect(family, tasks, policy, episodes=2, seeds=Seeds(3), keep_next_obs=True)


def test_counts_equal_those_of_a_plain_loop():
    family = TwoStep(rounds=25)
    trajectory = roll_out(family, UniformPolicy(family.action_space), num_tasks=6)
    counts = stay_counts(rounds_of(trajectory))
    assert counts.shape == (2, 2, 2, 6, 1)
    expected = torch.zeros_like(counts)
    for task in range(6):
        for step in range(0, 98, 2):
            if step == 48:
                continue  # the next round starts an episode
            choice, next_choice = trajectory.action[[step, step + 2], task, 0].tolist()
            state = int(trajectory.next_obs[step, task, 0].argmax()) - 1
            paid = int(trajectory.reward[step + 1, task, 0])
            expected[paid, int(state == choice), int(next_choice == choice), task, 0] += 1
    assert torch.equal(counts, expected)
    assert counts.sum() == 6 * 2 * 24
    assert (counts.sum((3, 4)) > 0).all()  # every cell is covered


def test_counts_and_probabilities_equal_a_worked_example():
    rounds = as_rounds(
        choice=[0, 0, 1, 1, 1, 0],
        state=[0, 1, 1, 0, 1, 0],
        payout=[1, 0, 1, 1, 0, 1],
    )
    # Paid: rare 1 -> 1 (stayed); common 0 -> 0 and 1 -> 1 (stayed twice).
    # Not paid: rare 0 -> 1 (switched); common 1 -> 0 (switched).
    assert stays(rounds).tolist() == [[0, 0], [1, 1]]
    assert stay_counts(rounds).sum((3, 4)).tolist() == [[[1, 0], [1, 0]], [[0, 1], [0, 2]]]


def test_a_combination_that_never_occurred_has_probability_nan():
    probabilities = stays(as_rounds([0, 0], [0, 0], [1, 0]))
    assert probabilities[1, 1] == 1
    assert probabilities.isnan().tolist() == [[True, True], [True, False]]


def test_probabilities_are_per_lane_or_over_all_lanes():
    counts = torch.zeros(2, 2, 2, 3, 1)
    counts[1, 1, :, :, 0] = torch.tensor([[1.0, 0.0, 3.0], [1.0, 5.0, 0.0]])
    assert stay_probabilities(counts)[1, 1, :, 0].tolist() == [0.5, 1.0, 0.0]
    assert float(stay_probabilities(counts.sum((3, 4)))[1, 1]) == 6 / 10


def simulated_stays(learner, lanes=60, rounds=100):
    """A plain loop over lanes and rounds: common transitions .8, payouts .9 and .1."""
    rng = np.random.default_rng(0)
    counts = torch.zeros(2, 2, 2)
    for _ in range(lanes):
        good, memory = int(rng.integers(2)), np.full(2, 0.5)
        columns = [], [], []
        for _ in range(rounds):
            value = learner.values(memory)
            choice = int(rng.random() < 1 / (1 + np.exp(-5 * (value[1] - value[0]))))
            state = choice ^ int(rng.random() >= 0.8)
            paid = int(rng.random() < (0.9 if state == good else 0.1))
            updated = learner.updated_entry(choice, state)
            memory[updated] += 0.5 * (paid - memory[updated])
            for column, item in zip(columns, (choice, state, paid), strict=True):
                column.append(item)
            good ^= int(rng.random() < 0.025)
        counts += stay_counts(as_rounds(*columns)).sum((3, 4))
    return stay_probabilities(counts)


class ModelFree:
    """Learns values of the choices, TD(1)."""

    def values(self, memory):
        return memory

    def updated_entry(self, choice, state):
        return choice


class ModelBased:
    """Learns values of the second-stage states; knows the transition probabilities."""

    def values(self, memory):
        return np.array([[0.8, 0.2], [0.2, 0.8]]) @ memory

    def updated_entry(self, choice, state):
        return state


def effect_of_payout(probabilities):
    """Increase of the stay probability by a payout: after a rare, after a common transition."""
    return (probabilities[1] - probabilities[0]).tolist()


def test_a_model_free_learner_repeats_paid_choices_after_any_transition():
    rare, common = effect_of_payout(simulated_stays(ModelFree()))
    assert rare > 0.08
    assert common > 0.3


def test_a_model_based_learner_switches_after_a_paid_rare_transition():
    rare, common = effect_of_payout(simulated_stays(ModelBased()))
    assert rare < -0.3
    assert common > 0.3


def test_references_have_the_expected_stay_probabilities():
    # Win-stay repeats a choice exactly when it was paid.
    model_free = stays(rounds_of(roll_out(TwoStep(), "win_stay")))
    assert model_free.tolist() == [[0, 0], [1, 1]]
    optimum = stays(rounds_of(roll_out(TwoStep(), "bayes_optimal")))
    assert float(optimum[1, 1]) > 0.99  # paid in the state that it expects to be good
    assert float(optimum[0, 0]) > 0.99  # not paid in the other state
    assert float(optimum[1, 0]) < 0.9
    assert float(optimum[0, 1]) < 0.9


def test_trajectories_without_whole_rounds_are_refused():
    family = TwoStep(rounds=3)
    whole = roll_out(family, "win_stay", num_tasks=2)
    columns = whole.columns
    for broken in (
        {name: value[1:] for name, value in columns.items()},
        {name: value[1:-1] for name, value in columns.items()},
        columns | {"obs": whole.obs[..., :2]},
    ):
        with pytest.raises(ShapeError, match="have two steps each"):
            rounds_of(type(whole)(**broken))
