"""Adam on minibatches of whole trials: steps by definition, schedules, and failures."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import pytest
import torch
from torch import Tensor, nn

from metarl.agent import AgentContext
from metarl.errors import ConfigError, MetaRLError
from metarl.learning.autograd_gradient import ByAutograd, Loss
from metarl.learning.trial_optimiser import (
    TrialOptimiser,
    require_optimisation_options,
)
from metarl.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class Options:
    num_tasks: int = 4
    rollouts_per_task: int = 2
    iterations: int = 4
    num_epochs: int = 2
    num_minibatches: int = 4
    learning_rate: float = 0.1
    final_learning_rate: float = 0.02
    max_grad_norm: float = 1e6


@dataclass(frozen=True)
class Lanes:
    """Each lane holds its number."""

    valid: Tensor  # [T, L]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Lanes":
        return Lanes(function(self.valid))


EIGHT = Lanes(torch.arange(8.0).expand(3, 8))


def build(**options: object) -> tuple[TrialOptimiser, nn.Linear]:
    context = AgentContext(
        observation_space=None, action_space=None, seeds=Seeds(0), device=torch.device("cpu")
    )
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    return TrialOptimiser("the test", layer, Options(**options), context), layer


def take_steps(optimiser: TrialOptimiser, loss: Loss) -> dict[str, float]:
    return optimiser.update(EIGHT.valid, ByAutograd(EIGHT, loss))


def test_each_epoch_takes_every_lane_once_in_an_order_of_its_own():
    optimiser, layer = build()
    seen: list[list[float]] = []

    def loss(batch: Lanes) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append(batch.valid[0].tolist())
        return layer.weight.sum(), {"mean": batch.valid.mean()}

    metrics = take_steps(optimiser, loss)
    assert [len(lanes) for lanes in seen] == [2] * 8
    epochs = [*chain(*seen[:4])], [*chain(*seen[4:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(8))
    assert epochs[0] != epochs[1]
    assert metrics == {"mean": pytest.approx(3.5), "grad_norm": 1.0}
    first = list(seen)
    take_steps(optimiser, loss)
    assert seen[8:] != first


def test_steps_are_those_of_adam_at_the_scheduled_rate_along_the_clipped_gradient():
    optimiser, layer = build(max_grad_norm=0.5, num_epochs=1, num_minibatches=1)
    weight, first, second, time = 1.0, 0.0, 0.0, 0
    for update in range(6):
        rate = 0.02 + 0.08 * max(0.0, 1 - update / 4)
        assert optimiser.learning_rate == pytest.approx(rate)
        take_steps(optimiser, lambda _: (3.0 * layer.weight.sum(), {}))
        gradient, time = 0.5, time + 1
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        unbiased = first / (1 - 0.9**time), second / (1 - 0.999**time)
        weight -= rate * unbiased[0] / (unbiased[1] ** 0.5 + 1e-5)
        assert float(layer.weight.detach()) == pytest.approx(weight, rel=1e-4)


def test_an_error_of_the_library_leaves_the_learner_unchanged():
    optimiser, layer = build()
    take_steps(optimiser, lambda _: (layer.weight.sum(), {}))
    before, calls = optimiser.state(), []

    def failing(batch: Lanes) -> tuple[Tensor, dict[str, Tensor]]:
        calls.append(batch)
        if len(calls) == 3:
            raise MetaRLError("the third minibatch")
        return layer.weight.sum(), {}

    with pytest.raises(MetaRLError, match="the third minibatch"), optimiser.unchanged_on_error():
        take_steps(optimiser, failing)
    assert optimiser.updates == 1
    after = optimiser.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_epochs": 0}, "num_epochs=0 must be greater than zero"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be greater than zero"),
        ({"max_grad_norm": 0.0}, "max_grad_norm=0.0 must be greater than zero"),
        ({"final_learning_rate": -1.0}, "final_learning_rate=-1.0 must lie between"),
        ({"num_minibatches": 3}, r"num_tasks=4 .* num_minibatches=3 \(remainder 2\)"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        require_optimisation_options(Options(**options))
