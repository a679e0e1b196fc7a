"""Tasks and who lives in them go in, points of experience and logged steps come out.

Agents are measured before and after each adaptation step. A reference lives as long as the agent,
in one lane for each task, and is measured at the same episodes.

Axes: `P` points of experience, `N` tasks (`n` of one batch), `K` adaptation steps, `E` episodes of
a phase, `B` copies, `S` steps that are written down one by one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from metarl.agent import Agent
from metarl.results.step_log import MAX_COMPONENTS
from metarl.rollout import RolloutSpec, collect, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.family import Reference, Split, TaskDistribution, draw_tasks
from metarl.trajectory import Trajectory, opening

TASKS_PER_BATCH = 2500
"""NOTE: part of what a seed means, since each batch draws its own streams; so are the next two,
which make batches smaller where there are adaptation steps"""
MOST_ADAPTED_TO = 500_000
"""transitions of a phase that a gradient agent lives, and adapts to, at once"""
MOST_BYTES = 10**9
"""of the experience that a reference lives at once"""

LOGGED_TASKS, LOGGED_COPIES = 6, 3
"""of the first tasks and copies every step is written down, for pictures of single trials"""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How an agent lives in a task, and so at how much experience everybody is measured."""

    steps: int  # K; before, between and after them there are K + 1 phases
    rollouts_per_task: int  # B
    episodes: int  # E

    @property
    def points(self) -> NDArray[np.int64]:
        """[P] the episodes of experience that are measured, from 1 on.

        Copies within a phase share what was lived in the phases before, so the first episode of
        phase k is the one after k * B * E others.
        """
        before = self.rollouts_per_task * self.episodes * np.arange(self.steps + 1)
        return (before[:, None] + np.arange(1, self.episodes + 1)).reshape(-1)

    @property
    def longest(self) -> int:
        """Episodes of experience at the last point: (K * B + 1) * E."""
        return int(self.points[-1])


@dataclass(frozen=True)
class Points:
    """The numbers of a curve."""

    episode: NDArray[np.int64]  # [P]
    env_steps: NDArray[np.float64]  # [P, N]
    returns: NDArray[np.float64]  # [P, N]
    success: NDArray[np.float64]  # [P, N]


@dataclass(frozen=True)
class Measured:
    """What a curve shows, and what a picture of single trials shows."""

    curve: Points
    log: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Life:
    """How somebody lives in a batch of tasks."""

    live: Callable[[Tensor, Seeds], list[Trajectory]]  # the phases, from tasks [n, ...]
    episodes: int  # of each phase
    tasks_at_once: int  # n


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The tasks of an evaluation, and how lives in them are measured."""

    family: TaskDistribution
    schedule: Schedule
    num_tasks: int
    seed: int
    split: Split
    device: str
    workers: int | None = None

    def of_agent(self, agent: Agent) -> Life:
        """Lives before and after each adaptation step of the agent."""
        schedule = self.schedule
        transitions = schedule.rollouts_per_task * schedule.episodes * self.family.episode_steps

        spec = RolloutSpec(
            episodes=schedule.episodes,
            rollouts_per_task=schedule.rollouts_per_task,
            workers=self.workers,
        )

        def live(tasks: Tensor, seeds: Seeds) -> list[Trajectory]:
            return rollout_phases(
                agent, self.family, tasks, steps=schedule.steps, spec=spec, seeds=seeds
            ).trajectories

        return Life(
            live=live,
            episodes=schedule.episodes,
            tasks_at_once=self._at_once(MOST_ADAPTED_TO // transitions, schedule.rollouts_per_task),
        )

    def of_reference(self, reference: Reference) -> Life:
        """One life per task, as long as the agent's, of a policy that needs no training."""
        episodes = self.schedule.longest

        def live(tasks: Tensor, seeds: Seeds) -> list[Trajectory]:
            policy, seeds = reference.build(tasks), seeds.child("phase", 0)
            return [
                collect(
                    self.family,
                    tasks,
                    policy,
                    episodes=episodes,
                    seeds=seeds,
                    workers=self.workers,
                )
            ]

        life_bytes = episodes * self.family.episode_steps * _transition_bytes(self.family)
        return Life(
            live=live, episodes=episodes, tasks_at_once=self._at_once(MOST_BYTES // life_bytes, 1)
        )

    def measured(self, life: Life) -> Measured:
        """Lives in all tasks, batch by batch."""
        seeds = Seeds(self.seed).child("evaluation")
        generator = seeds.torch(f"{self.split} tasks")  # on the CPU: everywhere the same tasks
        drawn = draw_tasks(self.family, self.num_tasks, generator, self.split)
        tasks = drawn.to(self.device)
        parts, log = [], {}
        for start in range(0, self.num_tasks, life.tasks_at_once):
            batch = tasks[start : start + life.tasks_at_once]
            phases = life.live(batch, seeds.child("batch", start))
            parts.append(self._measure(phases, life.episodes))
            if start == 0:
                log = self._log(phases, life.episodes, tasks)
        points = Points(
            parts[0].episode,
            np.concatenate([part.env_steps for part in parts], 1),
            np.concatenate([part.returns for part in parts], 1),
            np.concatenate([part.success for part in parts], 1),
        )
        return Measured(points, log)

    def _at_once(self, most: int, copies: int) -> int:
        """Tasks of a batch; `most` counts only where there are adaptation steps."""
        lanes = self.family.max_lanes
        at_once = TASKS_PER_BATCH if lanes is None else max(1, lanes // copies)
        return min(at_once, max(1, most)) if self.schedule.steps else at_once

    def _measure(self, phases: Sequence[Trajectory], episodes: int) -> Points:
        """One batch of tasks: the mean over the copies of each phase, at the points alone."""
        episode, steps, returns, success = [], [], [], []
        lived_episodes, lived_steps = 0, torch.zeros(())
        for phase in phases:
            lengths = phase.episode_lengths(episodes).double().cpu()
            episode.append(lived_episodes + 1 + np.arange(episodes))
            steps.append(lived_steps + lengths.cumsum(0).mean(-1))
            returns.append(phase.episode_returns(episodes).double().mean(-1).cpu())
            success.append(phase.episode_success(episodes).double().mean(-1).cpu())
            lived_episodes += episodes * phase.valid.shape[2]
            lived_steps = lived_steps + lengths.sum((0, 2))
        lived = np.concatenate(episode)
        shown = np.isin(lived, self.schedule.points)
        solved = torch.cat(success).numpy()
        if not self.family.defines_success:
            solved = np.full_like(solved, np.nan)
        return Points(
            lived[shown],
            torch.cat(steps).numpy()[shown],
            torch.cat(returns).numpy()[shown],
            solved[shown],
        )

    def _log(self, phases: Sequence[Trajectory], episodes: int, tasks: Tensor) -> dict[str, Any]:
        """Every step of the first tasks and copies, at the points: the columns of a `StepLog`."""
        lived, parts = 0, []
        for number, phase in enumerate(phases):
            columns = _columns(phase)
            columns["episode"] += lived + 1
            columns["phase"] = torch.full_like(columns["task"], number)
            parts.append(columns)
            lived += episodes * phase.valid.shape[2]
        log: dict[str, Any] = {
            name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]
        }
        shown = np.isin(log["episode"], self.schedule.points)
        log = {name: column[shown] for name, column in log.items()}
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


def _transition_bytes(family: TaskDistribution) -> int:
    """About what one transition of a trajectory takes, with what is computed of it."""
    observation, action = (
        prod(space.shape or ()) for space in (family.observation_space, family.action_space)
    )
    return 8 * observation + 8 * action + 64


def _columns(phase: Trajectory) -> dict[str, Tensor]:
    """The steps lived in the first tasks and copies: task by task, copy by copy, [S, ...] each."""
    few = slice(None), slice(LOGGED_TASKS), slice(LOGGED_COPIES)
    valid = phase.valid[few]
    time, task, copy = (
        part.expand_as(valid)
        for part in torch.meshgrid(
            *(torch.arange(size, device=valid.device) for size in valid.shape), indexing="ij"
        )
    )
    opened = opening(phase.first[few])
    whole = {"task": task, "copy": copy, "episode": phase.episode[few], "step": time - opened + 1}
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
    """[..., F]; of too many components none is kept."""
    return vectors if vectors.shape[-1] <= MAX_COMPONENTS else vectors[..., :0]
