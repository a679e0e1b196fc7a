"""A batched env that is seeded and reset in any order, as the interface of Gymnasium allows.

Axes: `L` lanes.
"""

import torch
from torch import Tensor

from metarl.noise import LaneNoise, lane_keys
from metarl.tasks.batched_env import Transition
from metarl.tasks.family import TaskFamily
from metarl.tasks.tensor_env import TensorEnv

MAX_STEPS = 2**29
"""steps between two seeds; streams of lanes have no more addresses"""


class SeededEnv(TensorEnv):
    """A `TensorEnv` with a method `seed`, in which every reset draws fresh numbers.

    A `TensorEnv` draws from an address that its number of steps determines. A lane that is reset
    twice between two steps would therefore start twice in the same state. Here such a lane changes
    to another stream. Its streams still depend on no other lane.
    """

    def __init__(self, family: TaskFamily, tasks: Tensor, seed: int) -> None:
        """One lane for each of `tasks` [L, ...], on the CPU; `seed` has 64 bits."""
        super().__init__(family, tasks, _noise(lane_keys(seed, len(tasks))))
        self._every = torch.ones(len(tasks), dtype=torch.bool)
        self._none = torch.zeros_like(self._every)
        self._not_stepped = self._none  # [L] bool, reset since the last step

    def seed(self, seed: int, lanes: Tensor | None = None) -> None:
        """Seeds the lanes marked in `lanes` [L] bool (None: all).

        Until the next seed, the numbers of a marked lane follow from the seed and its position. The
        other lanes continue with fresh numbers.
        """
        keys = lane_keys(seed, len(self.tasks))
        if lanes is not None:
            keys = torch.where(lanes, keys, self._next_keys())
        self._draw_from(keys)
        self._time = 0
        self._not_stepped = self._none

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        """Starts a new episode in the marked lanes; observations of all lanes."""
        marked = self._every if lanes is None else lanes
        repeated = marked & self._not_stepped
        if bool(repeated.any()):
            self._draw_from(torch.where(repeated, self._next_keys(), self._noise.keys))
        self._not_stepped = self._not_stepped | marked
        return super().reset(lanes)

    def step(self, action: Tensor) -> Transition:
        """One step in every lane."""
        self._not_stepped = self._none
        return super().step(action)

    def _next_keys(self) -> Tensor:
        """Keys of the next stream of each lane; resets draw from child 0."""
        return self._noise.child(1).keys

    def _draw_from(self, keys: Tensor) -> None:
        self._noise = _noise(keys)
        self._reset_noise = self._noise.child(0)


def _noise(keys: Tensor) -> LaneNoise:
    return LaneNoise(keys, horizon=MAX_STEPS)
