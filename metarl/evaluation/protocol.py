"""The evaluation protocol: agents and policies rolled out in common tasks, measured alike.

Agents are measured before and after each adaptation step. A policy without adaptation steps, such
as a reference, takes as many consecutive episodes in one rollout of each task, and is measured at
the same episodes.

Axes: `P` points of experience, `N` tasks (`n` of one batch), `K` adaptation steps, `E` episodes of
a phase, `B` rollouts of each task, `S` logged steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from metarl.agent import Agent, Policy
from metarl.errors import ConfigError
from metarl.field_types import kind_of
from metarl.results.adaptation_curves import Curve
from metarl.results.step_log import MAX_COMPONENTS, StepLog
from metarl.rollout import RolloutSpec, RolloutStorage, collect, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.family import Split, TaskDistribution, draw_tasks
from metarl.training.memory_needed import require_available
from metarl.training.process import torch_threads
from metarl.trajectory import Trajectory, episode_start

TASKS_PER_BATCH = 2500
"""most tasks that are rolled out at once; no batch size changes a number"""
MAX_TRANSITIONS = 500_000
"""most transitions of a phase that an agent adapts to at once"""
MAX_DENSE_EPISODES = 100
"""up to this number, references are measured at every episode, not only where the agent is"""
MAX_BYTES = 10**9
"""most experience that is held at once"""

LOGGED_TASKS, LOGGED_ROLLOUTS = 6, 3
"""the first tasks, and rollouts of each, of which every step is logged"""

PolicyBuilder: TypeAlias = Callable[[Tensor], Policy]
"""makes the policy for the tasks [N, ...] in which it acts"""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How an agent takes experience in a task, and at which episodes it is measured."""

    steps: int  # K; before, between and after them are K + 1 phases
    rollouts_per_task: int  # B
    episodes: int  # E

    @property
    def points(self) -> NDArray[np.int64]:
        """[P] the measured episodes of experience, counted from 1.

        Rollouts of a phase share the experience of the phases before, so the first episode of
        phase k is the one after k * B * E others.
        """
        before = self.rollouts_per_task * self.episodes * np.arange(self.steps + 1)
        return (before[:, None] + np.arange(1, self.episodes + 1)).reshape(-1)

    @property
    def total_episodes(self) -> int:
        """Episodes of experience at the last point: (K * B + 1) * E."""
        return int(self.points[-1])

    @property
    def reference_points(self) -> NDArray[np.int64]:
        """The episodes at which references are measured: all, unless they are many."""
        total = self.total_episodes
        return np.arange(1, total + 1) if total <= MAX_DENSE_EPISODES else self.points


@dataclass(frozen=True)
class Measurement:
    """One agent or policy in all tasks of an evaluation."""

    curve: Curve
    log: StepLog


def join_measurements(parts: Sequence[Measurement]) -> Measurement:
    """The measurements of one policy after different amounts of experience, as one."""

    def join(pieces: Sequence[Any]) -> dict[str, Any]:
        return {
            field.name: np.concatenate([getattr(piece, field.name) for piece in pieces])
            if isinstance(getattr(pieces[0], field.name), np.ndarray)
            else getattr(pieces[0], field.name)
            for field in fields(pieces[0])
        }

    curve = Curve(**join([part.curve for part in parts]))
    return Measurement(curve, StepLog(**join([part.log for part in parts])))


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """The tasks of an evaluation, and how agents and policies are measured in them.

    Equal protocols give equal tasks and equal environment noise to everything they measure.
    """

    family: TaskDistribution
    num_tasks: int
    seed: int
    split: Split
    device: str
    threads: int = 1
    workers: int | None = None

    def measure_agent(
        self,
        agent: Agent,
        schedule: Schedule,
        columns: Mapping[str, str],
        *,
        keep_next_obs: bool = False,
    ) -> Measurement:
        """The agent before and after each adaptation step.

        Args:
            agent: trained.
            schedule: its adaptation steps and the experience of each.
            columns: run, agent, role, label and family of the results.
            keep_next_obs: whether the agent reads it.
        """
        storage = RolloutStorage()

        def roll_out(tasks: Tensor, seeds: Seeds, first_task: int) -> list[Trajectory]:
            spec = RolloutSpec(
                episodes=schedule.episodes,
                rollouts_per_task=schedule.rollouts_per_task,
                workers=self.workers,
                keep_next_obs=keep_next_obs or first_task == 0,  # the first tasks are logged
            )
            return rollout_phases(
                agent,
                self.family,
                tasks,
                adaptation_steps=schedule.steps,
                spec=spec,
                seeds=seeds,
                first_task=first_task,
                storage=storage,
            ).trajectories

        limit = self._tasks_per_batch(schedule.episodes, schedule.rollouts_per_task)
        if schedule.steps:
            phase = schedule.rollouts_per_task * schedule.episodes * self.family.episode_steps
            limit = min(limit, max(1, MAX_TRANSITIONS // phase))
        return self._measure(roll_out, schedule.episodes, limit, schedule.points, columns)

    def measure_policy(
        self,
        build: PolicyBuilder,
        points: NDArray[np.int64],
        columns: Mapping[str, str],
        *,
        experience: int = 0,
        stage: int = 0,
        logged: NDArray[np.int64] | None = None,
    ) -> Measurement:
        """A policy in consecutive episodes of one rollout of each task.

        Args:
            build: makes the policy for a batch of tasks.
            points: [P] the episodes that are measured, counted from 1; the last one is its last.
            columns: run, agent, role, label and family of the results.
            experience: episodes that the policy had in the task before; counted with full length.
            logged: the episodes whose steps are logged; by default `points`.
            stage: number of this amount of experience, the `phase` of the logged steps.
        """
        episodes, storage = int(points[-1]), RolloutStorage()

        def roll_out(tasks: Tensor, seeds: Seeds, first_task: int) -> list[Trajectory]:
            trajectory = collect(
                self.family,
                tasks,
                _built(build, tasks),
                episodes=episodes,
                seeds=seeds.child("phase", 0),
                first_task=first_task,
                workers=self.workers,
                keep_next_obs=first_task == 0,
                storage=storage,
            )
            return [trajectory]

        limit = self._tasks_per_batch(episodes, 1)
        found = self._measure(roll_out, episodes, limit, points, columns, logged)
        return _after_experience(found, experience, stage, self.family.episode_steps)

    def _tasks_per_batch(self, episodes: int, rollouts_per_task: int) -> int:
        """Tasks that fit into memory, and into the lanes that the family allows."""
        steps = episodes * self.family.episode_steps
        limit = MAX_BYTES // (rollouts_per_task * steps * _transition_bytes(self.family))
        if self.family.max_lanes is not None:
            limit = min(limit, self.family.max_lanes // rollouts_per_task)
        return max(1, min(TASKS_PER_BATCH, limit))

    def _measure(
        self,
        roll_out: Callable[[Tensor, Seeds, int], list[Trajectory]],
        episodes: int,
        tasks_per_batch: int,
        points: NDArray[np.int64],
        columns: Mapping[str, str],
        logged: NDArray[np.int64] | None = None,
    ) -> Measurement:
        logged = points if logged is None else logged
        each = 4 * prod(self.family.task_space.shape or (1,)) + 3 * 8 * len(points)
        require_available(
            self.num_tasks * each,
            "cpu",
            f"The results in {self.num_tasks:,} tasks need",
            ". Use fewer --num-tasks.",
        )
        seeds = Seeds(self.seed).child("evaluation")
        generator = seeds.torch(f"{self.split} tasks")  # on the CPU: the same on every device
        drawn = draw_tasks(self.family, self.num_tasks, generator, self.split)
        tasks = drawn.to(self.device)
        identity: dict[str, Any] = {**columns, "split": self.split, "seed": self.seed}
        parts: list[dict[str, NDArray[np.float64]]] = []
        log: dict[str, Any] = {}
        for start in range(0, self.num_tasks, tasks_per_batch):
            with torch_threads(self.threads):
                phases = roll_out(tasks[start : start + tasks_per_batch], seeds, start)
            parts.append(self._numbers(phases, episodes, points))
            log = log or self._logged_steps(phases, episodes, logged, tasks)
        numbers: dict[str, Any] = {
            name: np.concatenate([p[name] for p in parts], 1) for name in parts[0]
        }
        return Measurement(Curve(**identity, episode=points, **numbers), StepLog(**identity, **log))

    def _numbers(
        self, phases: Sequence[Trajectory], episodes: int, points: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """The numbers of a curve in one batch of tasks: means over the rollouts of each phase."""
        episode, env_steps, returns, success = [], [], [], []
        episodes_before, steps_before = 0, torch.zeros(())
        for phase in phases:
            lengths = phase.episode_lengths(episodes).double().cpu()
            episode.append(episodes_before + 1 + np.arange(episodes))
            env_steps.append(steps_before + lengths.cumsum(0).mean(-1))
            returns.append(phase.episode_returns(episodes).double().mean(-1).cpu())
            success.append(phase.episode_success(episodes).double().mean(-1).cpu())
            episodes_before += episodes * phase.valid.shape[2]
            steps_before = steps_before + lengths.sum((0, 2))
        every = np.concatenate(episode)
        measured = np.isin(every, points)
        solved = torch.cat(success).numpy()
        if not self.family.defines_success:
            solved = np.full_like(solved, np.nan)
        return {
            "env_steps": torch.cat(env_steps).numpy()[measured],
            "returns": torch.cat(returns).numpy()[measured],
            "success": solved[measured],
        }

    def _logged_steps(
        self,
        phases: Sequence[Trajectory],
        episodes: int,
        points: NDArray[np.int64],
        tasks: Tensor,
    ) -> dict[str, Any]:
        """Every step of the first tasks and rollouts in measured episodes: columns of a log."""
        episodes_before, parts = 0, []
        for number, phase in enumerate(phases):
            columns = _columns(phase)
            columns["episode"] += episodes_before + 1
            columns["phase"] = torch.full_like(columns["task"], number)
            parts.append(columns)
            episodes_before += episodes * phase.valid.shape[2]
        log: dict[str, Any] = {
            name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]
        }
        measured = np.isin(log["episode"], points)
        log = {name: column[measured] for name, column in log.items()}
        if not self.family.defines_success:
            log["success"] = np.full_like(log["success"], np.nan)
        first = tasks[:LOGGED_TASKS]
        expected = self.family.expected_rewards(first)
        log["parameter"] = _vectors(first)[log["task"]]
        unknown = torch.zeros(len(first), 0)
        log["expected_reward"] = _vectors(unknown if expected is None else expected)[log["task"]]
        space = self.family.action_space
        log["num_actions"] = int(space.n) if isinstance(space, spaces.Discrete) else None
        return log


def _built(build: PolicyBuilder, tasks: Tensor) -> Policy:
    """The policy for some tasks, checked to be one."""
    policy = build(tasks)
    if not (hasattr(policy, "act") and hasattr(policy, "initial_memory")):
        raise ConfigError(
            f"The function that builds the policy returned {kind_of(policy)}. A policy has the "
            "methods initial_memory(lanes, horizon) and act(percept, memory, noise): see "
            "metarl.Policy."
        )
    return policy


def _after_experience(found: Measurement, before: int, stage: int, steps: int) -> Measurement:
    """The same measurement after `before` episodes of `steps` steps each, as phase `stage`."""
    curve, log = vars(found.curve), vars(found.log)
    return Measurement(
        Curve(
            **curve
            | {
                "episode": found.curve.episode + before,
                "env_steps": found.curve.env_steps + before * steps,
            }
        ),
        StepLog(
            **log
            | {"episode": found.log.episode + before, "phase": np.full_like(found.log.phase, stage)}
        ),
    )


def _transition_bytes(family: TaskDistribution) -> int:
    """About the memory of one transition in a trajectory, with what is computed of it."""
    observation, action = (
        prod(space.shape or ()) for space in (family.observation_space, family.action_space)
    )
    return 8 * observation + 8 * action + 64


def _columns(phase: Trajectory) -> dict[str, Tensor]:
    """The steps of the first tasks and rollouts, [S, ...] each, in the order of tasks, rollouts."""
    few = slice(None), slice(LOGGED_TASKS), slice(LOGGED_ROLLOUTS)
    valid = phase.valid[few]
    time, task, rollout = (
        part.expand_as(valid)
        for part in torch.meshgrid(
            *(torch.arange(size, device=valid.device) for size in valid.shape), indexing="ij"
        )
    )
    start = episode_start(phase.first[few])
    whole = {
        "task": task,
        "rollout": rollout,
        "episode": phase.episode[few],
        "step": time - start + 1,
    }
    assert phase.next_obs is not None
    parts = {
        "reward": phase.reward[few],
        "success": phase.success[few],
        "observation": _narrow(phase.obs[few].flatten(3)),
        "action": _narrow(phase.action[few].reshape(*valid.shape, -1)),
        "next_observation": _narrow(phase.next_obs[few].flatten(3)),
    }
    order = valid.permute(1, 2, 0)
    return {
        name: part.movedim(0, 2)[order]
        for name, part in (whole | {name: part.double() for name, part in parts.items()}).items()
    }


def _vectors(values: Tensor) -> NDArray[np.float64]:
    """Flattened, [n, ...] -> [n, F]."""
    return _narrow(values.double().reshape(len(values), -1)).cpu().numpy()


def _narrow(vectors: Tensor) -> Tensor:
    """[..., F]; vectors of too many components are dropped, [..., 0]."""
    return vectors if vectors.shape[-1] <= MAX_COMPONENTS else vectors[..., :0]
