"""CartPole whose pole is longer or shorter, and whose motor may turn the other way."""

from collections.abc import Mapping
from typing import Any


def follow_length(env: Any, task: Mapping[str, float]) -> None:
    """What the environment computed from its length when it was made."""
    env.polemass_length = env.masspole * task["length"]
