"""The values that a sweep tries: lists and ranges, and the settings made of them."""

import hashlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from metarl.errors import ConfigError
from metarl.seeding import Seeds

DIGITS = 4
"""significant digits of a number drawn from a range, so that names of folders stay short"""
MAX_NAME_BYTES = 120
"""of a folder's name"""
ATTEMPTS = 1000
"""draws of a setting that was not drawn before"""


@dataclass(frozen=True)
class Choice:
    """A list of values."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        """Any of the values, with equal probability."""
        return self.values[rng.integers(len(self.values))]

    @property
    def examples(self) -> tuple[Any, ...]:
        """All values."""
        return self.values


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers between two, both included."""

    low: float
    high: float
    log: bool = False
    """equal probability for equal ratios instead of equal differences"""
    is_integer: bool = False
    """whole numbers only"""

    def draw(self, rng: np.random.Generator) -> float:
        """A number from the range, rounded to `DIGITS` significant digits if it is a float."""
        if not self.log:
            if self.is_integer:
                return int(rng.integers(int(self.low), int(self.high) + 1))
            return self.rounded(rng.uniform(self.low, self.high))
        end = self.high + self.is_integer  # a whole number has the interval up to the next one
        return self.rounded(math.exp(rng.uniform(math.log(self.low), math.log(end))))

    def rounded(self, number: float) -> float:
        """The number as it is used: a whole one rounded down, within the range."""
        if self.is_integer:
            return int(min(max(math.floor(number), self.low), self.high))
        return min(max(float(f"{number:.{DIGITS}g}"), self.low), self.high)

    @property
    def examples(self) -> tuple[float, ...]:
        """Both ends."""
        return self.low, self.high


Space: TypeAlias = Mapping[str, Choice | Range]
"""by the name of the option"""
Setting: TypeAlias = dict[str, Any]
"""a value of each option of a space"""


def grid(space: Space) -> list[Setting]:
    """All combinations of the values; the last option changes fastest.

    Raises:
        ConfigError: the space has a range.
    """
    for name, values in space.items():
        if isinstance(values, Range):
            raise ConfigError(
                f'{name} is a range, but search = "grid" tries every value of a list. Give a list, '
                'or choose search = "random" or "tpe" with a number of trials.'
            )
    lists = [values.examples for values in space.values()]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]


def random_settings(space: Space, trials: int, seed: int) -> list[Setting]:
    """Different settings, each drawn independently; more trials only add settings at the end.

    Raises:
        ConfigError: there are fewer different settings than trials.
    """
    settings: list[Setting] = []
    for trial in range(trials):
        rng = Seeds(seed).numpy("random search", trial)
        for _ in range(ATTEMPTS):
            drawn = {name: values.draw(rng) for name, values in space.items()}
            if drawn not in settings:
                settings.append(drawn)
                break
        else:
            raise ConfigError(
                f"trials = {trials} different settings cannot be drawn from [sweep], which hardly "
                f'has more than {len(settings)}. Reduce trials, or use search = "grid".'
            )
    return settings


def setting_name(setting: Mapping[str, Any]) -> str:
    """The name of a setting's folder, such as `learning_rate=0.003,num_epochs=4`.

    Characters that a name of a folder should not have become `-`; then, and where the name is too
    long, a hash follows.
    """
    text = ",".join(f"{name}={value}" for name, value in setting.items())
    safe = re.sub(r"[^\w.,=+-]", "-", text, flags=re.ASCII)
    if safe == text and len(text) <= MAX_NAME_BYTES:
        return text
    return f"{safe[: MAX_NAME_BYTES - 10]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def require_distinct(name: str, values: Sequence[Any]) -> None:
    """Raises `ConfigError` if a value occurs twice, because two settings would be equal."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ConfigError(
                f"{name} has the value {value!r} twice, and runs must differ. Remove one."
            )
