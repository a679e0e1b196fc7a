"""Independent random streams, one for each lane: what one lane draws depends on no other lane.

The number that a lane draws is a pure function of the lane's key and an address (step of the
trial, draw within the step, element): SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195)
used as a counter-based generator. So the size of a batch, the other lanes and their length decide
no number, and CPU and GPU draw from the same streams. All lanes are drawn with a few tensor
operations, for several steps at once.

Axes: `L` lanes, then the shape asked for.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.native import noise as compiled
from metarl.native.noise import Addresses
from metarl.seeding import Seeds

BLOCK_STEPS = 64
"""steps for which numbers are drawn at once; changes no number"""
BLOCK_NUMBERS = 2**16
"""numbers that are drawn at once at most, where several steps are; changes no number"""

_GAMMA = 0x9E3779B97F4A7C15 - 2**64
"""SplitMix64's increment, as a signed number"""
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MAX_DRAWS, _MAX_ROUNDS, _MAX_ELEMENTS = 2**8, 2**4, 2**22
MAX_STEPS = 2**29
"""steps that have addresses"""


def _mix(words: Tensor) -> Tensor:
    """The finaliser of SplitMix64, int64 -> int64 as 64 bits; may overwrite its argument."""
    if words.device.type != "cpu":  # torch has no logical shift, so bits are masked out
        words = (words ^ ((words >> 30) & (2**34 - 1))) * (_MIX_1 - 2**64)
        words = (words ^ ((words >> 27) & (2**37 - 1))) * (_MIX_2 - 2**64)
        return words ^ ((words >> 31) & (2**33 - 1))
    bits = words.numpy().view(np.uint64)  # on a CPU NumPy's small operations are faster
    bits ^= bits >> np.uint64(30)
    bits *= np.uint64(_MIX_1)
    bits ^= bits >> np.uint64(27)
    bits *= np.uint64(_MIX_2)
    bits ^= bits >> np.uint64(31)
    return words


@lru_cache(maxsize=64)
def _tag(number: int) -> int:
    """Sets the streams of a child apart."""
    return int(_mix(torch.full((1,), number + 1)))


def _increments(counter: Tensor) -> Tensor:
    """What SplitMix64 has added to its state after `counter` steps, int64 -> int64."""
    return counter * _GAMMA


def lane_keys(
    seed: int,
    num_tasks: int,
    rollouts_per_task: int = 1,
    first_task: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Keys of the lanes of tasks first_task, first_task + 1, ...: [N * B] int64, task by task.

    Args:
        seed: 64 bits, such as `Seeds.word` returns.
        num_tasks: N.
        rollouts_per_task: B.
        first_task: number of the first task in a larger set, so that a batch of it draws the same.
        device: where the keys are made; it changes none.
    """
    root = torch.full((1,), (seed + 2**63) % 2**64 - 2**63, device=device)
    of_task = _words(root, Addresses(first_task + 1, 0, num_tasks, 1)).flatten()
    return _words(of_task, Addresses(1, 0, rollouts_per_task, 1)).flatten()


class LaneNoise:
    """Random numbers for each lane. `at` addresses the step; draws within a step are counted.

    Two instances with the same keys return the same numbers for the same calls at the same step,
    however many lanes there are and in whatever order steps are visited.
    """

    def __init__(self, keys: Tensor, *, horizon: int | None = None) -> None:
        """Streams of the lanes with these keys [L] int64, on the keys' device.

        Args:
            keys: see `lane_keys`.
            horizon: steps that will be visited one after the other, if known; None: numbers are
                drawn for one step at a time.
        """
        self.keys = keys
        self._horizon = horizon
        self._step = self._draw = 0
        self._blocks: dict[int, _Block] = {}

    @staticmethod
    def of(
        seeds: Seeds,
        purpose: str,
        lanes: int,
        *,
        horizon: int | None = None,
        device: torch.device | str = "cpu",
    ) -> "LaneNoise":
        """Streams for `lanes` lanes, each a task of its own."""
        return LaneNoise(lane_keys(seeds.word(purpose), lanes, device=device), horizon=horizon)

    @property
    def lanes(self) -> int:
        """L."""
        return len(self.keys)

    @property
    def device(self) -> torch.device:
        """Where numbers are drawn."""
        return self.keys.device

    def child(self, number: int) -> "LaneNoise":
        """Streams of the same lanes, independent of these; drawn for one step at a time."""
        return LaneNoise(_mix(self.keys ^ _tag(number)))

    def at(self, step: int) -> "LaneNoise":
        """Goes to the start of a step, counted from 0; returns itself.

        Raises:
            ValueError: a step has no address, as after half a billion steps.
        """
        if not 0 <= step < MAX_STEPS:
            raise ValueError(f"step={step} must lie between 0 and {MAX_STEPS - 1}; reseed before.")
        self._step, self._draw = step, 0
        return self

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1): `[L, *shape]` float32."""
        return self._next("uniform", shape, _uniform)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal: `[L, *shape]` float32, by the transform of Box and Muller (1958)."""
        return self._next("normal", shape, _normal)

    def exponential(self, *shape: int) -> Tensor:
        """Exponential of mean 1, never 0: `[L, *shape]` float32."""
        return self._next("exponential", shape, _exponential)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform in 0, ..., high - 1: `[L, *shape]` int64; `high` is at most 2^40."""
        return self._next(high, shape, _integers(high))

    def gamma(self, concentration: Tensor) -> Tensor:
        """Gamma of the given concentrations [L, ...] and rate 1: [L, ...] float32.

        Source: Marsaglia and Tsang 2000, doi:10.1145/358407.358414; below 1 by their boost.
        """
        draw = self._next_draw()
        alpha = concentration.reshape(len(self.keys), -1)
        _require_addressable(2 * alpha.shape[1])
        small = bool((alpha < 1.0).any())
        d = alpha - 1.0 / 3.0
        if small:
            d = torch.where(alpha < 1.0, d + 1.0, d)
        keys = self.keys[:, None]
        element = torch.arange(alpha.shape[1], device=self.device)
        result, accepted = self._gamma_attempt(draw, 1, keys, element, d)
        if not bool(accepted.all()):
            lane, place = (~accepted).nonzero(as_tuple=True)
            for attempt in range(2, _MAX_ROUNDS):
                value, accepted = self._gamma_attempt(
                    draw, attempt, self.keys[lane], place, d[lane, place]
                )
                result[lane, place] = value  # the last attempt, one in 10^18, stands as it is
                lane, place = lane[~accepted], place[~accepted]
                if not len(lane):
                    break
        if small:
            words = _words(self.keys, self._addresses(draw, 0, alpha.shape[1]))[0]
            boost = _open_uniform(words).log() / alpha
            result = torch.where(alpha < 1.0, result * boost.exp(), result)
        return result.view(concentration.shape)

    def _gamma_attempt(
        self, draw: int, attempt: int, keys: Tensor, element: Tensor, d: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One candidate for each number of shape d, and whether it is accepted."""
        counter = self._counter(draw, attempt) + 2 * element
        normal = _single_normal(_mix(keys + _increments(counter)))
        uniform = _open_uniform(_mix(keys + _increments(counter + 1)))
        v = (normal * (9.0 * d).rsqrt_()).add_(1.0).clamp_min_(1e-10).pow_(3)
        value = d * v
        threshold = normal.square_().mul_(0.5) + d - value + d * v.log_()
        return value, uniform.log_() < threshold

    def _next(self, kind: str | int, shape: tuple[int, ...], draw_numbers: "DrawNumbers") -> Tensor:
        """The next numbers of each lane, [L, *shape]; some steps are drawn in advance."""
        draw = self._next_draw()
        block = self._blocks.get(draw)
        if (
            block is None
            or block.kind != kind
            or block.shape != shape
            or not block.first <= self._step < block.first + len(block.rows)
        ):
            block = self._blocks[draw] = self._new_block(draw, kind, shape, draw_numbers)
        return block.rows[self._step - block.first]

    def _new_block(
        self,
        draw: int,
        kind: str | int,
        shape: tuple[int, ...],
        draw_numbers: "DrawNumbers",
    ) -> "_Block":
        size, steps = math.prod(shape), 1
        _require_addressable(size)
        if self._horizon is not None:
            room = BLOCK_NUMBERS // max(1, len(self.keys) * size)
            steps = max(1, min(BLOCK_STEPS, self._horizon - self._step, room))
        numbers = draw_numbers(self.keys, self._addresses(draw, 0, size, steps))
        rows = numbers.reshape(steps, len(self.keys), *shape).unbind(0)
        return _Block(kind, shape, self._step, rows)

    def _next_draw(self) -> int:
        self._draw += 1
        if self._draw > _MAX_DRAWS:
            raise ValueError(f"More than {_MAX_DRAWS} draws in one step; draw larger shapes.")
        return self._draw - 1

    def _addresses(self, draw: int, round_: int, elements: int, steps: int = 1) -> Addresses:
        """Of a draw in the present step and those that follow it."""
        stride = _MAX_DRAWS * _MAX_ROUNDS * _MAX_ELEMENTS
        return Addresses(self._counter(draw, round_), stride, elements, steps)

    def _counter(self, draw: int, round_: int) -> int:
        """Address of the first element of a draw in the present step; below 2^63."""
        return ((self._step * _MAX_DRAWS + draw) * _MAX_ROUNDS + round_) * _MAX_ELEMENTS


def _require_addressable(size: int) -> None:
    if size > _MAX_ELEMENTS:
        raise ValueError(
            f"{size} numbers for each lane in one draw; at most {_MAX_ELEMENTS} have addresses. "
            "Draw smaller shapes, several times."
        )


class _Block(NamedTuple):
    """The numbers of one draw for some steps."""

    kind: str | int
    shape: tuple[int, ...]
    first: int  # step
    rows: tuple[Tensor, ...]  # [L, *shape] of each step


DrawNumbers = Callable[[Tensor, Addresses], Tensor]
"""keys [L] and addresses of E elements in K steps -> numbers [K, L, E]"""


def _words(keys: Tensor, at: Addresses) -> Tensor:
    """Random 64-bit words [K, L, E] int64."""
    if compiled.can_draw(keys):
        return compiled.words(keys, at)
    step, element = (torch.arange(n, device=keys.device) for n in (at.steps, at.elements))
    counter = at.counter + (step * at.stride)[:, None, None] + element
    return _mix(keys[:, None] + _increments(counter))


def _uniform(keys: Tensor, at: Addresses) -> Tensor:
    """The upper 24 bits as a number in [0, 1)."""
    if compiled.can_draw(keys):
        return compiled.uniform(keys, at)
    return ((_words(keys, at) >> 40) & (2**24 - 1)).to(torch.float32) * 2.0**-24


def _exponential(keys: Tensor, at: Addresses) -> Tensor:
    return _open_uniform(_words(keys, at)).log_().neg_()


def _normal(keys: Tensor, at: Addresses) -> Tensor:
    """Two of each word."""
    words = _words(keys, at._replace(elements=(at.elements + 1) // 2))
    radius = _open_uniform(words).log_().mul_(-2.0).sqrt_()
    angle = (words & (2**24 - 1)).to(torch.float32) * (2.0 * math.pi * 2.0**-24)
    return torch.cat((radius * angle.cos(), radius * angle.sin()), -1)[..., : at.elements]


def _integers(high: int) -> DrawNumbers:
    def draw(keys: Tensor, at: Addresses) -> Tensor:
        if compiled.can_draw(keys):
            return compiled.integers(keys, at, high)
        unit = ((_words(keys, at) >> 11) & (2**53 - 1)).double() * 2.0**-53
        return (unit * high).long()

    return draw


def _open_uniform(words: Tensor) -> Tensor:
    """The upper 23 bits as a number in (0, 1)."""
    return ((words >> 41) & (2**23 - 1)).to(torch.float32).add_(0.5).mul_(2.0**-23)


def _single_normal(words: Tensor) -> Tensor:
    """One normal number of each word."""
    radius = _open_uniform(words).log_().mul_(-2.0).sqrt_()
    angle = (words & (2**24 - 1)).to(torch.float32).mul_(2.0 * math.pi * 2.0**-24)
    return radius.mul_(angle.cos_())
