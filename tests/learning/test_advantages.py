import pytest
import torch
from torch import Tensor

from metarl.learning.advantages import gae

COLUMNS = 20


def transitions() -> dict[str, Tensor]:
    """Random transitions [9, 20] in float64 with episode ends of both kinds."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(3, 9, COLUMNS, generator=generator, dtype=torch.float64)
    ends = torch.rand(2, 9, COLUMNS, generator=generator) < 0.2
    return {
        "reward": numbers[0],
        "value": numbers[1],
        "next_value": numbers[2],
        "terminated": ends[0],
        "truncated": ends[1] & ~ends[0],
    }


def gae_by_definition(reward, value, next_value, terminated, truncated, *, gamma, gae_lambda):
    """The defining double sum for one scalar sequence."""
    advantage = torch.zeros_like(reward)
    for t in range(len(reward)):
        weight = 1.0
        for k in range(t, len(reward)):
            bootstrap = 0.0 if terminated[k] else gamma * next_value[k]
            advantage[t] += weight * (reward[k] + bootstrap - value[k])
            weight *= gamma * gae_lambda
            if terminated[k] or truncated[k]:
                break
    return advantage


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.9, 0.8), (1.0, 1.0), (0.99, 0.0), (0.0, 0.5)])
def test_gae_equals_its_definition_in_every_column(gamma, gae_lambda):
    data = transitions()
    fast = gae(**data, gamma=gamma, gae_lambda=gae_lambda)
    for column in range(COLUMNS):
        sequence = {name: value[:, column] for name, value in data.items()}
        slow = gae_by_definition(**sequence, gamma=gamma, gae_lambda=gae_lambda)
        torch.testing.assert_close(fast[:, column], slow, rtol=0, atol=1e-12)


def test_rewards_after_an_episode_end_do_not_affect_earlier_advantages():
    data = transitions()
    data["truncated"][4] = ~data["terminated"][4]  # every column ends at t = 4
    before = gae(**data, gamma=0.9, gae_lambda=0.8)
    data["reward"] = data["reward"].clone()
    data["reward"][5:] += 100.0
    after = gae(**data, gamma=0.9, gae_lambda=0.8)
    torch.testing.assert_close(before[:5], after[:5], rtol=0, atol=0)
    assert (after[5:] != before[5:]).all()  # the change has an effect


def test_a_worked_example():
    # delta = [1 + .5 * 4 - 2, 3 - 4] = [1, -1]; adv = [1 + .5 * .5 * (-1), -1]
    advantage = gae(
        reward=torch.tensor([1.0, 3.0]),
        value=torch.tensor([2.0, 4.0]),
        next_value=torch.tensor([4.0, 9.0]),
        terminated=torch.tensor([False, True]),
        truncated=torch.tensor([False, False]),
        gamma=0.5,
        gae_lambda=0.5,
    )
    assert advantage.tolist() == [0.75, -1.0]
