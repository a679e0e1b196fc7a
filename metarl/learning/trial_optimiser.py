"""Adam on minibatches of whole trials, as all learners of recurrent policies use it.

A minibatch holds whole trials, so that the memory is replayed from the trial's start.

Axes: `T` steps, `L` lanes = tasks x rollouts per task.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from metarl.agent import AgentContext
from metarl.errors import ConfigError, MetaRLError
from metarl.learning.autograd_gradient import ByAutograd
from metarl.learning.optimiser_state import load_learner, require_finite_gradient, save_learner
from metarl.learning.rank_lanes import RankLanes
from metarl.learning.replayed_steps import ReplayedSteps
from metarl.native.adam import ClippedAdam, clipped_adam
from metarl.validation import require_between, require_positive


class OptimisationOptions(Protocol):
    """The options that the optimiser reads of an agent's config."""

    @property
    def num_tasks(self) -> int:
        """Tasks per meta-batch (N)."""

    @property
    def rollouts_per_task(self) -> int:
        """Rollouts of each task (B)."""

    @property
    def iterations(self) -> int:
        """Meta-iterations of the whole run; schedules run over these."""

    @property
    def num_epochs(self) -> int:
        """Passes over the meta-batch per iteration."""

    @property
    def num_minibatches(self) -> int:
        """Minibatches of whole trials per pass."""

    @property
    def learning_rate(self) -> float:
        """Of Adam at the start."""

    @property
    def final_learning_rate(self) -> float:
        """Of Adam at the end of the run; linear in between."""

    @property
    def max_grad_norm(self) -> float:
        """The gradient is scaled down to this norm."""


def require_optimisation_options(options: OptimisationOptions) -> None:
    """Raises `ConfigError` where an option is out of range, or minibatches would be unequal."""
    for name in ("num_epochs", "num_minibatches", "learning_rate", "max_grad_norm"):
        require_positive(name, getattr(options, name))
    require_between("final_learning_rate", options.final_learning_rate, 0.0, float("inf"))
    lanes = options.num_tasks * options.rollouts_per_task
    if lanes % options.num_minibatches:
        raise ConfigError(
            f"num_tasks={options.num_tasks} times rollouts_per_task={options.rollouts_per_task} "
            f"does not divide into num_minibatches={options.num_minibatches} (remainder "
            f"{lanes % options.num_minibatches}); a recurrent minibatch holds whole trials, so "
            "the product must be a multiple of it."
        )


Metrics = Mapping[str, Tensor | float]
"""means over a minibatch, by name; no gradient"""
Gradient = Callable[[Tensor], Metrics]
"""sets `grad` of all parameters for the lanes [L] of a minibatch; returns metrics"""


class TrialOptimiser:
    """Several epochs of minibatches per update; holds Adam and the count of updates."""

    def __init__(
        self, name: str, learner: nn.Module, options: OptimisationOptions, context: AgentContext
    ) -> None:
        """Learns the parameters of `learner`; `name` is that of the algorithm, for messages."""
        self._name = name
        self._learner = learner
        self._options = options
        self._seeds = context.seeds
        self._device = context.device
        self._ranks = context.ranks
        self._params = list(learner.parameters())
        self.updates = 0
        self._compiled: ClippedAdam | None = None
        on_gpu = context.device.type == "cuda"
        rate = options.learning_rate
        self._adam = torch.optim.Adam(
            self._params,
            lr=torch.tensor(rate, device=context.device) if on_gpu else rate,
            eps=1e-5,
            fused=True,
            capturable=on_gpu,
        )
        alone_on_gpu = on_gpu and self._ranks.size == 1
        self._replayed = ReplayedSteps(self._adam, options.max_grad_norm) if alone_on_gpu else None

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        return self.scheduled(self._options.learning_rate, self._options.final_learning_rate)

    def scheduled(self, first: float, last: float) -> float:
        """The value for the next update of an option that goes linearly from `first` to `last`."""
        left = max(0.0, 1.0 - self.updates / self._options.iterations)
        return last + (first - last) * left

    @contextmanager
    def unchanged_on_error(self) -> Iterator[None]:
        """Within it, a `MetaRLError` leaves the learner as it was on entering."""
        before = self.state()
        try:
            yield
        except MetaRLError:
            self.load_state(before)
            raise

    def update(self, valid: Tensor, gradient: Gradient) -> dict[str, float]:
        """One update: all epochs on a batch. Returns the mean of each metric over minibatches.

        Several ranks have equal minibatches of all their lanes; each computes the gradient for its
        own lanes.

        Args:
            valid: [T, L] float of this rank's batch.
            gradient: of a minibatch of its lanes, for a mean over valid transitions.

        Raises:
            NonFiniteError: a gradient is not finite; earlier minibatches have been learned from.
        """
        for group in self._adam.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(self.learning_rate)
            else:
                group["lr"] = self.learning_rate
        self._compiled = None  # parameters and moments may have moved
        lanes = RankLanes(valid, self._ranks)
        if self._replayed is not None and isinstance(gradient, ByAutograd):
            sums = self._replayed.take(gradient, self._minibatches(lanes.count))
            self._require_finite(sums["grad_norm"])
        else:
            sums = self._take_steps(lanes, gradient)
        self.updates += 1
        count = self._options.num_epochs * self._options.num_minibatches
        return {name: total / count for name, total in sums.items()}

    def _take_steps(self, lanes: RankLanes, gradient: Gradient) -> dict[str, float]:
        """A step on each minibatch; sums of metrics and of the gradient's norm over them."""
        totals: dict[str, Tensor | float] = {}
        norms: Tensor | float = 0.0
        for minibatch in self._minibatches(lanes.count):
            for param in self._params:
                param.grad = None
            own, share = lanes.own(minibatch)
            metrics = gradient(own) if len(own) else {}
            lanes.sum_gradients(self._params, share)
            for name, metric in metrics.items():
                totals[name] = totals.get(name, 0.0) + metric * share
            norms = norms + self._step()
        return {**lanes.sum_metrics(totals), "grad_norm": float(norms)}

    def state(self) -> dict[str, Tensor]:
        """Parameters, moments of Adam and the count of updates."""
        return save_learner(self._learner, self._adam, self.updates)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state` returned. Raises `CheckpointError` if it does not fit."""
        self.updates = load_learner(self._learner, self._adam, state)

    def _minibatches(self, lanes: int) -> Iterator[Tensor]:
        """Numbers of lanes, in random order."""
        device = self._device
        generator = self._seeds.torch("minibatches", self.updates, device=device)
        for _ in range(self._options.num_epochs):
            order = torch.randperm(lanes, generator=generator, device=device)
            yield from order.chunk(self._options.num_minibatches)

    def _step(self) -> Tensor | float:
        """A step along the clipped gradient; returns the norm before clipping."""
        limit = self._options.max_grad_norm
        self._compiled = self._compiled or clipped_adam(self._adam)
        taken = None if self._compiled is None else self._compiled.step(limit)
        if taken is not None:
            self._require_finite(taken)
            return taken
        norm = nn.utils.clip_grad_norm_(self._params, limit, foreach=True).detach()
        self._require_finite(norm)
        self._adam.step()
        return norm

    def _require_finite(self, norm: Tensor | float) -> None:
        require_finite_gradient(norm, learner=self._name, updates=self.updates)
