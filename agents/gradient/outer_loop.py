"""What the adapted policies lived goes in, better meta-parameters come out: the outer rules.

Axes: `N` tasks, `M` decisions of each, `K` inner steps, `Q` meta-parameters, `R` raw numbers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from metarl.agents.gradient.inner_loop import (
    Adaptation,
    InnerProblem,
    gradient_of,
    products_with_hessian,
)
from metarl.agents.gradient.pg_batch import PGBatch
from metarl.errors import NonFiniteError
from metarl.learning.trust_region import Trial, backtrack, conjugate_gradient


@dataclass(frozen=True)
class MetaProblem:
    """One meta-iteration: how tasks adapt, and what was lived before and after each step."""

    inner: InnerProblem
    lessons: Sequence[PGBatch]  # K + 1
    multi_step_loss: bool = False
    """judge the policies after every inner step, not only after the last"""
    shared_advantage_scale: bool = False
    """judge all tasks and steps by advantages on one scale, instead of each on its own"""

    def advantage(self, phase: int) -> Tensor:
        """What the policies of a phase are outer_phases by, [T, N, B]."""
        own = self.lessons[phase]
        if not self.shared_advantage_scale:
            return own.advantage
        scale = torch.stack([self.lessons[each].deviation for each in self.outer_phases]).mean()
        return own.advantage * (own.deviation / scale).view(1, -1, 1)

    @property
    def outer_phases(self) -> range:
        """The phases whose policies are outer_phases."""
        last = len(self.lessons) - 1
        return range(min(1, last) if self.multi_step_loss else last, last + 1)

    def adapt(self, vector: Tensor) -> Adaptation:
        """All inner steps from the meta-parameters [Q]."""
        return Adaptation(self.inner, vector, self.lessons)

    def divergence(self, old: Tensor, new: Tensor, phase: int) -> Tensor:
        """Mean KL(old || new) of the policies of a phase, told by raw numbers [M, N, R]."""
        return self.lessons[phase].divergence(self.inner.head, old, new)

    def outer_divergence(self, old: Sequence[Tensor], new: Sequence[Tensor]) -> Tensor:
        """The same, of K + 1 raw tensors each; the mean over the phases that are outer_phases."""
        each = [self.divergence(old[phase], new[phase], phase) for phase in self.outer_phases]
        return torch.stack(each).mean()

    def log_probs(self, raw: Sequence[Tensor], phase: int) -> Tensor:
        """Of the actions taken in a phase, [T, N, B]."""
        return self.lessons[phase].log_probs(self.inner.head, raw[phase])

    def ratio(self, raw: Sequence[Tensor], phase: int) -> Tensor:
        """How much more probable the actions of a phase are than when they were taken."""
        return (self.log_probs(raw, phase) - self.lessons[phase].log_prob).exp()

    def differentiated(
        self, objective: "Objective", adaptation: Adaptation
    ) -> tuple[float, Tensor]:
        """An objective, and its gradient by the meta-parameters, [Q]."""
        with torch.enable_grad():
            raw = [each.detach().requires_grad_() for each in adaptation.raw]
            loss = objective(self, raw)
            seen = torch.autograd.grad(loss, raw, allow_unused=True)
        return float(loss.detach()), adaptation.vjp(seen)


Objective: TypeAlias = Callable[[MetaProblem, Sequence[Tensor]], Tensor]
"""what an outer rule lowers: raw numbers of the K + 1 phases, [M, N, R] each -> scalar"""


def expected_return(problem: MetaProblem, raw: Sequence[Tensor]) -> Tensor:
    """Minus the adapted policies' advantage, by importance sampling; the mean over `outer_phases`.

    Sources: Finn et al. 2017, arXiv:1703.03400, algorithm 3; judging every step: Antoniou et al.
    2019, arXiv:1810.09502, section 4.
    """
    gains = [
        problem.lessons[phase].mean(problem.ratio(raw, phase) * problem.advantage(phase))
        for phase in problem.outer_phases
    ]
    return -torch.stack(gains).mean()


@dataclass(frozen=True)
class Exploration:
    """`expected_return`, and the first policy's credit for what could be learnt from its actions.

        loss + weight * - mean over tasks n of  R[n] mean of log_prob of the first phase's actions

    where R[n] is the return after adaptation, with mean 0 and deviation 1 over tasks.

    Source: E-MAML, Stadie et al. 2018, arXiv:1803.01118, eq. 6.
    """

    weight: float

    def __call__(self, problem: MetaProblem, raw: Sequence[Tensor]) -> Tensor:
        """The objective."""
        worth = problem.lessons[-1].episode_return
        worth = (worth - worth.mean()) / (worth.std(correction=0) + 1e-8)
        credit = problem.log_probs(raw, 0) * worth.view(1, -1, 1)
        return expected_return(problem, raw) - self.weight * problem.lessons[0].mean(credit)


class OuterRule(ABC):
    """Improves the meta-parameters; may have a state of its own."""

    @abstractmethod
    def update(self, problem: MetaProblem, vector: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Better meta-parameters [Q], and what there is to report."""

    def state(self) -> dict[str, Tensor]:
        """What its updates have changed."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` returned."""
        return


@dataclass(frozen=True, kw_only=True)
class TrustRegion(OuterRule):
    """TRPO through the inner steps.

    The step is along the inverse of the exact curvature of the adapted policies' divergence, as
    long as the bound on it allows, and is shortened until the objective falls.

    Source: Schulman et al. 2015, arXiv:1502.05477, as in Finn et al. 2017, arXiv:1703.03400.
    """

    objective: Objective
    max_divergence: float
    steps: int
    """of conjugate gradient"""
    damping: float
    """added to the curvature's diagonal"""
    search_steps: int
    shrink: float
    rollouts_per_task: int | None = None
    """of each task that the curvature is measured on; None for all"""
    multi_step_loss: bool = False
    """see `MetaProblem`"""
    shared_advantage_scale: bool = False
    """see `MetaProblem`"""

    def update(self, problem: MetaProblem, vector: Tensor) -> tuple[Tensor, dict[str, float]]:
        """One step, or none where the line search finds no good one."""
        problem = replace(
            problem,
            multi_step_loss=self.multi_step_loss,
            shared_advantage_scale=self.shared_advantage_scale,
        )
        here = problem.adapt(vector)
        loss, gradient = problem.differentiated(self.objective, here)
        require_finite(gradient, "TRPO's gradient")
        old = here.raw
        solution = conjugate_gradient(self._curvature(problem, here), gradient, steps=self.steps)
        length = float(solution.x @ solution.product)
        require_finite(solution.x, "the solution of TRPO's conjugate gradient")
        step = solution.x * (2 * self.max_divergence / max(length, 1e-20)) ** 0.5

        def candidate(share: float) -> Tensor:
            return problem.inner.project(vector - share * step)

        @torch.no_grad()
        def evaluate(share: float) -> Trial:
            raw = problem.adapt(candidate(share)).raw
            return Trial(
                float(self.objective(problem, raw)), float(problem.outer_divergence(old, raw))
            )

        found = backtrack(
            evaluate,
            loss=loss,
            max_divergence=self.max_divergence,
            steps=self.search_steps,
            shrink=self.shrink,
        )
        return candidate(found.share) if found.share else vector, {
            **inner_report(problem, here),
            "outer_loss": loss,
            "outer_improvement": loss - found.trial.loss,
            "outer_kl": found.trial.divergence,
            "line_search_share": found.share,
            "line_search_tried": found.tried,
            "conjugate_gradient_residual": solution.residual,
            "grad_norm": float(gradient.norm()),
        }

    def _curvature(self, problem: MetaProblem, here: Adaptation) -> Callable[[Tensor], Tensor]:
        """Products with the Hessian of the divergence from here, where it is zero."""
        if self.rollouts_per_task is not None:
            problem = replace(
                problem,
                lessons=[
                    lesson.take_rollouts(self.rollouts_per_task) for lesson in problem.lessons
                ],
            )
            here = here.on(problem.lessons)
        outer_phases, blind = problem.outer_phases, [None] * problem.outer_phases.start
        bends = [self._bend(problem, here.raw[phase], phase) for phase in outer_phases]

        def product(direction: Tensor) -> Tensor:
            moved = here.jvp(direction, outer_phases)
            turned = [bend(each) for bend, each in zip(bends, moved, strict=True)]
            return here.vjp([*blind, *turned]) + self.damping * direction

        return product

    def _bend(self, problem: MetaProblem, old: Tensor, phase: int) -> Callable[[Tensor], Tensor]:
        """Products with the Hessian of a phase's share of the divergence by raw, [M, N, R]."""
        with torch.enable_grad():
            raw = old.detach().requires_grad_()
            share = problem.divergence(old, raw, phase) / len(problem.outer_phases)
            first = gradient_of(share, raw)
        return products_with_hessian(first, raw)


@dataclass(frozen=True)
class Averaging(OuterRule):
    """Reptile: a step towards the mean of the adapted parameters.

        theta <- theta + rate * (mean over tasks of theta[K] - theta)

    Source: Nichol et al. 2018, arXiv:1803.02999, algorithm 1.
    """

    rate: float

    def update(self, problem: MetaProblem, vector: Tensor) -> tuple[Tensor, dict[str, float]]:
        """One step; the last phase is not learnt from."""
        initial, own = problem.inner.split(vector)
        here = problem.adapt(vector)
        mean = here.params.mean(0)
        moved = initial + self.rate * (mean - initial)
        require_finite(moved, "Reptile's step")
        return torch.cat((moved, own)), {
            **inner_report(problem, here),
            "grad_norm": float((mean - initial).norm()),
        }


@torch.no_grad()
def inner_report(problem: MetaProblem, here: Adaptation) -> dict[str, float]:
    """How far each inner step went, in its own phase."""
    network, report = problem.inner.network, {}
    params = [*(slope.params for slope in here.slopes), here.params]
    for step, slope in enumerate(here.slopes):
        data = problem.lessons[step]
        moved = network.outputs(params[step + 1], data.inputs)
        kl = data.divergence(problem.inner.head, slope.forward.raw, moved)
        report[f"inner_kl_{step + 1}"] = float(kl)
        report[f"inner_gradient_norm_{step + 1}"] = float(slope.gradient.norm(dim=1).mean())
    return report


def require_finite(value: Tensor, name: str) -> None:
    """Raises `NonFiniteError` unless all numbers are finite."""
    if not bool(value.isfinite().all()):
        raise NonFiniteError(
            f"{name} is not finite ({int((~value.isfinite()).sum())} of {value.numel()} numbers). "
            "Rewards or observations may be very large, or a rate too high."
        )
