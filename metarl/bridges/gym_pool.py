"""A pool of Gymnasium environments as lanes, stepped in this process or in worker processes.

Nothing here imports torch: workers use NumPy only.

Axes: `L` lanes, `l` lanes of one block, `W` blocks, then features.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.bridges.env_block import EnvBlock, LaneSpaces, MakeEnv
from metarl.bridges.workers import WORKER_TIMEOUT, Workers
from metarl.errors import WorkerError

FAILURE_NOTE = (
    "metarl: this was raised while environments were stepped. `metarl check TASK` steps one of "
    "them alone, and reports which requirement it breaks."
)
"""note added to an exception of an environment"""


class LanePool:
    """L lanes, in this process or split among workers, which stay open from trial to trial."""

    def __init__(
        self,
        make: MakeEnv,
        template: LaneSpaces,
        lanes: int,
        workers: int,
        timeout: float = WORKER_TIMEOUT,
    ) -> None:
        """Starts the workers, if any.

        Args:
            make: makes one environment; must be picklable where there are workers.
            template: spaces of a lane.
            lanes: L.
            workers: processes that step them; 0 steps them in this process.
            timeout: seconds after which a worker that does not answer counts as hung.
        """
        self.lanes, self.workers, self.timeout = lanes, workers, timeout
        self.owner: object = None  # key of the batched env that uses the lanes
        self._closed = False
        blocks = max(1, min(workers, lanes))
        self._block_lanes = -(-lanes // blocks)  # the last blocks may have unused spare lanes
        makers = [_BlockMaker(make, index, self._block_lanes, template) for index in range(blocks)]
        self._block = makers[0]() if not workers else None
        self._workers = Workers(makers, timeout) if workers else None
        self._blocks = blocks

    def reset(self, tasks: Sequence[Any], seeds: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Starts a trial in every lane; returns the arrays of `EnvBlock.reset`, [L, ...]."""
        options = {"tasks": self._split(tasks), "seeds": self._split(seeds)}
        with self._closing_on_failure():
            if self._block is not None:
                return self._block.reset(options=options)[0]
            assert self._workers is not None
            return self._merged(self._workers.reset(options))

    def step(self, action: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """One step of all lanes; returns the arrays of `EnvBlock.step`, [L, ...].

        With workers, the arrays are views of memory that the next step overwrites.
        """
        with self._closing_on_failure():
            if self._block is not None:
                return self._block.step(action)[0]
            assert self._workers is not None
            spare = self._blocks * self._block_lanes - len(action)
            if spare:
                action = np.concatenate([action, np.repeat(action[-1:], spare, 0)])
            shape = (self._blocks, self._block_lanes, *action.shape[1:])
            return self._merged(self._workers.step(action.reshape(shape)))

    def frame(self, when: str) -> Any:
        """Frame of lane 0, as `EnvBlock.frame`; without workers only."""
        assert self._block is not None
        return self._block.frame(when)

    @property
    def closed(self) -> bool:
        """Whether the pool is closed, also by a failure in an environment or a worker."""
        return self._closed

    def close(self) -> None:
        """Ends workers and environments."""
        self._close(kill=False)

    def _close(self, *, kill: bool) -> None:
        self._closed = True
        if self._block is not None:
            self._block.close()
        elif self._workers is not None:
            self._workers.close(kill=kill)

    @contextmanager
    def _closing_on_failure(self) -> Iterator[None]:
        """Closes the pool on an exception: some lanes have stepped, and a worker may have died."""
        try:
            yield
        except SystemExit as error:
            self._close(kill=True)
            raise WorkerError(
                f"An environment has called exit({error.code!r}), which would end the program. It "
                "must raise another exception, or end the episode."
            ) from error
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, WorkerError):
                error.add_note(FAILURE_NOTE)
            self._close(kill=True)
            raise

    def _split(self, values: Sequence[Any]) -> list[list[Any]]:
        """[L] -> [W][l]; spare lanes repeat the last value."""
        length = self._block_lanes
        filled = [*values, *[values[-1]] * (self._blocks * length - len(values))]
        return [filled[at : at + length] for at in range(0, len(filled), length)]

    def _merged(self, arrays: Any) -> dict[str, NDArray[Any]]:
        """[W, l, ...] -> [L, ...]."""
        return {
            name: value.reshape(-1, *value.shape[2:])[: self.lanes]
            for name, value in arrays.items()
        }


class _BlockMaker:
    """A picklable function that makes an `EnvBlock`."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def __call__(self) -> EnvBlock:
        return EnvBlock(*self._arguments)
