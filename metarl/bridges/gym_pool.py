"""A pool of Gymnasium environments as lanes, stepped in this process or in worker processes.

Nothing here imports torch: workers use NumPy only.

Axes: `L` lanes, `l` lanes of one block, `W` blocks, then features.
"""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv
from numpy.typing import NDArray

from metarl.bridges.env_block import EnvBlock, LaneSpaces, MakeEnv
from metarl.errors import ConfigError

FAILURE_NOTE = (
    "metarl: this was raised while environments were stepped. `metarl check TASK` steps one of "
    "them alone, and reports which requirement it breaks."
)
"""note added to an exception of an environment"""


class LanePool:
    """L lanes, in this process or split among workers, which stay open from trial to trial."""

    def __init__(self, make: MakeEnv, template: LaneSpaces, lanes: int, workers: int) -> None:
        """Starts the workers, if any.

        Args:
            make: makes one environment; must be picklable where there are workers.
            template: spaces of a lane.
            lanes: L.
            workers: processes that step them; 0 steps them in this process.
        """
        self.lanes, self.workers = lanes, workers
        self.owner: object = None  # key of the batched env that uses the lanes
        self._closed = False
        blocks = max(1, min(workers, lanes))
        self._block_lanes = -(-lanes // blocks)  # the last blocks may have unused spare lanes
        makers = [_BlockMaker(make, index, self._block_lanes, template) for index in range(blocks)]
        self._block = makers[0]() if not workers else None
        self._vector = _start_workers(makers) if workers else None

    def reset(self, tasks: Sequence[Any], seeds: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Starts a trial in every lane; returns the arrays of `EnvBlock.reset`, [L, ...]."""
        options = {"tasks": self._split(tasks), "seeds": self._split(seeds)}
        with self._closing_on_failure():
            if self._block is not None:
                return self._block.reset(options=options)[0]
            assert self._vector is not None
            return self._merged(self._vector.reset(options=options)[0])

    def step(self, action: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """One step of all lanes; returns the arrays of `EnvBlock.step`, [L, ...].

        With workers, the arrays are views of memory that the next step overwrites.
        """
        with self._closing_on_failure():
            if self._block is not None:
                return self._block.step(action)[0]
            assert self._vector is not None
            blocks = len(self._vector.env_fns)
            spare = blocks * self._block_lanes - len(action)
            if spare:
                action = np.concatenate([action, np.repeat(action[-1:], spare, 0)])
            shape = (blocks, self._block_lanes, *action.shape[1:])
            arrays, *_ = self._vector.step(action.reshape(shape))
            return self._merged(arrays)

    def frame(self, when: str) -> Any:
        """Frame of lane 0, as `EnvBlock.frame`; without workers only."""
        assert self._block is not None
        return self._block.frame(when)

    @property
    def closed(self) -> bool:
        """Whether the pool is closed, also by a failure in an environment or a worker."""
        return self._closed or (self._vector is not None and self._vector.closed)

    def close(self) -> None:
        """Ends workers and environments."""
        self._closed = True
        if self._block is not None:
            self._block.close()
        elif self._vector is not None and not self._vector.closed:
            self._vector.close(terminate=True)

    @contextmanager
    def _closing_on_failure(self) -> Iterator[None]:
        """Closes the pool on an exception: some lanes have stepped, and a worker may have died."""
        try:
            yield
        except BaseException as error:
            self.close()
            if isinstance(error, Exception):
                error.add_note(FAILURE_NOTE)
            raise

    def _split(self, values: Sequence[Any]) -> list[list[Any]]:
        """[L] -> [W][l]; spare lanes repeat the last value."""
        blocks = 1 if self._vector is None else len(self._vector.env_fns)
        length = self._block_lanes
        filled = [*values, *[values[-1]] * (blocks * length - len(values))]
        return [filled[at : at + length] for at in range(0, len(filled), length)]

    def _merged(self, arrays: Any) -> dict[str, NDArray[Any]]:
        """[W, l, ...] -> [L, ...]."""
        return {
            name: value.reshape(-1, *value.shape[2:])[: self.lanes]
            for name, value in arrays.items()
        }


def _start_workers(makers: Sequence["_BlockMaker"]) -> AsyncVectorEnv:
    """Starts one worker for each block, and waits until they are ready."""
    remedy = (
        "Register the environment with entry_point='your_module:Class', in a module that can be "
        "imported from the working directory, with plain values as arguments; guard the main code "
        "of a script with `if __name__ == '__main__':`; or leave workers out."
    )
    try:
        # NOTE: spawn on every platform, because torch's threads do not survive a fork.
        return AsyncVectorEnv(makers, context="spawn", copy=False)
    except (EOFError, ConnectionError) as error:
        raise ConfigError(
            "The workers ended during their start; their error messages are above. Most likely a "
            f"new process cannot import the code that makes the environment. {remedy}"
        ) from error
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"The environment cannot be sent to worker processes: {error}. {remedy}"
        ) from error


class _BlockMaker:
    """A picklable function that makes an `EnvBlock`."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def __call__(self) -> EnvBlock:
        return EnvBlock(*self._arguments)
