"""PPO through the inner steps: what the adapted policies lived goes in, better parameters come out.

Axes: `M` decisions of each task, `N` tasks, `K` inner steps, `Q` meta-parameters, `R` raw numbers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from metarl.agents.outer import MetaProblem, Objective, OuterRule, inner_report, require_finite
from metarl.errors import CheckpointError

MOST_CHANGE = 1000.0
"""of a price, up or down: halved without end it would not come back"""


class Proximal(OuterRule):
    """ProMP: steps of Adam on PPO's clipped objective, and a price on moving the first policies.

        loss + sum over k < K of price[k] * KL(acting policy k || policy k)

    A price doubles when its divergence ends above 1.5 times the target, and halves below the
    target over 1.5; it stays within a factor of a thousand of where it began.

    Source: Rothfuss et al. 2019, arXiv:1810.06784, algorithm 1 and eq. 13.
    """

    def __init__(
        self,
        *,
        inner_steps: int,
        size: int,
        clip: float,
        epochs: int,
        learning_rate: float,
        target: float,
        price: float,
        device: torch.device,
    ) -> None:
        """See `ProMPConfig`; `size` is Q."""
        self._clip, self._epochs, self._target = clip, epochs, target
        self._first_price = price
        self._price = torch.full((inner_steps,), price)
        self._vector = torch.nn.Parameter(torch.zeros(size, device=device))
        self._adam = torch.optim.Adam([self._vector], lr=learning_rate)

    def update(self, problem: MetaProblem, vector: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Some steps of Adam on the same experience."""
        self._vector.data.copy_(vector)
        here = problem.adapt(vector)
        old = [raw.detach() for raw in here.raw]
        report = inner_report(problem, here)
        objective = self._objective(old)
        norms = []
        for epoch in range(self._epochs):
            if epoch:
                here = problem.adapt(self._vector.data)
            loss, gradient = problem.differentiated(objective, here)
            require_finite(gradient, "ProMP's gradient")
            if not epoch:
                first_loss = loss
            norms.append(float(gradient.norm()))
            self._vector.grad = gradient
            self._adam.step()
            initial, own = problem.inner.split(self._vector.data)
            self._vector.data = torch.cat((initial, problem.inner.rule.project(own)))
        raw = problem.adapt(self._vector.data).raw
        with torch.no_grad():
            pairs = zip(old, raw, strict=True)
            moved = [float(problem.divergence(*pair, k)) for k, pair in enumerate(pairs)]
            last_loss = float(objective(problem, raw))
        for step, divergence in enumerate(moved[:-1]):
            self._price[step] *= 2.0 ** (
                (divergence > 1.5 * self._target) - (divergence < self._target / 1.5)
            )
        self._price.clamp_(self._first_price / MOST_CHANGE, self._first_price * MOST_CHANGE)
        return self._vector.data.clone(), {
            **report,
            "outer_loss": first_loss,
            "outer_improvement": first_loss - last_loss,
            "outer_kl": moved[-1],
            "gradient_norm": norms[0],
            **{f"first_policy_kl_{k}": value for k, value in enumerate(moved[:-1])},
            **{f"first_policy_price_{k}": float(p) for k, p in enumerate(self._price)},
        }

    def _objective(self, old: Sequence[Tensor]) -> Objective:
        def objective(problem: MetaProblem, raw: Sequence[Tensor]) -> Tensor:
            last = problem.lessons[-1]
            ratio = problem.ratio(raw, len(raw) - 1)
            clipped = ratio.clamp(1 - self._clip, 1 + self._clip)
            advantage = problem.advantage(len(raw) - 1)
            gain = torch.minimum(ratio * advantage, clipped * advantage)
            loss = -last.mean(gain)
            for step, price in enumerate(self._price.tolist()):
                loss = loss + price * problem.divergence(old[step], raw[step], step)
            return loss

        return objective

    def state(self) -> dict[str, Tensor]:
        """Prices and Adam's moments."""
        moments = self._adam.state_dict()["state"].get(0, {})
        return {"price": self._price.clone()} | {
            f"adam.{name}": torch.as_tensor(value).clone() for name, value in moments.items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Likewise."""
        price = state.get("price")
        if price is None or price.shape != self._price.shape:
            got = "none" if price is None else len(price)
            raise CheckpointError(
                f"The checkpoint does not fit this agent: ProMP has a price for each of its "
                f"{len(self._price)} inner steps, and the checkpoint has {got}. It was written by "
                "an agent with other adaptation_steps."
            )
        self._price = price.clone()
        moments = {
            name.removeprefix("adam."): value.clone()
            for name, value in state.items()
            if name.startswith("adam.")
        }
        self._adam.load_state_dict(
            {**self._adam.state_dict(), "state": {0: moments} if moments else {}}
        )
