"""The outer loop: rules that improve the meta-parameters from the adapted policies' experience.

Axes: `N` tasks, `M` samples of each, `K` inner steps, `Q` meta-parameters, `R` parameters of an
action distribution (see `ActionHead`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from metarl.agents.gradient.inner_loop import (
    Adaptation,
    InnerLoop,
    InnerLoss,
    gradient_of,
    hessian_products,
)
from metarl.agents.gradient.pg_batch import PGBatch
from metarl.errors import NonFiniteError
from metarl.learning.trust_region import Candidate, backtrack, conjugate_gradient
from metarl.ranks import ALONE, Ranks


@dataclass(frozen=True)
class MetaProblem:
    """One meta-iteration: how tasks adapt, and the experience before and after each inner step.

    Each of several ranks has the problem of as many tasks of its own. Numbers and gradients are
    means over the tasks of all ranks; what is derived further, such as losses as tensors, is of
    this rank's tasks.
    """

    inner: InnerLoop
    batches: Sequence[PGBatch]  # K + 1
    multi_step_loss: bool = False
    """the outer loss is the mean over the phases after every inner step, not the last alone"""
    shared_advantage_scale: bool = False
    """advantages of all tasks and phases are divided by one deviation, not each by its own"""
    known: Sequence[InnerLoss] = ()
    """K inner losses at the present meta-parameters, computed while adapting"""
    start_noise: Tensor | None = None
    """[N, R] of the inner rule's start"""
    ranks: Ranks = ALONE
    """the processes that share the tasks"""

    def advantage(self, phase: int) -> Tensor:
        """Advantages in the outer loss of a phase, [T, N, B]."""
        batch = self.batches[phase]
        if not self.shared_advantage_scale:
            return batch.advantage
        scales = [self.batches[each].advantage_std for each in self.outer_phases]
        scale = self.ranks.mean(torch.stack(scales).mean())
        return batch.advantage * (batch.advantage_std / scale).view(1, -1, 1)

    @property
    def outer_phases(self) -> range:
        """The phases in the outer loss: the last, or with a multi-step loss all after the first."""
        last = len(self.batches) - 1
        return range(min(1, last) if self.multi_step_loss else last, last + 1)

    def adapt(self, meta_params: Tensor) -> Adaptation:
        """All inner steps from any meta-parameters [Q]."""
        return Adaptation(self.inner, meta_params, self.batches, start_noise=self.start_noise)

    def adapt_here(self, meta_params: Tensor) -> Adaptation:
        """All inner steps from the meta-parameters [Q] that the experience comes from."""
        return Adaptation(self.inner, meta_params, self.batches, self.known, self.start_noise)

    def kl_divergence(self, old: Tensor, new: Tensor, phase: int) -> Tensor:
        """Mean KL(old || new) of the policies of a phase, given by their parameters [M, N, R].

        A tensor, over this rank's tasks.
        """
        return self.batches[phase].kl_divergence(self.inner.head, old, new)

    def outer_divergence(self, old: Sequence[Tensor], new: Sequence[Tensor]) -> float:
        """Mean of the divergence over `outer_phases`, of K + 1 dist_params tensors each."""
        each = [self.kl_divergence(old[phase], new[phase], phase) for phase in self.outer_phases]
        return self.ranks.mean_number(float(torch.stack(each).mean()))

    def log_probs(self, dist_params: Sequence[Tensor], phase: int) -> Tensor:
        """Of the actions taken in a phase, [T, N, B]."""
        return self.batches[phase].log_probs(self.inner.head, dist_params[phase])

    def ratio(self, dist_params: Sequence[Tensor], phase: int) -> Tensor:
        """Probability ratio of the actions of a phase: now over when they were taken."""
        return (self.log_probs(dist_params, phase) - self.batches[phase].log_prob).exp()

    def meta_gradient(
        self, outer_loss: "OuterLoss", adaptation: Adaptation
    ) -> tuple[float, Tensor]:
        """Value of an outer loss, and its gradient by the meta-parameters [Q] through the steps."""
        with torch.enable_grad():
            dist_params = [each.detach().requires_grad_() for each in adaptation.dist_params]
            loss = outer_loss(self, dist_params)
            grad_dist_params = torch.autograd.grad(loss, dist_params, allow_unused=True)
            rule_params = adaptation.rule_params.detach().requires_grad_()
            penalty = self._penalty(rule_params, adaptation)
        value = float(loss.detach()) + float(penalty.detach())
        gradient = adaptation.meta_gradient(grad_dist_params)
        if penalty.requires_grad:
            gradient[-len(rule_params) :] += torch.autograd.grad(penalty, rule_params)[0]
        return self.ranks.mean_number(value), self.ranks.mean(gradient)

    @torch.no_grad()
    def value(self, outer_loss: "OuterLoss", adaptation: Adaptation) -> float:
        """Value of an outer loss, the rule's penalty included."""
        loss = float(outer_loss(self, adaptation.dist_params))
        penalty = float(self._penalty(adaptation.rule_params, adaptation))
        return self.ranks.mean_number(loss + penalty)

    def _penalty(self, rule_params: Tensor, adaptation: Adaptation) -> Tensor:
        if not adaptation.losses:
            return rule_params.new_zeros(())
        return self.inner.rule.penalty(rule_params, adaptation.losses[0].gradient)


OuterLoss: TypeAlias = Callable[[MetaProblem, Sequence[Tensor]], Tensor]
"""a loss of the adapted policies: `dist_params` of the K + 1 phases, [M, N, R] each -> scalar"""


def surrogate_loss(problem: MetaProblem, dist_params: Sequence[Tensor]) -> Tensor:
    """Minus the importance-weighted advantage of the adapted policies, over `outer_phases`.

    Its gradient is minus that of the expected return after adaptation.

    Sources: Finn et al. 2017, arXiv:1703.03400, algorithm 3; the multi-step loss: Antoniou et al.
    2019, arXiv:1810.09502, section 4.
    """
    gains = [
        problem.batches[phase].mean(problem.ratio(dist_params, phase) * problem.advantage(phase))
        for phase in problem.outer_phases
    ]
    return -torch.stack(gains).mean()


def supervised_loss(problem: MetaProblem, dist_params: Sequence[Tensor]) -> Tensor:
    """Loss of the adapted policies on the right actions that were shown, over `outer_phases`.

    Source: Finn et al. 2017, arXiv:1703.03400, algorithm 2.
    """
    each = [
        problem.batches[phase].supervised_loss(problem.inner.head, dist_params[phase]).mean()
        for phase in problem.outer_phases
    ]
    return torch.stack(each).mean()


@dataclass(frozen=True)
class ExplorationLoss:
    """`surrogate_loss`, and credit to the first policy for the return after adaptation.

        loss + weight * - mean over tasks n of  R[n] mean of log_prob of the first phase's actions

    where R[n] is the return after adaptation, with mean 0 and deviation 1 over tasks.

    Source: E-MAML, Stadie et al. 2018, arXiv:1803.01118, eq. 6.
    """

    weight: float

    def __call__(self, problem: MetaProblem, dist_params: Sequence[Tensor]) -> Tensor:
        """The objective."""
        later = problem.batches[-1].episode_return
        everywhere = problem.ranks.moments(later)
        later = (later - everywhere.mean) / (everywhere.variance.sqrt() + 1e-8)
        credit = problem.log_probs(dist_params, 0) * later.view(1, -1, 1)
        return surrogate_loss(problem, dist_params) - self.weight * problem.batches[0].mean(credit)


class OuterRule(ABC):
    """Improves the meta-parameters; may have a state, such as an optimiser's."""

    @abstractmethod
    def update(self, problem: MetaProblem, meta_params: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Improved meta-parameters [Q], and numbers to report."""

    def state(self) -> dict[str, Tensor]:
        """The state that updates have changed."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` returned."""
        return


@dataclass(frozen=True, kw_only=True)
class TrustRegion(OuterRule):
    """TRPO through the inner steps.

    The step direction is the meta-gradient times the inverse of the exact Hessian (the Fisher
    matrix) of the adapted policies' KL divergence. Its length is set by the bound on that
    divergence, then shortened until the outer loss falls.

    Source: Schulman et al. 2015, arXiv:1502.05477, as in Finn et al. 2017, arXiv:1703.03400.
    """

    outer_loss: OuterLoss
    max_divergence: float
    steps: int
    """of conjugate gradient"""
    damping: float
    """added to the curvature's diagonal"""
    search_steps: int
    shrink: float
    rollouts_per_task: int | None = None
    """rollouts of each task that the curvature is computed on; None for all"""
    multi_step_loss: bool = False
    """see `MetaProblem`"""
    shared_advantage_scale: bool = False
    """see `MetaProblem`"""

    def update(self, problem: MetaProblem, meta_params: Tensor) -> tuple[Tensor, dict[str, float]]:
        """One step, or none where the line search accepts no candidate."""
        problem = replace(
            problem,
            multi_step_loss=self.multi_step_loss,
            shared_advantage_scale=self.shared_advantage_scale,
        )
        here = problem.adapt_here(meta_params)
        loss, gradient = problem.meta_gradient(self.outer_loss, here)
        require_finite(gradient, "TRPO's gradient")
        old = here.dist_params
        solution = conjugate_gradient(self._curvature(problem, here), gradient, steps=self.steps)
        length = float(solution.x @ solution.product)
        require_finite(solution.x, "the solution of TRPO's conjugate gradient")
        step = solution.x * (2 * self.max_divergence / max(length, 1e-20)) ** 0.5

        def candidate(share: float) -> Tensor:
            return problem.inner.project(meta_params - share * step)

        @torch.no_grad()
        def evaluate(share: float) -> Candidate:
            there = problem.adapt(candidate(share))
            return Candidate(
                problem.value(self.outer_loss, there),
                problem.outer_divergence(old, there.dist_params),
            )

        found = backtrack(
            evaluate,
            loss=loss,
            max_divergence=self.max_divergence,
            steps=self.search_steps,
            shrink=self.shrink,
        )
        return candidate(found.share) if found.share else meta_params, {
            **inner_report(problem, here),
            "outer_loss": loss,
            "outer_improvement": loss - found.candidate.loss,
            "outer_kl": found.candidate.divergence,
            "line_search_share": found.share,
            "line_search_tried": found.tried,
            "conjugate_gradient_residual": solution.residual,
            "grad_norm": float(gradient.norm()),
        }

    def _curvature(self, problem: MetaProblem, here: Adaptation) -> Callable[[Tensor], Tensor]:
        """Products with the Hessian of the KL divergence from the present policies, at zero."""
        if self.rollouts_per_task is not None:
            problem = replace(
                problem,
                batches=[batch.take_rollouts(self.rollouts_per_task) for batch in problem.batches],
            )
            here = here.on(problem.batches)
        phases, ignored = problem.outer_phases, [None] * problem.outer_phases.start
        hvps = [self._dist_params_hvp(problem, here.dist_params[phase], phase) for phase in phases]

        def product(direction: Tensor) -> Tensor:
            tangents = here.jvp(direction, phases)
            cotangents = [hvp(each) for hvp, each in zip(hvps, tangents, strict=True)]
            curvature = problem.ranks.mean(here.meta_gradient([*ignored, *cotangents]))
            return curvature + self.damping * direction

        return product

    def _dist_params_hvp(
        self, problem: MetaProblem, old: Tensor, phase: int
    ) -> Callable[[Tensor], Tensor]:
        """Products with the Hessian, by dist_params [M, N, R], of a phase's share of the KL."""
        with torch.enable_grad():
            dist_params = old.detach().requires_grad_()
            share = problem.kl_divergence(old, dist_params, phase) / len(problem.outer_phases)
            gradient = gradient_of(share, dist_params)
        return hessian_products(gradient, dist_params)


@dataclass(frozen=True)
class Averaging(OuterRule):
    """Reptile: a step towards the mean of the adapted parameters.

        theta <- theta + rate * (mean over tasks of theta[K] - theta)

    Source: Nichol et al. 2018, arXiv:1803.02999, algorithm 1.
    """

    rate: float

    def update(self, problem: MetaProblem, meta_params: Tensor) -> tuple[Tensor, dict[str, float]]:
        """One step; the last phase is not used."""
        initial, rule_params = problem.inner.split(meta_params)
        here = problem.adapt_here(meta_params)
        mean = problem.ranks.mean(here.params.mean(0))
        moved = initial + self.rate * (mean - initial)
        require_finite(moved, "Reptile's step")
        return torch.cat((moved, rule_params)), {
            **inner_report(problem, here),
            "grad_norm": float((mean - initial).norm()),
        }


@torch.no_grad()
def inner_report(problem: MetaProblem, here: Adaptation) -> dict[str, float]:
    """KL divergence and gradient norm of each inner step, on the phase it learned from."""
    network, report = problem.inner.network, {}
    params = [*(loss.params for loss in here.losses), here.params]
    for step, loss in enumerate(here.losses):
        batch = problem.batches[step]
        adapted = network.outputs(params[step + 1], batch.inputs)
        kl = batch.kl_divergence(problem.inner.head, loss.forward.dist_params, adapted)
        report[f"inner_kl_{step + 1}"] = float(kl)
        report[f"inner_gradient_norm_{step + 1}"] = float(loss.gradient.norm(dim=1).mean())
    return {name: problem.ranks.mean_number(value) for name, value in report.items()}


def require_finite(value: Tensor, name: str) -> None:
    """Raises `NonFiniteError` unless all numbers are finite."""
    if not bool(value.isfinite().all()):
        raise NonFiniteError(
            f"{name} is not finite ({int((~value.isfinite()).sum())} of {value.numel()} numbers). "
            "Rewards or observations may be very large, or a rate too high."
        )
