"""Plans against plain dynamic programming, and posteriors against plain counting."""

import numpy as np
import pytest
import torch

from metarl.envs.tabular.planning import (
    MDP,
    MDPSize,
    Prior,
    action_values,
    posterior_mean_mdp,
    posterior_sample_mdp,
    zero_counts,
)
from metarl.envs.tabular.tabular_mdp import TabularMDP
from metarl.noise import LaneNoise
from metarl.seeding import Seeds
from tests.bandit_rollouts import seeded

SIZE = MDPSize(states=4, actions=3, steps=5)


def values_by_definition(table, reward, steps):
    """Backward induction, one number at a time; table [S, A, S], reward [S, A] in float64."""
    states, actions = reward.shape
    value = np.zeros((steps, states, actions))
    for h in reversed(range(steps)):
        for s in range(states):
            for a in range(actions):
                value[h, s, a] = reward[s, a]
                if h + 1 < steps:
                    for other in range(states):
                        value[h, s, a] += table[s, a, other] * max(value[h + 1, other])
    return value


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_action_values_equal_backward_induction(steps):
    family = TabularMDP(states=4, actions=3)
    mdp = family.mdp(family.sample_tasks(6, seeded(0)).double().view(3, 2, -1))
    values = action_values(mdp, steps)
    assert values.shape == (3, 2, steps, 4, 3)
    for lane in np.ndindex(3, 2):
        expected = values_by_definition(*(table[lane].numpy() for table in mdp), steps)
        np.testing.assert_allclose(values[lane], expected, atol=1e-12)


def test_action_values_equal_a_worked_example():
    # Two states: staying in state 0 pays 1, moving to state 1 pays 0, every action there pays 10.
    transitions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    mdp = MDP(transitions, torch.tensor([[1.0, 0.0], [10.0, 10.0]]))
    values = action_values(mdp, 3)[:, 0]  # of state 0, [H, A]
    # Step 0: stay, 1 + max(next) = 1 + 10; move, 0 + 2 x 10.
    assert values.tolist() == [[11.0, 20.0], [2.0, 10.0], [1.0, 0.0]]


def random_steps(lanes, steps, rng):
    """Steps [T, lanes] as dictionaries of arrays; some lack a reward, some a transition."""
    return [
        {
            "state": rng.integers(4, size=lanes),
            "action": rng.integers(3, size=lanes),
            "next_state": rng.integers(4, size=lanes),
            "reward": rng.normal(size=lanes),
            "has_reward": rng.random(lanes) < 0.8,
            "has_transition": rng.random(lanes) < 0.7,
        }
        for _ in range(steps)
    ]


def counts_after(steps, lanes):
    counts = zero_counts(lanes, SIZE, torch.device("cpu"))
    for step in steps:
        values = {name: torch.as_tensor(value).view(lanes) for name, value in step.items()}
        values["reward"] = values["reward"].float()
        counts = counts.with_step(**values)
    return counts


@pytest.mark.parametrize("weight", [1.0, 1e-4])
def test_posterior_means_equal_plain_counting(weight):
    steps = random_steps(6, 60, np.random.default_rng(0))
    mdp = posterior_mean_mdp(counts_after(steps, (2, 3)), Prior(mean_reward=0.7), weight)
    for lane in range(6):
        for s, a in np.ndindex(4, 3):
            here = [t for t in steps if (t["state"][lane], t["action"][lane]) == (s, a)]
            rewards = [t["reward"][lane] for t in here if t["has_reward"][lane]]
            reached = [t["next_state"][lane] for t in here if t["has_transition"][lane]]
            reward = (0.7 * weight + sum(rewards)) / (weight + len(rewards))
            row = [(weight + reached.count(k)) / (4 * weight + len(reached)) for k in range(4)]
            index = divmod(lane, 3)
            assert float(mdp.rewards[index][s, a]) == pytest.approx(reward, abs=1e-5)
            np.testing.assert_allclose(mdp.transitions[index][s, a], row, atol=1e-6)


def test_adding_a_step_does_not_change_the_counts_in_place():
    steps = random_steps(2, 2, np.random.default_rng(0))
    counts = counts_after(steps[:1], (2, 1))
    before = [part.clone() for part in counts]
    counts.with_step(**{k: torch.as_tensor(v).view(2, 1) for k, v in steps[1].items()})
    assert all(torch.equal(part, old) for part, old in zip(counts, before, strict=True))


def test_sampled_mdps_have_the_moments_of_the_posterior():
    lanes = 20_000
    steps = random_steps(1, 40, np.random.default_rng(1))
    counts = counts_after(steps, (1,))
    counts = type(counts)(*(part.expand(lanes, *part.shape[1:]) for part in counts))
    prior = Prior(mean_reward=-1.0)
    sample = posterior_sample_mdp(counts, prior, LaneNoise.of(Seeds(0), "noise", lanes))
    mean = posterior_mean_mdp(counts, prior)
    assert (sample.transitions.sum(-1) - 1).abs().max() < 1e-5
    # Dirichlet(alpha): variance m (1 - m) / (1 + sum of alpha).
    m, total = mean.transitions[0], 4 + counts.transitions[0].sum(-1, keepdim=True)
    variance = m * (1 - m) / (1 + total)
    error = (variance / lanes).sqrt()
    assert ((sample.transitions.mean(0) - m).abs() < 4.5 * error).all()
    torch.testing.assert_close(sample.transitions.var(0), variance, rtol=0.06, atol=0)
    variance = 1 / (1 + counts.visits[0])
    error = (variance / lanes).sqrt()
    assert ((sample.rewards.mean(0) - mean.rewards[0]).abs() < 4.5 * error).all()
    torch.testing.assert_close(sample.rewards.var(0), variance, rtol=0.06, atol=0)
    assert counts.transitions[0].max() > 1  # the posterior differs from the prior


@pytest.mark.parametrize("words", [0, -1, 2**63 - 1, -(2**63)])
def test_sampled_rows_are_never_all_zero(monkeypatch, words):
    """With a single state, its probability is 1 even for the most extreme random words."""
    counts = zero_counts((50,), MDPSize(states=1, actions=2, steps=1), torch.device("cpu"))
    noise = LaneNoise.of(Seeds(0), "noise", 50)
    monkeypatch.setattr("metarl.noise._mix", lambda x: torch.full_like(x, words))
    assert (posterior_sample_mdp(counts, Prior(), noise).transitions == 1).all()
