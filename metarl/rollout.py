"""The rollout engine: whole trials of a policy in many tasks at once, as a `Trajectory`.

Axes: `T` steps, `N` tasks, `B` rollouts of each task, `L` = N x B lanes (task by task), then
features. Nothing here asks which agent acts, or whether tensors or processes step the lanes.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor

from metarl.agent import (
    Adapted,
    Agent,
    GuidedAgent,
    MetaBatch,
    Phase,
    Policy,
    StationaryPolicy,
    ThreadedPolicy,
    ValuePolicy,
)
from metarl.errors import ConfigError, NonFiniteError, TaskContractError
from metarl.field_types import checks_arguments, kind_of
from metarl.noise import LaneNoise, lane_keys
from metarl.recorded import Recorder, can_replay
from metarl.seeding import Seeds
from metarl.tasks.batched_env import BatchedEnv
from metarl.tasks.family import TaskDistribution, as_tasks
from metarl.trajectory import Trajectory, blank_action, first_percept, next_percept
from metarl.validation import MAX_INTEGER, require_between, require_positive


class RolloutStorage:
    """Tensors that trajectories are written into, kept from one collection to the next.

    A trajectory that was collected into a storage is valid until the next collection into the same
    slot of it. A slot is a number, such as that of a phase.
    """

    def __init__(self) -> None:
        self._columns: dict[tuple[int, str], Tensor] = {}
        self._recorders: defaultdict[int, Recorder] = defaultdict(Recorder)

    def column(self, slot: int, name: str, steps: int, like: Tensor) -> Tensor:
        """A tensor [steps, ...] for values like `like`; allocated where the last does not fit."""
        column = self._columns.get((slot, name))
        shape = (steps, *like.shape)
        if (
            column is None
            or column.shape != shape
            or column.dtype != like.dtype
            or column.device != like.device
        ):
            column = self._columns[slot, name] = like.new_empty(shape)
        return column

    def recorder(self, slot: int) -> Recorder:
        """Replays the collections into a slot."""
        return self._recorders[slot]


@dataclass(frozen=True, kw_only=True)
class RolloutSpec:
    """How each phase of experience is collected."""

    episodes: int
    """E, consecutive episodes of each rollout"""
    rollouts_per_task: int = 1
    """B, parallel rollouts of each task"""
    workers: int | None = None
    """processes that step ordinary Gymnasium environments; by default this one does"""
    worker_timeout: float | None = None
    """seconds after which a worker that does not answer counts as hung; by default ten minutes"""
    keep_next_obs: bool = False
    """trajectories hold the observation after each step, the last of an episode included"""
    wrap_env: Callable[[BatchedEnv, int], BatchedEnv] | None = None
    """puts a transparent wrapper, such as a camera, around the batched env of each phase, which is
    passed with the number of the phase"""


def rollout_phases(
    agent: Agent,
    family: TaskDistribution,
    tasks: Tensor,
    *,
    adaptation_steps: int,
    spec: RolloutSpec,
    seeds: Seeds,
    first_task: int = 0,
    storage: RolloutStorage | None = None,
    training: bool = False,
) -> MetaBatch:
    """Collects experience before and after each adaptation step: K + 1 phases.

    Training, evaluation and video call this one function, so they cannot drift apart.

    Args:
        agent: starts with a policy and adapts it.
        family: the rules of the environments.
        tasks: [N, ...], on the device where everything happens.
        adaptation_steps: K.
        spec: how each phase is collected.
        seeds: phase k is collected with `seeds.child("phase", k)`; the agent's own random choices
            come from the streams `"start"` and `"adapt"`, one lane for each task.
        first_task: number of tasks[0] in a larger set that is rolled out in several batches.
        storage: where the trajectories are written; by default new memory.
        training: a `GuidedAgent` starts with the policy that collects its training experience.

    Raises:
        NonFiniteError: an environment, a policy or an inner loss gave NaN or infinity.
    """

    def noise(purpose: str, *indices: int) -> LaneNoise:
        word = seeds.word(purpose, *indices)
        keys = lane_keys(word, len(tasks), first_task=first_task, device=tasks.device)
        return LaneNoise(keys)

    if training and isinstance(agent, GuidedAgent):
        policy = agent.start_guided(tasks, spec.rollouts_per_task, noise("start"))
    else:
        policy = agent.start(len(tasks), noise("start"))
    phases = []
    for step in range(adaptation_steps + 1):
        trajectory = collect(
            family,
            tasks,
            policy,
            episodes=spec.episodes,
            rollouts_per_task=spec.rollouts_per_task,
            seeds=seeds.child("phase", step),
            first_task=first_task,
            workers=spec.workers,
            worker_timeout=spec.worker_timeout,
            keep_next_obs=spec.keep_next_obs,
            wrap_env=_of_phase(spec.wrap_env, step),
            storage=storage,
            slot=step,
        )
        adapted = Adapted(policy)
        if step < adaptation_steps:
            adapted = agent.adapt(policy, trajectory, noise("adapt", step))
        phases.append(Phase(policy=policy, trajectory=trajectory, cache=adapted.cache))
        policy = adapted.policy
    return MetaBatch(tasks=tasks, phases=tuple(phases))


def _of_phase(
    wrap_env: Callable[[BatchedEnv, int], BatchedEnv] | None, phase: int
) -> Callable[[BatchedEnv], BatchedEnv] | None:
    return None if wrap_env is None else lambda env: wrap_env(env, phase)


@checks_arguments(
    "family",
    "tasks",
    "seeds",
    "episodes",
    "rollouts_per_task",
    "first_task",
    "workers",
    "worker_timeout",
    "keep_next_obs",
)
def collect(
    family: TaskDistribution,
    tasks: Tensor,
    policy: Policy,
    *,
    episodes: int,
    rollouts_per_task: int = 1,
    seeds: Seeds,
    first_task: int = 0,
    workers: int | None = None,
    worker_timeout: float | None = None,
    keep_next_obs: bool = False,
    wrap_env: Callable[[BatchedEnv], BatchedEnv] | None = None,
    storage: RolloutStorage | None = None,
    slot: int = 0,
) -> Trajectory:
    """Rolls out `episodes` consecutive episodes in each of `rollouts_per_task` lanes of every task.

    When an episode ends, the next one starts in the same task with the memory intact, and the last
    reward reaches the policy. A lane that has finished its episodes is idle until all have.

    What happens in a lane depends on its task's number, its rollout's number and the seeds alone:
    other tasks and their number change nothing. Two policies given equal seeds meet the same
    environment noise.

    Args:
        family: the rules of the environment.
        tasks: [N, ...] task parameters, on the device where everything happens.
        policy: acts in all L lanes at once.
        episodes: E, episodes per lane.
        rollouts_per_task: B, lanes of each task.
        seeds: environments draw from `"world"`, the policy from `"policy"`.
        first_task: number of tasks[0] in a larger set that is rolled out in several batches.
        workers: processes that step ordinary Gymnasium environments; by default this one does.
        worker_timeout: seconds after which one that does not answer counts as hung; by default 600.
            They change no number.
        keep_next_obs: the trajectory holds the observation after each step.
        wrap_env: puts a transparent wrapper, such as a camera, between the engine and the env.
        storage: where the trajectory is written; by default new memory.
        slot: number of the trajectory within the storage.

    Returns:
        A trajectory [T, N, B, ...] with T <= E * family.episode_steps.

    Raises:
        ConfigError: `episodes` or `rollouts_per_task` is not positive, or workers are of no use
            here.
        TaskError: a task lies outside the family's task space.
        TaskContractError: the family declares `fixed_length` and ended an episode early.
        NonFiniteError: an observation or reward is NaN or infinite; task and step are named.
    """
    require_positive("episodes", episodes)
    require_positive("rollouts_per_task", rollouts_per_task)
    require_between("first_task", first_task, 0, MAX_INTEGER)
    if not callable(getattr(policy, "initial_memory", None)):
        raise ConfigError(f"policy must be a metarl.Policy; got {kind_of(policy)}.")
    tasks = as_tasks(family, tasks, tasks.device)
    horizon = episodes * family.episode_steps

    storage = storage or RolloutStorage()
    fixed = family.episode_steps if family.fixed_length else None

    def keys(purpose: str) -> Tensor:
        word = seeds.word(purpose)
        return lane_keys(word, len(tasks), rollouts_per_task, first_task, tasks.device)

    def roll_out(lanes: Tensor, world: Tensor, draws: Tensor) -> tuple[_Log, int]:
        noise = LaneNoise(world, horizon=horizon)
        env = family.open_env(lanes, noise, workers, worker_timeout)
        env = wrap_env(env) if wrap_env else env
        log = _Log(storage, slot, horizon, keep_next_obs)
        noise = LaneNoise(draws, horizon=horizon)
        return log, _roll_out(env, policy, log, family.action_space, episodes, fixed, noise)

    key: Hashable = None
    plain = can_replay(tasks) and fixed is not None and wrap_env is None
    if plain and isinstance(policy, StationaryPolicy):
        key = (id(family), len(tasks), rollouts_per_task, horizon, keep_next_obs, policy.address)
    lanes = tasks.repeat_interleave(rollouts_per_task, 0)
    threads = policy.threads() if isinstance(policy, ThreadedPolicy) else nullcontext()
    with torch.no_grad(), threads:
        log, steps = storage.recorder(slot)(key, roll_out, lanes, keys("world"), keys("policy"))
    trajectory: Trajectory = log.trajectory(
        steps, len(tasks), rollouts_per_task, none_idle=fixed is not None
    )
    if fixed is not None:
        _require_fixed_length(trajectory, family, fixed)
    _require_finite(trajectory, family, tasks)
    return trajectory


class _Log:
    """Columns [T, L, ...] of a storage, written step by step."""

    def __init__(
        self, storage: RolloutStorage, slot: int, horizon: int, keep_next_obs: bool
    ) -> None:
        self.horizon = horizon
        self._keep_next_obs = keep_next_obs
        self._storage, self._slot = storage, slot
        self._columns: dict[str, Tensor] = {}
        self._rows: dict[str, tuple[Tensor, ...]] = {}

    def write(self, step: int, next_obs: Tensor, value: Tensor | None, **values: Tensor) -> None:
        if self._keep_next_obs:
            values["next_obs"] = next_obs
        if value is None:
            self._columns.pop("value", None)  # kept only if every step has one
        elif not self._columns or "value" in self._columns:
            values["value"] = value
        if not self._columns:
            self._columns = {
                name: self._storage.column(self._slot, name, self.horizon, value)
                for name, value in values.items()
            }
            self._rows = {name: column.unbind() for name, column in self._columns.items()}
        # One call instead of ten.
        torch._foreach_copy_([self._rows[name][step] for name in values], [*values.values()])

    def trajectory(
        self, steps: int, num_tasks: int, rollouts_per_task: int, *, none_idle: bool
    ) -> Trajectory:
        columns = {name: column[:steps] for name, column in self._columns.items()}
        if not none_idle:  # clears what env and policy returned after the end of a trial
            idle = ~columns["valid"]
            for column in columns.values() if bool(idle.any()) else ():
                column[idle] = 0
        lead = (steps, num_tasks, rollouts_per_task)
        return Trajectory(
            **{name: column.view(*lead, *column.shape[2:]) for name, column in columns.items()}
        )


def _roll_out(
    env: BatchedEnv,
    policy: Policy,
    log: _Log,
    action_space: Space[Any],
    episodes: int,
    fixed_length: int | None,
    noise: LaneNoise,
) -> int:
    """Steps all lanes until each trial has ended, after its episodes; returns the number of steps.

    Where all episodes have one length, the loop itself waits for no result of a step.
    """
    obs = env.reset()
    lanes = len(obs)
    active = torch.ones(lanes, dtype=torch.bool, device=obs.device)
    finished_episodes = torch.zeros(lanes, dtype=torch.int64, device=obs.device)
    percept = first_percept(obs, blank_action(action_space))
    memory = policy.initial_memory(lanes, log.horizon)
    valued = policy if isinstance(policy, ValuePolicy) else None
    for step in range(log.horizon):
        action, log_prob, memory = policy.act(percept, memory, noise.at(step))
        last = env.step(action)
        log.write(
            step,
            obs=percept.obs,
            action=action,
            log_prob=log_prob,
            reward=last.reward,
            terminated=last.terminated,
            truncated=last.truncated,
            first=percept.first_of_episode,
            success=last.success,
            valid=active,
            next_obs=last.next_obs,
            value=valued.value_estimate(memory) if valued else None,
        )
        ended = last.terminated | last.truncated
        if fixed_length is not None:
            some_ended, all_trials_ended = (step + 1) % fixed_length == 0, False
        else:
            finished_episodes = finished_episodes + ended
            active = finished_episodes < episodes
            some_ended, all_trials_ended = bool(ended.any()), not bool(active.any())
        if step + 1 == log.horizon or all_trials_ended:
            break
        if some_ended:
            obs = env.reset(None if fixed_length is not None else ended)
        else:
            obs = last.next_obs
        percept = next_percept(
            obs, action, last.reward, last.terminated, last.truncated, first=ended
        )
    return step + 1


def _require_fixed_length(trajectory: Trajectory, family: TaskDistribution, length: int) -> None:
    ended = (trajectory.terminated | trajectory.truncated).flatten(1)
    expected = _ends(len(ended), length, ended.device).expand_as(ended)
    if not torch.equal(ended, expected):
        wrong = ended != expected
        step = int(wrong.nonzero()[0, 0]) % length + 1
        raise TaskContractError(
            f"{type(family).__name__} declares that every episode has {length} steps "
            f"(`fixed_length`), but one ended after {step}. Set `fixed_length = False`, or never "
            "terminate early."
        )


@lru_cache(maxsize=32)
def _ends(steps: int, length: int, device: torch.device) -> Tensor:
    """Whether an episode of `length` steps ends at each step, [T, 1] bool."""
    return torch.arange(1, steps + 1, device=device).remainder_(length).eq(0).unsqueeze(1)


def _require_finite(trajectory: Trajectory, family: TaskDistribution, tasks: Tensor) -> None:
    columns = {name: getattr(trajectory, name) for name in ("obs", "action", "log_prob", "reward")}
    # A sum is faster than a test of each number. It is not finite if one of them is not, and by
    # overflow, which the test of each tells apart.
    sums = [value.sum() for value in columns.values() if value.is_floating_point()]
    if math.isfinite(sum(sums)):
        return
    broken = {
        name: (~value.isfinite()).view(*trajectory.valid.shape, -1).any(-1).nonzero()
        for name, value in columns.items()
        if not bool(value.isfinite().all())
    }
    if not broken:
        return
    # The first to break is the cause: the next action after a NaN reward is NaN, too.
    name = min(broken, key=lambda name: int(broken[name][0, 0]))
    step, task, rollout = (int(index) for index in broken[name][0])
    of_policy = name in ("action", "log_prob")
    remedy = (
        "the action space's bounds and the agent's learning rate"
        if of_policy
        else "the family's reset, step and observe for this task"
    )
    raise NonFiniteError(
        f"{'The policy' if of_policy else type(family).__name__} gave a non-finite {name} "
        f"({columns[name][step, task, rollout].tolist()}) in task {task} = "
        f"{tasks[task].tolist()}, rollout {rollout}, step {step} of the trial, with action "
        f"{trajectory.action[step, task, rollout].tolist()}. Nothing was learned from it; check "
        f"{remedy}."
    )
