"""A run goes in, adaptation curves on unseen tasks come out, floor and ceiling beside them.

Axes: `P` points of experience, `N` tasks (`n` of one batch), `E` episodes of a phase, `B` copies.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.agent import Agent, Policy, require_positive
from metarl.errors import ConfigError, UnknownNameError
from metarl.progress import tracked
from metarl.records import Run, load_run
from metarl.registry import suggestion
from metarl.rollout import adaptation_phases, collect
from metarl.rows import FILE_NAME, Curve, write_curves
from metarl.seeding import Seeds
from metarl.tasks import Reference, Split, TaskFamily
from metarl.trajectory import Trajectory

TASKS_PER_BATCH = 2500
"""NOTE: part of what a seed means, since each batch draws its own streams"""


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
    copies), so that curves can be compared task by task. Writes `adaptation.csv` into the run.

    Args:
        run: a run or its folder.
        num_tasks: tasks drawn from `split`.
        seed: of tasks and trials; independent of the training seed.
        episodes: episodes per phase; by default what the agent was trained with.
        split: "test", or "train" to look for a generalisation gap.
        references: names of floors and ceilings, True for all that the family has.
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

    def agent_curve() -> Curve:
        measured = trials.measured(trials.of_agent(agent, config.copies))
        name = label or config.label
        return _curve(run, trials, measured, run.config.agent, "agent", name)

    def reference_curve(name: str, reference: Reference) -> Curve:
        measured = trials.measured(trials.of_reference(reference))
        return _curve(run, trials, measured, name, reference.role, reference.label)

    curves = []
    for name in tracked(["", *chosen], f"evaluating {run.path.name}", enabled=progress):
        curves.append(reference_curve(name, chosen[name]) if name else agent_curve())
    write_curves(run.path / FILE_NAME, curves)
    return curves


@dataclass(frozen=True)
class _Measured:
    """What a curve shows."""

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
        generator = seeds.torch(f"{self.split} tasks", device=self.device)
        tasks = self.family.sample_tasks(self.num_tasks, generator, self.split)
        parts = [
            self._measure(live(tasks[start : start + TASKS_PER_BATCH], seeds.child("batch", start)))
            for start in range(0, self.num_tasks, TASKS_PER_BATCH)
        ]
        return _Measured(
            parts[0].episode,
            np.concatenate([part.env_steps for part in parts], 1),
            np.concatenate([part.returns for part in parts], 1),
            np.concatenate([part.success for part in parts], 1),
        )

    def _collect(self, tasks: Tensor, policy: Policy, copies: int, seeds: Seeds) -> Trajectory:
        return collect(
            self.family, tasks, policy, episodes=self.episodes, copies=copies, seeds=seeds
        )

    def _measure(self, phases: Sequence[Trajectory]) -> _Measured:
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
        return _Measured(
            np.concatenate(episode), torch.cat(steps).numpy(), torch.cat(returns).numpy(), solved
        )


def _curve(
    run: Run, trials: _Trials, measured: _Measured, agent: str, role: str, label: str
) -> Curve:
    return Curve(
        run=run.path.name if role == "agent" else "",
        agent=agent,
        role=role,
        label=label,
        family=run.config.family,
        split=trials.split,
        seed=trials.seed,
        **vars(measured),
    )


def _choose(
    known: Mapping[str, Reference], wanted: bool | Sequence[str]
) -> Mapping[str, Reference]:
    if isinstance(wanted, bool):
        return known if wanted else {}
    for name in wanted:
        if name not in known:
            raise UnknownNameError(
                f"The family has no reference {name!r}.{suggestion(name, known)} "
                f"Known: {', '.join(known) or 'none'}."
            )
    return {name: known[name] for name in wanted}
