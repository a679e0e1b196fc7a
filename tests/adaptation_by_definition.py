"""Adaptation one task at a time, with distributions of torch: slow, and independent of the package.

Axes: `T` steps, `N` tasks, `B` rollouts of each, `D` observation, `P` parameters of a policy, `Q`
meta-parameters, `R` parameters of an action distribution.
"""

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal, kl_divergence

from metarl.agents.gradient.inner_loop import Adaptation, InnerLoop
from metarl.agents.gradient.inner_rules import (
    GradientDescent,
    InnerRule,
    LearnedRates,
    LearningRateSchedule,
)
from metarl.agents.gradient.outer_loop import MetaProblem
from metarl.agents.gradient.pg_batch import ESTIMATORS, Estimator, PGBatch
from metarl.networks.action_heads import action_head
from metarl.networks.stacked_mlp import StackedMLP
from metarl.noise import LaneNoise

DISCRETE = spaces.Discrete(3)
# The first component is bounded, with centre 1 and half range 3; the second has no bounds.
BOX = spaces.Box(np.float32([-2.0, -np.inf]), np.float32([4.0, np.inf]))
CENTRE, SCALE = torch.tensor([1.0, 0.0]).double(), torch.tensor([3.0, 1.0]).double()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A small gradient agent, and the same one written out by hand."""

    box: bool = False
    estimator: Estimator = "score"
    learned_rates: bool = False
    hidden_sizes: tuple[int, ...] = (4, 3)
    learn_constants: bool = True
    first_order: bool = False
    rate: float = 0.7
    later_lr_scale: float = 1.0
    later_lr_decay: float = 1.0
    multi_step_loss: bool = False
    shared_advantage_scale: bool = False
    inner_steps: int = 1
    num_tasks: int = 3

    @property
    def space(self) -> spaces.Space:
        return BOX if self.box else DISCRETE

    @property
    def sizes(self) -> tuple[int, ...]:
        return (2, *self.hidden_sizes, 2 if self.box else 3)

    def inner(self) -> InnerLoop:
        """The inner loop to be tested."""
        head = action_head(self.space).double()
        schedule = LearningRateSchedule(later=self.later_lr_scale, decay=self.later_lr_decay)
        rule: InnerRule = GradientDescent(self.rate, schedule)
        if self.learned_rates:
            rule = LearnedRates(self.rate, 2 * self.rate, schedule)
        return InnerLoop(
            network=StackedMLP(
                sizes=self.sizes, constants=head.constants, learn_constants=self.learn_constants
            ),
            head=head,
            rule=rule,
            estimator=ESTIMATORS[self.estimator],
            first_order=self.first_order,
        )

    def problem(self, batches: list[PGBatch]) -> MetaProblem:
        """The meta-problem to be tested."""
        return MetaProblem(self.inner(), batches, self.multi_step_loss, self.shared_advantage_scale)

    @property
    def size(self) -> int:
        """P."""
        return self.inner().network.size

    def meta_params(self, seed: int = 0) -> Tensor:
        """Meta-parameters [Q] of order one; all learned rates differ."""
        generator = torch.Generator().manual_seed(seed)
        params = 0.5 * torch.randn(self.size, generator=generator, dtype=torch.float64)
        if not self.learned_rates:
            return params
        share = torch.rand(self.size, generator=generator, dtype=torch.float64)
        return torch.cat((params, self.rate * (0.5 + share)))

    def batches(self, seed: int = 1) -> list[PGBatch]:
        """K + 1 phases of random numbers, with episodes of all lengths and idle lanes."""
        generator = torch.Generator().manual_seed(seed)
        return [self._batch(generator) for _ in range(self.inner_steps + 1)]

    def _batch(self, generator: torch.Generator) -> PGBatch:
        time, tasks, rollouts = lead = 5, self.num_tasks, 4

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        first = torch.rand(lead, generator=generator) < 0.4
        first[0] = True
        length = torch.randint(2, time + 1, lead[1:], generator=generator)
        valid = torch.arange(time).view(-1, 1, 1) < length
        head = action_head(self.space).double()
        dist_params = 0.3 * normal(*lead, head.outputs + head.constants)
        rows = dist_params.flatten(0, -2)
        noise = LaneNoise(torch.randint(2**62, (len(rows),), generator=generator))
        action = head.sample(rows, noise)[0].unflatten(0, lead)
        return PGBatch(
            inputs=normal(time * rollouts, tasks, 2),
            action=action,
            # Of another policy, so that no ratio is one.
            log_prob=head.evaluate(dist_params + 0.3 * normal(*dist_params.shape), action)[0],
            advantage=normal(*lead),
            scaled_reward=normal(*lead),
            scaled_value=normal(*lead),
            advantage_std=0.5 + normal(tasks).abs(),
            episode_return=normal(tasks),
            first=first & valid,
            valid=valid.double(),
        )

    # By hand, one task at a time.

    def dist_params(self, params: Tensor, obs: Tensor) -> Tensor:
        """Parameters [P] and observations [..., D] -> distribution parameters [..., R]."""
        start = 0
        for number, (inputs, outputs) in enumerate(pairwise(self.sizes), start=2):
            weight = params[start : start + inputs * outputs].view(inputs, outputs)
            start += inputs * outputs
            obs = obs @ weight + params[start : start + outputs]
            start += outputs
            if number < len(self.sizes):
                obs = obs.tanh()
        constants = params[start:] if self.learn_constants else params[start:].detach()
        return torch.cat((obs, constants.expand(*obs.shape[:-1], -1)), -1)

    def distribution(self, params: Tensor, data: PGBatch, task: int) -> Distribution:
        """Of the actions of one task, [T, B]."""
        obs = data.inputs[:, task].view(len(data.valid), -1, 2)
        dist_params = self.dist_params(params, obs)
        if self.box:
            return Independent(Normal(dist_params[..., :2], dist_params[..., 2:].exp()), 1)
        return Categorical(logits=dist_params)

    def log_prob(self, params: Tensor, data: PGBatch, task: int) -> Tensor:
        """Of the actions taken in one task, [T, B]; Box actions in units of their bounds."""
        action = data.action[:, task]
        if self.box:
            action = (action - CENTRE) / SCALE
        return self.distribution(params, data, task).log_prob(action)

    def inner_loss(self, params: Tensor, data: PGBatch, task: int) -> Tensor:
        """The definitions in metarl/learning/losses.py, sample by sample."""
        log_prob = self.log_prob(params, data, task)
        total = torch.zeros((), dtype=torch.float64)
        for rollout, length in enumerate(data.valid[:, task].sum(0).int().tolist()):
            past = torch.zeros((), dtype=torch.float64)
            for t in range(length):
                here, at = log_prob[t, rollout], (t, task, rollout)
                past = here if data.first[at] else past + here
                if self.estimator == "score":
                    total = total + here * data.advantage[at]
                elif self.estimator == "lvc":
                    total = total + (here - data.log_prob[at]).exp() * data.advantage[at]
                elif self.estimator == "dice":
                    total = total + magic(past) * data.scaled_reward[at]
                    total = total + (1 - magic(here)) * data.scaled_value[at]
                else:
                    total = total + (magic(past) - magic(past - here)) * data.advantage[at]
        return -total / data.valid[:, task].sum()

    def phases(self, meta_params: Tensor, batches: list[PGBatch], task: int) -> list[Tensor]:
        """Parameters of one task before and after each inner step, K + 1 times [P]."""
        params = [meta_params[: self.size]]
        rates = meta_params[self.size :] if self.learned_rates else self.rate
        for step, data in enumerate(batches[:-1]):
            at = params[-1] if params[-1].requires_grad else params[-1].requires_grad_()
            loss = self.inner_loss(at, data, task)
            (gradient,) = torch.autograd.grad(loss, at, create_graph=True)
            if self.first_order:
                gradient = gradient.detach()
            scale = [1.0, self.later_lr_scale, self.later_lr_scale * self.later_lr_decay][step]
            params.append(at - scale * rates * gradient)
        return params

    def adapted(self, meta_params: Tensor, batches: list[PGBatch]) -> Tensor:
        """Parameters of all tasks after the last step, [N, P]."""
        each = [self.phases(meta_params, batches, task)[-1] for task in range(self.num_tasks)]
        return torch.stack(each).detach()

    @property
    def outer_phases(self) -> list[int]:
        """Phases in the outer loss."""
        every = list(range(self.inner_steps + 1))
        return every[1:] if self.multi_step_loss and self.inner_steps else every[-1:]

    def kl_divergence(self, old: Tensor, new: Tensor, batches: list[PGBatch], phase: int) -> Tensor:
        """Mean KL(old || new) of a phase's policies, given two values of the meta-parameters."""
        total, data = torch.zeros((), dtype=torch.float64), batches[phase]
        for task in range(self.num_tasks):
            params = (self.phases(each, batches, task)[phase] for each in (old, new))
            before, after = (self.distribution(p, data, task) for p in params)
            total = total + self._mean(kl_divergence(before, after), data, task)
        return total / self.num_tasks

    def outer_divergence(self, old: Tensor, new: Tensor, batches: list[PGBatch]) -> Tensor:
        """The mean over the phases in the outer loss."""
        return sum(self.kl_divergence(old, new, batches, k) for k in self.outer_phases) / len(
            self.outer_phases
        )

    def advantage(self, batches: list[PGBatch], phase: int, task: int) -> Tensor:
        """Advantages of one task in the outer loss of a phase, [T, B]."""
        if not self.shared_advantage_scale:
            return batches[phase].advantage[:, task]
        every = [
            float(batches[k].advantage_std[n])
            for k in self.outer_phases
            for n in range(self.num_tasks)
        ]
        unscaled = batches[phase].advantage[:, task] * batches[phase].advantage_std[task]
        return unscaled / np.mean(every)

    def expected_return(self, meta_params: Tensor, batches: list[PGBatch]) -> Tensor:
        """Minus the mean over phases in the outer loss, and tasks, of ratio times advantage."""
        total = torch.zeros((), dtype=torch.float64)
        for phase in self.outer_phases:
            data = batches[phase]
            for task in range(self.num_tasks):
                params = self.phases(meta_params, batches, task)[phase]
                ratio = (self.log_prob(params, data, task) - data.log_prob[:, task]).exp()
                gain = ratio * self.advantage(batches, phase, task)
                total = total - self._mean(gain, data, task)
        return total / self.num_tasks / len(self.outer_phases)

    @staticmethod
    def _mean(value: Tensor, data: PGBatch, task: int) -> Tensor:
        valid = data.valid[:, task]
        return (value * valid).sum() / valid.sum()


def magic(value: Tensor) -> Tensor:
    """One, with the derivatives of exp."""
    return (value - value.detach()).exp()


def gradient_by_autograd(function, meta_params: Tensor) -> tuple[float, Tensor]:
    """A scalar function of the meta-parameters, and its gradient [Q]."""
    at = meta_params.clone().requires_grad_()
    value = function(at)
    (gradient,) = torch.autograd.grad(value, at)
    return float(value.detach()), gradient


def assert_products_are_adjoint_to_the_gradient(here: Adaptation, meta_params: Tensor) -> None:
    """Forward mode, which TRPO's Hessian products use, against reverse mode, in all phases."""
    direction = torch.randn(len(meta_params), generator=torch.Generator().manual_seed(5)).double()
    tangents = here.jvp(direction, range(len(here.dist_params)))
    given = [torch.ones_like(each) for each in here.dist_params]
    forward = sum((one * two).sum() for one, two in zip(given, tangents, strict=True))
    reverse = here.meta_gradient(given) @ direction
    torch.testing.assert_close(reverse, forward, rtol=1e-9, atol=1e-11)


def derivative_by_differences(function, meta_params: Tensor, direction: Tensor) -> Tensor:
    """Central difference of fourth order along a direction [Q]."""
    step = 1e-4 * direction

    def difference(width: float) -> Tensor:
        return function(meta_params + width * step) - function(meta_params - width * step)

    return (8 * difference(1.0) - difference(2.0)) / 12e-4


def tasks_of(batches: list[PGBatch], tasks: list[int]) -> list[PGBatch]:
    """The same phases of some of the tasks, in this order."""
    axes = {"advantage_std": 0, "episode_return": 0}
    return [
        PGBatch(
            **{
                each.name: getattr(data, each.name).index_select(
                    axes.get(each.name, 1), torch.tensor(tasks)
                )
                for each in fields(PGBatch)
                if getattr(data, each.name) is not None
            }
        )
        for data in batches
    ]
