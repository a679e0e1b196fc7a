"""CartPole with another pole length, and a motor force that may have the other sign."""

from collections.abc import Mapping
from typing import Any


def follow_length(env: Any, task: Mapping[str, float]) -> None:
    """Recomputes the attribute that the constructor of the environment derives from the length."""
    env.polemass_length = env.masspole * task["length"]
