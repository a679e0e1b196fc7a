"""Most likely actions, and numbers that must be finite, wherever a trained agent acts.

Axes: `L` lanes, then features.
"""

from torch import Tensor

from metarl.agent import Policy, StochasticPolicy
from metarl.errors import NonFiniteError, PolicyUseError


def most_likely(policy: Policy, label: str) -> Policy:
    """The policy that takes the most likely actions.

    Raises:
        PolicyUseError: the policy does not know them.
    """
    if not isinstance(policy, StochasticPolicy):
        raise PolicyUseError(
            f"{label} always draws its actions: its policy {type(policy).__name__} has no method "
            "`greedy`. Leave deterministic=True out."
        )
    return policy.greedy()


def require_finite(name: str, value: Tensor) -> None:
    """Raises `NonFiniteError` unless all numbers [L, ...] are finite."""
    if not bool(value.isfinite().all()):
        lane = int((~value.isfinite()).reshape(len(value), -1).any(1).nonzero()[0])
        raise NonFiniteError(
            f"The {name} of lane {lane} is {value[lane].tolist()}, and must be finite. Nothing was "
            "learned from it; check the environment."
        )
