"""Observations and actions of Gymnasium's environments as tensors of lanes, and back.

Axes: `L` lanes, then features (`D` observation, `A` action).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from gymnasium.vector.utils import batch_space, iterate
from numpy.typing import NDArray
from torch import Tensor

from metarl.bridges.env_block import env_action, flat_observation, flat_space, plain_action_space
from metarl.errors import ShapeError
from metarl.field_types import shown
from metarl.tasks.family import TaskDistribution


@dataclass(frozen=True)
class LaneArrays:
    """What one environment, or a vector of them, gives and takes.

    Observations are flattened as in the lanes of an `EnvFamily`, so a policy reads the vectors of
    its training.
    """

    observation_space: Space[Any]
    """of one environment"""
    action_space: Space[Any]
    """of one environment"""

    @staticmethod
    def of(family: TaskDistribution) -> "LaneArrays":
        """Those of the environments that `gymnasium.make` makes of a family."""
        return LaneArrays(*family.env_spaces)

    @property
    def lane_action_space(self) -> spaces.Discrete | spaces.Box:
        """Actions of a lane."""
        return plain_action_space(self.action_space)

    def observations(self, value: Any, num_envs: int | None) -> Tensor:
        """Observations as a new tensor [L, D] float32.

        Args:
            value: of one environment, or of a vector environment.
            num_envs: L; None for one environment, which is one lane.

        Raises:
            ShapeError: it is not in the observation space, batched where there are several.
        """
        space = self.observation_space
        try:
            if isinstance(space, spaces.Box):
                flat = self._boxes(np.asarray(value), num_envs)
            elif num_envs is None:
                flat = flat_observation(space, value)[None]
            else:
                each = list(iterate(batch_space(space, num_envs), value))
                flat = np.stack([flat_observation(space, one) for one in each])
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise self._misfit(value, num_envs, f" ({error})") from error
        if flat.shape != (num_envs or 1, *flat_space(space).shape):
            raise self._misfit(value, num_envs)
        return torch.as_tensor(flat)

    def _boxes(self, array: NDArray[Any], num_envs: int | None) -> NDArray[np.float32]:
        expected = (
            *(() if num_envs is None else (num_envs,)),
            *(self.observation_space.shape or ()),
        )
        if array.shape != expected:
            raise ValueError(f"shape {list(array.shape)} instead of {list(expected)}")
        return np.array(array, dtype=np.float32).reshape(num_envs or 1, -1)

    def _misfit(self, value: Any, num_envs: int | None, reason: str = "") -> ShapeError:
        shape = f" of shape {list(value.shape)}" if isinstance(value, np.ndarray) else ""
        number = "one environment" if num_envs is None else f"{num_envs} environments"
        return ShapeError(
            f"The observation does not fit: expected that of {number} with {self.observation_space}"
            f"; got a {type(value).__name__}{shape}{reason}. Pass what reset() and step() of the "
            "environment return; for several environments give their number to begin_trial."
        )

    def actions(self, action: Tensor, num_envs: int | None) -> Any:
        """Actions of lanes, [L] or [L, A], as the environment takes them; Box actions clipped."""
        array = action.cpu().numpy()
        if num_envs is None:
            return env_action(self.action_space, array[0])
        return env_action(self.action_space, array, (num_envs,))


def lane_vector(name: str, value: Any, num_envs: int | None, dtype: torch.dtype) -> Tensor:
    """A number of each lane, [L], such as rewards.

    Raises:
        ShapeError: it is not one number, or not one for each of several environments.
    """
    try:
        array = np.array(value, order="C")
        shape = () if num_envs is None else (num_envs,)
        if array.shape != shape:
            raise ValueError(f"shape {list(array.shape)}")
        return torch.as_tensor(array.reshape(num_envs or 1)).to(dtype)
    except (TypeError, ValueError) as error:
        wanted = "one number" if num_envs is None else f"{num_envs} numbers, one for each lane"
        raise ShapeError(f"{name} must be {wanted}; got {shown(value)} ({error}).") from error
