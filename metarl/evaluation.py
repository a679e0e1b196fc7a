"""A run goes in, adaptation curves on unseen tasks come out, floor and ceiling beside them.

Axes: `P` points of experience, `N` tasks (`n` of one batch), `E` episodes of a phase, `B` copies,
`S` steps that are written down one by one.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from metarl.agent import Agent, Policy, as_device, require_positive
from metarl.errors import ConfigError, UnknownNameError
from metarl.progress import tracked
from metarl.records import Run, load_run
from metarl.registry import suggestion
from metarl.rollout import adaptation_phases, collect
from metarl.rows import FILE_NAME, Curve, write_curves
from metarl.seeding import Seeds
from metarl.tasks import Reference, Split, TaskFamily, draw_tasks
from metarl.trajectory import Trajectory
from metarl.trials import FILE_NAME as TRIALS_FILE_NAME
from metarl.trials import MOST_COMPONENTS, TrialLog, write_trials

TASKS_PER_BATCH = 2500
"""NOTE: part of what a seed means, since each batch draws its own streams"""

LOGGED_TASKS, LOGGED_COPIES = 6, 3
"""of the first tasks and copies every step is written down, for pictures of single trials"""


def evaluate(
    run: Run | str | os.PathLike[str],
    *,
    num_tasks: int = 1000,
    seed: int = 0,
    episodes: int | None = None,
    split: Split = "test",
    references: bool | Sequence[str] = True,
    label: str | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> list[Curve]:
    """Lives the final agent of a run, and the family's floors and ceilings, in unseen tasks.

    Every agent meets the same tasks and the same world noise (given equal `seed`, `num_tasks` and
    copies), so that curves can be compared task by task. Writes `adaptation.csv` into the run, and
    `trials.csv` with every step that was lived in the first few of those tasks.

    Args:
        run: a run or its folder.
        num_tasks: tasks drawn from `split`.
        seed: of tasks and trials; independent of the training seed.
        episodes: episodes per phase; by default what the agent was trained with.
        split: "test", or "train" to look for a generalisation gap.
        references: names of floors, baselines and ceilings; True for those that the family shows
            by default, ["all"] for all that it has.
        label: how the legend calls the agent; by default what its configuration says.
        device: torch device to live on.
        progress: show a progress bar.

    Returns:
        The agent's curve, then one for each reference.

    Raises:
        RunFolderError: no run is there.
        CheckpointError: it has not learnt yet, or its checkpoint is broken or foreign.
        UnknownNameError: the family has no such reference.
        ConfigError: a number is not positive, or the split unknown.
    """
    require_positive("num_tasks", num_tasks)
    require_positive("episodes", episodes)
    as_device(device)
    if split not in ("train", "test"):
        raise ConfigError(f"split={split!r} must be 'train' or 'test'.")
    run = run if isinstance(run, Run) else load_run(run)
    family = run.config.make_family()
    config = run.config.make_agent_config()
    agent = run.make_agent(family, device)
    run.load(agent)
    episodes = episodes or config.episodes or family.trial_episodes
    trials = _Trials(family, num_tasks, episodes, seed, split, device)
    chosen = _choose(family.references(episodes), references)

    curves, logs = [], []
    who: tuple[str, str, str]
    for name in tracked(["", *chosen], f"evaluating {run.path.name}", enabled=progress):
        if name:
            measured = trials.measured(trials.of_reference(chosen[name]))
            who = name, chosen[name].role, chosen[name].label
        else:
            measured = trials.measured(trials.of_agent(agent, config.copies))
            who = run.config.agent, "agent", label or config.label
        names = _names(run, trials, *who)
        curves.append(Curve(**names, **vars(measured.curve)))
        logs.append(TrialLog(**names, **measured.log))
    write_curves(run.path / FILE_NAME, curves)
    write_trials(run.path / TRIALS_FILE_NAME, logs)
    return curves


@dataclass(frozen=True)
class _Measured:
    """What a curve shows, and what a picture of single trials shows."""

    curve: "_Points"
    log: dict[str, Any]


@dataclass(frozen=True)
class _Points:
    """The numbers of a curve."""

    episode: NDArray[np.int64]  # [P]
    env_steps: NDArray[np.float64]  # [P, N]
    returns: NDArray[np.float64]  # [P, N]
    success: NDArray[np.float64]  # [P, N]


@dataclass(frozen=True)
class _Trials:
    """The tasks of an evaluation, and how lives in them are measured."""

    family: TaskFamily
    num_tasks: int
    episodes: int
    seed: int
    split: Split
    device: str

    def of_agent(self, agent: Agent, copies: int) -> Callable[[Tensor, Seeds], list[Trajectory]]:
        """Lives before and after each adaptation step of the agent."""

        def live(tasks: Tensor, seeds: Seeds) -> list[Trajectory]:
            def live_phase(policy: Policy, step: int) -> Trajectory:
                return self._collect(tasks, policy, copies, seeds.child("phase", step))

            return adaptation_phases(agent, len(tasks), live_phase, agent.adaptation_steps)

        return live

    def of_reference(self, reference: Reference) -> Callable[[Tensor, Seeds], list[Trajectory]]:
        """One life per task of a policy that needs no training."""
        return lambda tasks, seeds: [
            self._collect(tasks, reference.build(tasks), 1, seeds.child("phase", 0))
        ]

    def measured(self, live: Callable[[Tensor, Seeds], list[Trajectory]]) -> _Measured:
        """Lives in all tasks, batch by batch."""
        seeds = Seeds(self.seed).child("evaluation")
        generator = seeds.torch(f"{self.split} tasks")  # on the CPU: everywhere the same tasks
        drawn = draw_tasks(self.family, self.num_tasks, generator, self.split)
        tasks = drawn.to(self.device)
        parts, log = [], {}
        for start in range(0, self.num_tasks, TASKS_PER_BATCH):
            phases = live(tasks[start : start + TASKS_PER_BATCH], seeds.child("batch", start))
            parts.append(self._measure(phases))
            if start == 0:
                log = self._log(phases, tasks)
        points = _Points(
            parts[0].episode,
            np.concatenate([part.env_steps for part in parts], 1),
            np.concatenate([part.returns for part in parts], 1),
            np.concatenate([part.success for part in parts], 1),
        )
        return _Measured(points, log)

    def _collect(self, tasks: Tensor, policy: Policy, copies: int, seeds: Seeds) -> Trajectory:
        return collect(
            self.family, tasks, policy, episodes=self.episodes, copies=copies, seeds=seeds
        )

    def _measure(self, phases: Sequence[Trajectory]) -> _Points:
        """One batch of tasks.

        Copies within a phase share what was lived in the phases before, so the first episode of
        phase k is the one after k * B * E others; the mean over copies is reported.
        """
        episode, steps, returns, success = [], [], [], []
        lived_episodes, lived_steps = 0, torch.zeros(())
        for phase in phases:
            lengths = phase.episode_lengths(self.episodes).double().cpu()
            episode.append(lived_episodes + 1 + np.arange(self.episodes))
            steps.append(lived_steps + lengths.cumsum(0).mean(-1))
            returns.append(phase.episode_returns(self.episodes).double().mean(-1).cpu())
            success.append(phase.episode_success(self.episodes).double().mean(-1).cpu())
            lived_episodes += self.episodes * phase.valid.shape[2]
            lived_steps = lived_steps + lengths.sum((0, 2))
        solved = torch.cat(success).numpy()
        if not self.family.defines_success:
            solved = np.full_like(solved, np.nan)
        return _Points(
            np.concatenate(episode), torch.cat(steps).numpy(), torch.cat(returns).numpy(), solved
        )

    def _log(self, phases: Sequence[Trajectory], tasks: Tensor) -> dict[str, Any]:
        """Every step of the first tasks and copies: the columns of a `TrialLog`."""
        lived, parts = 0, []
        for number, phase in enumerate(phases):
            columns = _columns(phase)
            columns["episode"] += lived + 1
            columns["phase"] = torch.full_like(columns["task"], number)
            parts.append(columns)
            lived += self.episodes * phase.valid.shape[2]
        log: dict[str, Any] = {
            name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]
        }
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
    opened = torch.where(phase.first[few], time, 0).cummax(0).values
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
    return vectors if vectors.shape[-1] <= MOST_COMPONENTS else vectors[..., :0]


def _names(run: Run, trials: _Trials, agent: str, role: str, label: str) -> dict[str, Any]:
    return {
        "run": run.path.name if role == "agent" else "",
        "agent": agent,
        "role": role,
        "label": label,
        "family": run.config.family,
        "split": trials.split,
        "seed": trials.seed,
    }


def _choose(
    known: Mapping[str, Reference], wanted: bool | Sequence[str]
) -> Mapping[str, Reference]:
    if isinstance(wanted, bool):
        return {name: known[name] for name in known if wanted and known[name].by_default}
    wanted = list(known) if list(wanted) == ["all"] else wanted
    for name in wanted:
        if name not in known:
            raise UnknownNameError(
                f"The family has no reference {name!r}.{suggestion(name, known)} "
                f"Known: {', '.join(known) or 'none'}."
            )
    return {name: known[name] for name in wanted}
