"""The one engine: a family, tasks and a policy go in, whole lived trials come out.

Axes: `T` steps, `N` tasks, `B` copies of each task, then features. Nothing here asks which agent
it serves, or whether the world is pure tensors or processes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import Space, spaces
from torch import Tensor

from metarl.agent import Adapted, Agent, MetaBatch, Phase, Policy
from metarl.errors import NonFiniteError
from metarl.seeding import Seeds
from metarl.tasks.batched_env import BatchedEnv, Transition
from metarl.tasks.family import TaskDistribution, as_tasks
from metarl.trajectory import Percept, Trajectory
from metarl.validation import require_positive


@dataclass(frozen=True, kw_only=True)
class RolloutSpec:
    """How each phase of experience is collected."""

    episodes: int
    """E, consecutive episodes of each rollout"""
    rollouts_per_task: int = 1
    """B"""
    workers: int | None = None
    """processes that step ordinary Gymnasium environments; by default this one does"""
    wrap_env: Callable[[BatchedEnv, int], BatchedEnv] | None = None
    """puts a transparent wrapper, such as a camera, around the batched env of each phase, which is
    passed with the number of the phase"""


def rollout_phases(
    agent: Agent,
    family: TaskDistribution,
    tasks: Tensor,
    *,
    steps: int,
    spec: RolloutSpec,
    seeds: Seeds,
) -> MetaBatch:
    """Collects experience before and after each of `steps` adaptation steps: K + 1 phases.

    Training, evaluation and video call this one function, so they cannot drift apart.

    Args:
        agent: starts with a policy and adapts it.
        family: of the tasks.
        tasks: [N, ...], on the device where everything happens.
        steps: K.
        spec: how each phase is collected.
        seeds: phase k is collected with `seeds.child("phase", k)`; the agent's own random choices
            have streams apart.

    Raises:
        NonFiniteError: an environment, a policy or an inner loss gave NaN or infinity.
    """
    device = tasks.device
    policy = agent.start(len(tasks), seeds.torch("start", device=device))
    phases = []
    for step in range(steps + 1):
        trajectory = collect(
            family,
            tasks,
            policy,
            episodes=spec.episodes,
            rollouts_per_task=spec.rollouts_per_task,
            seeds=seeds.child("phase", step),
            workers=spec.workers,
            wrap_env=_of_phase(spec.wrap_env, step),
        )
        adapted = Adapted(policy)
        if step < steps:
            adapted = agent.adapt(policy, trajectory, seeds.torch("adapt", step, device=device))
        phases.append(Phase(policy=policy, trajectory=trajectory, cache=adapted.cache))
        policy = adapted.policy
    return MetaBatch(tasks=tasks, phases=tuple(phases))


def _of_phase(
    wrap_env: Callable[[BatchedEnv, int], BatchedEnv] | None, phase: int
) -> Callable[[BatchedEnv], BatchedEnv] | None:
    return None if wrap_env is None else lambda env: wrap_env(env, phase)


def collect(
    family: TaskDistribution,
    tasks: Tensor,
    policy: Policy,
    *,
    episodes: int,
    rollouts_per_task: int = 1,
    seeds: Seeds,
    workers: int | None = None,
    wrap_env: Callable[[BatchedEnv], BatchedEnv] | None = None,
) -> Trajectory:
    """Lives `episodes` episodes in a row in each of `rollouts_per_task` lanes of every task.

    After an episode ends the next one opens in the same task with the memory intact, and the
    last reward reaches the policy. A lane that has lived its episodes is idle until all have.

    Args:
        family: the world's rules.
        tasks: [N, ...] task parameters, on the device where everything shall happen.
        policy: acts in all N x B lanes at once.
        episodes: E, episodes per lane.
        rollouts_per_task: B, lanes of each task.
        seeds: the world draws from `"world"`, the policy from `"policy"`: two policies given
            equal seeds and `rollouts_per_task` meet the same world noise, as long as opening an
            episode draws nothing or all episodes are equally long.
        workers: processes that step ordinary Gymnasium environments; by default this one does.
            What is lived is the same.
        wrap_env: puts a transparent wrapper, such as a camera, between the engine and the env.

    Returns:
        A trajectory [T, N, B, ...] with T <= E * family.episode_steps.

    Raises:
        ConfigError: `episodes` or `rollouts_per_task` is not positive, or workers are of no use
            here.
        TaskError: a task lies outside the family's task space.
        NonFiniteError: an observation or reward is NaN or infinite; task and step are named.
    """
    require_positive("episodes", episodes)
    require_positive("rollouts_per_task", rollouts_per_task)
    tasks = as_tasks(family, tasks, tasks.device)
    lanes = tasks.repeat_interleave(rollouts_per_task, 0)
    world = family.open_env(lanes, seeds.torch("world", device=tasks.device), workers)
    world = wrap_env(world) if wrap_env else world
    log = _Log(len(tasks), rollouts_per_task, episodes * family.episode_steps, family.action_space)
    with torch.no_grad():
        trajectory = _live(world, policy, log, episodes, seeds.torch("policy", device=tasks.device))
    _require_finite(trajectory, family, tasks)
    return trajectory


class _Log:
    """Preallocated [T, L, ...] tensors that a life is written into, step by step."""

    def __init__(self, num_tasks: int, copies: int, horizon: int, action_space: Space[Any]) -> None:
        self.lead = (num_tasks, copies)
        self.horizon = horizon
        self.action_shape = action_space.shape or ()
        self.action_type = (
            torch.int64 if isinstance(action_space, spaces.Discrete) else torch.float32
        )
        self._columns: dict[str, Tensor] = {}

    def write(self, step: int, **values: Tensor) -> None:
        if not self._columns:
            self._columns = {
                name: value.new_empty(self.horizon, *value.shape) for name, value in values.items()
            }
        for name, value in values.items():
            self._columns[name][step] = value

    def trajectory(self, steps: int) -> Trajectory:
        columns = {name: column[:steps] for name, column in self._columns.items()}
        idle = ~columns["valid"]
        if bool(idle.any()):  # whatever a world or a policy said after the end of a life
            for column in columns.values():
                column[idle] = 0
        return Trajectory(**{name: self.split(value, 1) for name, value in columns.items()})

    def split(self, value: Tensor, axis: int = 0) -> Tensor:
        """[..., L, ...] -> [..., N, B, ...] at `axis`."""
        return value.view(*value.shape[:axis], *self.lead, *value.shape[axis + 1 :])


def _live(
    world: BatchedEnv, policy: Policy, log: _Log, episodes: int, generator: torch.Generator
) -> Trajectory:
    obs = world.reset()
    lanes, device = len(obs), obs.device
    yes = torch.ones(lanes, dtype=torch.bool, device=device)
    no = torch.zeros_like(yes)
    alive, first, first_of_trial = yes, yes, yes
    finished = torch.zeros(lanes, dtype=torch.int64, device=device)
    action = torch.zeros(lanes, *log.action_shape, dtype=log.action_type, device=device)
    last = Transition(obs, torch.zeros(lanes, device=device), no, no, no)
    memory = policy.initial_memory(*log.lead)
    step = 0
    while True:
        percept = Percept(
            obs=log.split(obs),
            previous_action=log.split(action),
            previous_reward=log.split(last.reward),
            previous_terminated=log.split(last.terminated),
            previous_truncated=log.split(last.truncated),
            first_of_episode=log.split(first),
            first_of_trial=log.split(first_of_trial),
        )
        decision = policy.act(percept, memory, generator)
        memory = decision.memory
        action = decision.action.flatten(0, 1)
        last = world.step(action)
        log.write(
            step,
            obs=obs,
            action=action,
            log_prob=decision.log_prob.flatten(0, 1),
            reward=last.reward,
            next_obs=last.obs,
            terminated=last.terminated,
            truncated=last.truncated,
            first=first,
            success=last.success,
            valid=alive,
        )
        step += 1
        first = last.terminated | last.truncated
        finished = finished + first
        alive = finished < episodes
        if step == log.horizon or not bool(alive.any()):
            return log.trajectory(step)
        obs = world.reset(first) if bool(first.any()) else last.obs
        first_of_trial = no


def _require_finite(trajectory: Trajectory, family: TaskDistribution, tasks: Tensor) -> None:
    columns = {
        name: getattr(trajectory, name)
        for name in ("obs", "action", "log_prob", "reward", "next_obs")
    }
    broken = {
        name: (~value.isfinite()).view(*trajectory.valid.shape, -1).any(-1).nonzero()
        for name, value in columns.items()
        if not bool(value.isfinite().all())
    }
    if not broken:
        return
    # What broke first is to blame: the next action after a NaN reward is NaN, too.
    name = min(broken, key=lambda name: int(broken[name][0, 0]))
    step, task, copy = (int(index) for index in broken[name][0])
    of_policy = name in ("action", "log_prob")
    remedy = (
        "the action space's bounds and the agent's learning rate"
        if of_policy
        else "the family's reset, step and observe for this task"
    )
    raise NonFiniteError(
        f"{'The policy' if of_policy else type(family).__name__} gave a non-finite {name} "
        f"({columns[name][step, task, copy].tolist()}) in task {task} = {tasks[task].tolist()}, "
        f"copy {copy}, step {step} of the trial, with action "
        f"{trajectory.action[step, task, copy].tolist()}. Nothing was learnt from it; check "
        f"{remedy}."
    )
