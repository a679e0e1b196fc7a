"""Plans beside a plain dynamic programme, and posteriors beside plain counting."""

import numpy as np
import pytest
import torch

from metarl.envs.tabular.planning import (
    MDP,
    Prior,
    Size,
    action_values,
    drawn_mdp,
    expected_mdp,
    nothing_known,
)
from metarl.envs.tabular.tabular_mdp import TabularMDP
from tests.bandit_rollouts import seeded

SIZE = Size(states=4, actions=3, steps=5)


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


def test_action_values_by_hand():
    # Two states; staying in state 0 pays 1, walking to state 1 pays 0, and there all pay 10.
    transitions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    mdp = MDP(transitions, torch.tensor([[1.0, 0.0], [10.0, 10.0]]))
    first = action_values(mdp, 3)[:, 0]  # of state 0, [H, A]
    # Step 0: stay, 1 + max(next) = 1 + 10; walk, 0 + 2 x 10.
    assert first.tolist() == [[11.0, 20.0], [2.0, 10.0], [1.0, 0.0]]


def lived_at_random(lanes, steps, rng):
    """Steps [T, lanes] as dictionaries of arrays; some pay nothing, some move nowhere."""
    return [
        {
            "state": rng.integers(4, size=lanes),
            "action": rng.integers(3, size=lanes),
            "next_state": rng.integers(4, size=lanes),
            "reward": rng.normal(size=lanes),
            "paid": rng.random(lanes) < 0.8,
            "moved": rng.random(lanes) < 0.7,
        }
        for _ in range(steps)
    ]


def known_after(steps, lanes):
    known = nothing_known(lanes, SIZE, torch.device("cpu"))
    for step in steps:
        values = {name: torch.as_tensor(value).view(lanes) for name, value in step.items()}
        values["reward"] = values["reward"].float()
        known = known.counted(**values)
    return known


@pytest.mark.parametrize("weight", [1.0, 1e-4])
def test_posterior_means_equal_plain_counting(weight):
    steps = lived_at_random(6, 60, np.random.default_rng(0))
    mdp = expected_mdp(known_after(steps, (2, 3)), Prior(mean_reward=0.7), weight)
    for lane in range(6):
        for s, a in np.ndindex(4, 3):
            here = [t for t in steps if (t["state"][lane], t["action"][lane]) == (s, a)]
            paid = [t["reward"][lane] for t in here if t["paid"][lane]]
            moves = [t["next_state"][lane] for t in here if t["moved"][lane]]
            reward = (0.7 * weight + sum(paid)) / (weight + len(paid))
            row = [(weight + moves.count(k)) / (4 * weight + len(moves)) for k in range(4)]
            place = divmod(lane, 3)
            assert float(mdp.rewards[place][s, a]) == pytest.approx(reward, abs=1e-5)
            np.testing.assert_allclose(mdp.transitions[place][s, a], row, atol=1e-6)


def test_counting_changes_nothing_that_was_known():
    steps = lived_at_random(2, 2, np.random.default_rng(0))
    known = known_after(steps[:1], (2, 1))
    before = [part.clone() for part in known]
    known.counted(**{k: torch.as_tensor(v).view(2, 1) for k, v in steps[1].items()})
    assert all(torch.equal(part, old) for part, old in zip(known, before, strict=True))


def test_drawn_mdps_have_the_moments_of_the_posterior():
    copies = 20_000
    steps = lived_at_random(1, 40, np.random.default_rng(1))
    known = known_after(steps, (1,))
    known = type(known)(*(part.expand(copies, *part.shape[1:]) for part in known))
    prior = Prior(mean_reward=-1.0)
    drawn, mean = drawn_mdp(known, prior, seeded(0)), expected_mdp(known, prior)
    assert (drawn.transitions.sum(-1) - 1).abs().max() < 1e-5
    # Dirichlet(alpha): variance m (1 - m) / (1 + sum of alpha).
    m, total = mean.transitions[0], 4 + known.moves[0].sum(-1, keepdim=True)
    variance = m * (1 - m) / (1 + total)
    error = (variance / copies).sqrt()
    assert ((drawn.transitions.mean(0) - m).abs() < 4.5 * error).all()
    torch.testing.assert_close(drawn.transitions.var(0), variance, rtol=0.06, atol=0)
    variance = 1 / (1 + known.visits[0])
    error = (variance / copies).sqrt()
    assert ((drawn.rewards.mean(0) - mean.rewards[0]).abs() < 4.5 * error).all()
    torch.testing.assert_close(drawn.rewards.var(0), variance, rtol=0.06, atol=0)
    assert known.moves[0].max() > 1  # some was known


def test_drawn_rows_are_never_empty(monkeypatch):
    """A single state is certain to follow, whatever the luck."""
    known = nothing_known((50,), Size(states=1, actions=2, steps=1), torch.device("cpu"))
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, **_: self.zero_())
    assert (drawn_mdp(known, Prior(), seeded(0)).transitions == 1).all()
