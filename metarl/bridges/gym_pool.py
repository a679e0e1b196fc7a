"""Ordinary Gymnasium environments as lanes: actions go in, transitions of all of them come out.

Gymnasium's vector environments step them, in this process or in workers of their own. Nothing here
needs torch: what a worker does is NumPy.

Axes: `L` lanes, `l` lanes of one block, `W` blocks, then features (`D` observation, `A` action).
"""

import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from metarl.errors import ConfigError

MakeEnv = Callable[[], gymnasium.Env[Any, Any]]
SUCCESS_KEYS = ("success", "is_success")
"""what an info calls it that the task is solved"""
NOTE = (
    "metarl: this was raised while environments were stepped. `metarl check TASK` lives in one of "
    "them alone, and says in words what does not fit."
)
"""under what an environment raises"""
STEP, OPENING = "step", "opening"
"""moments of which there is a picture: after the last step, and where the last episode opened"""


class Lane(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One environment as the engine wants it, whose next reset sets its task.

    Observations are flattened by Gymnasium's utilities, Box actions clipped to their bounds, and
    of the info only success is kept.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], *, filmed: bool = False) -> None:
        super().__init__(env)
        self.pictures: dict[str, Any] | None = {} if filmed and env.render_mode else None
        self.observation_space = flat_space(env.observation_space)
        self.action_space = plain_action_space(env.action_space)
        self.next_task: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Opens an episode, in `next_task` if there is one."""
        if self.next_task is not None:
            options = {**(options or {}), "task": self.next_task}
            self.next_task = None
        obs, _ = self.env.reset(seed=seed, options=options)
        self._film(OPENING)
        return self._flat(obs), {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One step."""
        obs, reward, terminated, truncated, info = self.env.step(self._own(action))
        self._film(STEP)
        success = any(bool(info[key]) for key in SUCCESS_KEYS if key in info)
        ended = bool(terminated), bool(truncated) and not terminated
        return self._flat(obs), float(reward), *ended, {"success": success}

    def _film(self, moment: str) -> None:
        # Kept, because where an episode ends the next one is opened before anybody can look.
        if self.pictures is None:
            return
        try:
            self.pictures[moment] = self.env.render()
        except DependencyNotInstalled as error:
            raise ConfigError(f"The environment cannot be drawn here: {error}.") from error

    def _flat(self, obs: Any) -> NDArray[np.float32]:
        flat = spaces.flatten(self.env.observation_space, obs)
        return np.array(flat, dtype=np.float32).reshape(-1)

    def _own(self, action: Any) -> Any:
        space = self.env.action_space
        if isinstance(space, spaces.Box):
            action = np.asarray(action, dtype=space.dtype).reshape(space.shape)
            # NaN stays NaN: it must not turn into a good action.
            return np.clip(action, space.low, space.high)
        assert isinstance(space, spaces.Discrete)
        return space.dtype.type(action + space.start)


def flat_space(space: gymnasium.Space[Any]) -> spaces.Box:
    """The Box [D] float32 that Gymnasium's utilities flatten a space into.

    Raises:
        ConfigError: the space has no fixed size, as graphs and sequences.
    """
    if not space.is_np_flattenable:
        raise ConfigError(
            f"Observations in {space} have no fixed size, so that no network can read them; wrap "
            "the environment so that it shows a Box, Discrete, Dict or Tuple of them."
        )
    flat = spaces.flatten_space(space)
    assert isinstance(flat, spaces.Box)
    with np.errstate(over="ignore"):  # float64's own limits are infinite in float32
        low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
    return spaces.Box(low.reshape(-1), high.reshape(-1), dtype=np.float32)


def plain_action_space(space: gymnasium.Space[Any]) -> spaces.Box | spaces.Discrete:
    """Discrete from 0 on, or a Box [A] float32.

    Raises:
        ConfigError: another kind of space.
    """
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return flat_space(space)
    raise ConfigError(
        f"Actions must be Discrete or a Box of floats; got {space}. Wrap the environment: "
        "MultiDiscrete can be numbered through as one Discrete."
    )


class Block(gymnasium.Env[Any, Any]):
    """Lanes that one process steps, as one environment that never ends.

    What a step brings is all in the observation, which workers hand over in shared memory: how an
    episode ended, and the observation that opens the next one, at once.
    """

    def __init__(self, make: MakeEnv, index: int, lanes: int, template: "LaneSpaces") -> None:
        """Makes no environment yet.

        Args:
            make: makes one environment.
            index: of this block among all.
            lanes: l, how many it steps.
            template: spaces of a lane.
        """
        self._make, self._index, self._count = make, index, lanes
        self._lanes: SyncVectorEnv | None = None
        obs = batch_space(template.observation, lanes)
        flags = spaces.MultiBinary(lanes)
        self.observation_space = spaces.Dict(
            {
                "obs": obs,
                "opening": obs,
                "reward": spaces.Box(-np.inf, np.inf, (lanes,), np.float64),
                "terminated": flags,
                "truncated": flags,
                "success": flags,
            }
        )
        self.action_space = batch_space(template.action, lanes)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Opens an episode in every lane; options hold tasks and seeds of all blocks, [W, l]."""
        lanes, options = self._open(), options or {}
        lanes.set_attr("next_task", options["tasks"][self._index])
        opening, _ = lanes.reset(seed=options["seeds"][self._index])
        nothing = np.zeros(self._count)
        return self._told(opening, opening, nothing, nothing, nothing, nothing), {}

    def step(
        self, action: NDArray[Any]
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """One step of every lane; where an episode ends the next one is opened."""
        opening, reward, terminated, truncated, infos = self._open().step(action)
        obs, ended = opening, terminated | truncated
        success = np.zeros(self._count, dtype=bool)
        if "success" in infos:
            success |= infos["success"] & infos["_success"]
        if ended.any():
            obs = opening.copy()
            obs[ended] = np.stack(list(infos["final_obs"][ended]))
            success |= infos["final_info"]["success"] & ended
        told = self._told(obs, opening, reward, terminated, truncated, success)
        return told, 0.0, False, False, {}

    def picture(self, moment: str) -> Any:
        """What the first lane looked like at STEP or at OPENING, where it was made to be seen."""
        (first, *_) = self._open().envs
        assert isinstance(first, Lane)
        assert first.pictures is not None
        return first.pictures[moment]

    def close(self) -> None:
        """Closes the environments."""
        if self._lanes is not None:
            self._lanes.close()

    def _lane(self, *, filmed: bool) -> Lane:
        return Lane(self._make(), filmed=filmed)

    def _open(self) -> SyncVectorEnv:
        if self._lanes is None:
            if multiprocessing.parent_process() is not None:
                # Ctrl-C is for the trainer, which ends the iteration at hand; it needs its workers.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._lanes = SyncVectorEnv(
                [partial(self._lane, filmed=lane == 0) for lane in range(self._count)],
                copy=True,
                autoreset_mode=AutoresetMode.SAME_STEP,
            )
        return self._lanes

    @staticmethod
    def _told(obs: Any, opening: Any, reward: Any, *flags: Any) -> dict[str, NDArray[Any]]:
        terminated, truncated, success = (np.asarray(flag, dtype=np.int8) for flag in flags)
        return {
            "obs": obs,
            "opening": opening,
            "reward": reward,
            "terminated": terminated,
            "truncated": truncated,
            "success": success,
        }


class LaneSpaces(NamedTuple):
    """What a lane shows and takes."""

    observation: spaces.Box
    action: spaces.Box | spaces.Discrete


class LanePool:
    """So many lanes, in this process or shared out among workers; kept from trial to trial."""

    def __init__(self, make: MakeEnv, template: LaneSpaces, lanes: int, workers: int) -> None:
        """Starts the workers, if any.

        Args:
            make: makes one environment; must be picklable where there are workers.
            template: spaces of a lane.
            lanes: L.
            workers: processes that step them; 0 steps them in this one.
        """
        self.lanes, self.workers = lanes, workers
        self.tenant: object = None  # the world that the lanes live in
        self._closed = False
        blocks = max(1, min(workers, lanes))
        self._each = -(-lanes // blocks)  # the last block may have lanes that nobody looks at
        makers = [_BlockMaker(make, index, self._each, template) for index in range(blocks)]
        self._block = makers[0]() if not workers else None
        self._vector = _started(makers) if workers else None

    def reset(self, tasks: Sequence[Any], seeds: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Opens a trial in every lane: what `Block.reset` tells, [L, ...]."""
        options = {"tasks": self._shared_out(tasks), "seeds": self._shared_out(seeds)}
        with self._closing_on_failure():
            if self._block is not None:
                return self._block.reset(options=options)[0]
            assert self._vector is not None
            return self._joined(self._vector.reset(options=options)[0])

    def step(self, action: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """One step of all lanes: what `Block.step` tells, [L, ...].

        What workers tell lies in memory that the next step writes over.
        """
        with self._closing_on_failure():
            if self._block is not None:
                return self._block.step(action)[0]
            assert self._vector is not None
            blocks = len(self._vector.env_fns)
            spare = blocks * self._each - len(action)
            if spare:
                action = np.concatenate([action, np.repeat(action[-1:], spare, 0)])
            told, *_ = self._vector.step(action.reshape(blocks, self._each, *action.shape[1:]))
            return self._joined(told)

    def picture(self, moment: str) -> Any:
        """As `Block.picture`; only where there are no workers."""
        assert self._block is not None
        return self._block.picture(moment)

    @property
    def closed(self) -> bool:
        """Whether it steps no more, as after a failure in a worker."""
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
        """Whoever comes next starts afresh: some lanes have stepped, and a worker may be gone."""
        try:
            yield
        except BaseException as error:
            self.close()
            if isinstance(error, Exception):
                error.add_note(NOTE)
            raise

    def _shared_out(self, values: Sequence[Any]) -> list[list[Any]]:
        """[L] -> [W][l]; spare lanes repeat the last value."""
        blocks = 1 if self._vector is None else len(self._vector.env_fns)
        filled = [*values, *[values[-1]] * (blocks * self._each - len(values))]
        return [filled[at : at + self._each] for at in range(0, len(filled), self._each)]

    def _joined(self, told: Any) -> dict[str, NDArray[Any]]:
        """[W, l, ...] -> [L, ...]."""
        return {
            name: value.reshape(-1, *value.shape[2:])[: self.lanes] for name, value in told.items()
        }


def _started(makers: Sequence["_BlockMaker"]) -> AsyncVectorEnv:
    """Workers that have answered."""
    remedy = (
        "Register the environment with entry_point='your_module:Class', in a module that can be "
        "imported from where you start, with plain values as arguments; let a script of yours "
        "start under `if __name__ == '__main__':`; or leave workers out."
    )
    try:
        # NOTE: spawn everywhere: torch's threads do not survive a fork.
        return AsyncVectorEnv(makers, context="spawn", copy=False)
    except (EOFError, ConnectionError) as error:
        raise ConfigError(
            "The workers ended while they were starting; their own words are above. Most likely a "
            f"fresh process cannot import what makes the environment. {remedy}"
        ) from error
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"The environment cannot be sent to worker processes: {error}. {remedy}"
        ) from error


class _BlockMaker:
    """A function that pickles."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def __call__(self) -> Block:
        return Block(*self._arguments)
