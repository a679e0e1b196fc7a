"""The outer rule of ProMP: PPO through the inner steps, with a KL penalty.

Axes: `M` samples of each task, `N` tasks, `K` inner steps, `Q` meta-parameters, `R` parameters of
an action distribution.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from metarl.agents.gradient.outer_loop import (
    MetaProblem,
    OuterLoss,
    OuterRule,
    inner_report,
    require_finite,
)
from metarl.errors import CheckpointError
from metarl.learning.losses import clipped_gain
from metarl.learning.optimiser_state import load_moments, save_moments

MAX_CHANGE = 1000.0
"""largest factor by which a KL coefficient may change from its initial value: unbounded halving
could not be undone"""


class Proximal(OuterRule):
    """ProMP: steps of Adam on PPO's clipped objective, and a penalty on moving the first policies.

        loss + sum over k < K of kl_coef[k] * KL(acting policy k || policy k)

    A coefficient doubles when its divergence ends above 1.5 times the target, and halves below the
    target over 1.5; it stays within a factor of a thousand of its initial value.

    Source: Rothfuss et al. 2019, arXiv:1810.06784, algorithm 1 and eq. 13.
    """

    def __init__(
        self,
        *,
        inner_steps: int,
        size: int,
        clip_range: float,
        num_epochs: int,
        learning_rate: float,
        target: float,
        kl_coef: float,
        device: torch.device,
    ) -> None:
        """See `ProMPConfig`; `size` is Q."""
        self._clip, self._epochs, self._target = clip_range, num_epochs, target
        self._initial_kl_coef = kl_coef
        self._kl_coef = torch.full((inner_steps,), kl_coef)
        self._meta_params = torch.nn.Parameter(torch.zeros(size, device=device))
        self._adam = torch.optim.Adam([self._meta_params], lr=learning_rate)

    def update(self, problem: MetaProblem, meta_params: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Several steps of Adam on the same experience."""
        self._meta_params.data.copy_(meta_params)
        here = problem.adapt_here(meta_params)
        old = [dist_params.detach() for dist_params in here.dist_params]
        report = inner_report(problem, here)
        objective = self._objective(old)
        for epoch in range(self._epochs):
            if epoch:
                here = problem.adapt(self._meta_params.data)
            loss, gradient = problem.meta_gradient(objective, here)
            require_finite(gradient, "ProMP's gradient")
            if not epoch:
                first_loss, norm = loss, float(gradient.norm())
            self._meta_params.grad = gradient
            self._adam.step()
            self._meta_params.data = problem.inner.project(self._meta_params.data)
        there = problem.adapt(self._meta_params.data)
        with torch.no_grad():
            pairs = zip(old, there.dist_params, strict=True)
            divergences = [
                problem.ranks.mean_number(float(problem.kl_divergence(*pair, k)))
                for k, pair in enumerate(pairs)
            ]
        last_loss = problem.value(objective, there)
        for step, divergence in enumerate(divergences[:-1]):
            self._kl_coef[step] *= 2.0 ** (
                (divergence > 1.5 * self._target) - (divergence < self._target / 1.5)
            )
        self._kl_coef.clamp_(self._initial_kl_coef / MAX_CHANGE, self._initial_kl_coef * MAX_CHANGE)
        return self._meta_params.data.clone(), {
            **report,
            "outer_loss": first_loss,
            "outer_improvement": first_loss - last_loss,
            "outer_kl": divergences[-1],
            "grad_norm": norm,
            **{f"first_policy_kl_{k}": value for k, value in enumerate(divergences[:-1])},
            **{f"first_policy_kl_coef_{k}": float(p) for k, p in enumerate(self._kl_coef)},
        }

    def _objective(self, old: Sequence[Tensor]) -> OuterLoss:
        def objective(problem: MetaProblem, dist_params: Sequence[Tensor]) -> Tensor:
            last = problem.batches[-1]
            ratio = problem.ratio(dist_params, len(dist_params) - 1)
            loss = -last.mean(clipped_gain(ratio, last.advantage, clip_range=self._clip))
            for step, kl_coef in enumerate(self._kl_coef.tolist()):
                loss = loss + kl_coef * problem.kl_divergence(old[step], dist_params[step], step)
            return loss

        return objective

    def state(self) -> dict[str, Tensor]:
        """KL coefficients and Adam's moments."""
        return {"kl_coef": self._kl_coef.clone(), **save_moments(self._adam)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Likewise."""
        kl_coef = state.get("kl_coef", state.get("price"))  # so called in format 1
        if kl_coef is None or kl_coef.shape != self._kl_coef.shape:
            got = "none" if kl_coef is None else len(kl_coef)
            raise CheckpointError(
                "The checkpoint does not fit this agent: ProMP has a KL coefficient for each of "
                f"its {len(self._kl_coef)} inner steps, and the checkpoint has {got}. It was "
                "written by an agent with other adaptation_steps."
            )
        self._kl_coef = kl_coef.clone()
        load_moments(self._adam, state)
