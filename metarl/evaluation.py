"""A run goes in, adaptation curves on unseen tasks come out, floor and ceiling beside them."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.agent import Policy, require_positive
from metarl.errors import ConfigError, UnknownNameError
from metarl.progress import tracked
from metarl.records import Run, load_run
from metarl.registry import suggestion
from metarl.rollout import adaptation_phases, collect
from metarl.rows import Curve, write_curves
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
        device: torch device to live on.
        progress: show a progress bar.

    Returns:
        The agent's curve, then one for each reference.
    """
    require_positive("num_tasks", num_tasks)
    if split not in ("train", "test"):
        raise ConfigError(f"split={split!r} must be 'train' or 'test'.")
    run = run if isinstance(run, Run) else load_run(run)
    family = run.config.make_family()
    config = run.config.make_agent_config()
    agent = run.make_agent(family, device)
    run.load(agent)
    episodes = episodes or config.episodes or family.trial_episodes
    chosen = _choose(family, episodes, references)

    def live_agent(tasks: Tensor, seeds: Seeds) -> list[Trajectory]:
        def live(policy: Policy, step: int) -> Trajectory:
            return collect(
                family,
                tasks,
                policy,
                episodes=episodes,
                copies=config.copies,
                seeds=seeds.child("phase", step),
            )

        return adaptation_phases(agent, len(tasks), live, agent.adaptation_steps)

    def live_reference(reference: Reference) -> Lives:
        def live(tasks: Tensor, seeds: Seeds) -> list[Trajectory]:
            policy = reference.build(tasks)
            return [
                collect(family, tasks, policy, episodes=episodes, seeds=seeds.child("phase", 0))
            ]

        return live

    def measure(lives: Lives, name: str, role: str, label: str) -> Curve:
        batches = _batches(family, num_tasks, seed, split, device)
        measured = [_measure(lives(*batch), episodes, family) for batch in batches]
        points, steps, returns, success = zip(*measured, strict=True)
        return Curve(
            run=run.path.name if role == "agent" else "",
            agent=name,
            role=role,
            label=label,
            family=run.config.task,
            split=split,
            seed=seed,
            episode=points[0],
            env_steps=np.concatenate(steps, 1),
            returns=np.concatenate(returns, 1),
            success=np.concatenate(success, 1),
        )

    entries: list[tuple[Lives, str, str, str]] = [
        (live_agent, run.config.agent, "agent", run.config.agent)
    ]
    entries += [(live_reference(r), name, r.role, r.label) for name, r in chosen.items()]
    title = f"evaluating {run.path.name}"
    curves = [measure(*entry) for entry in tracked(entries, title, enabled=progress)]
    write_curves(run.path / "adaptation.csv", curves)
    return curves


Lives: TypeAlias = Callable[[Tensor, Seeds], list[Trajectory]]
"""lives whole trials in tasks [n, ...]; one trajectory before and after each adaptation step"""


def _choose(
    family: TaskFamily, episodes: int, references: bool | Sequence[str]
) -> Mapping[str, Reference]:
    known = family.references(episodes)
    if isinstance(references, bool):
        return known if references else {}
    for name in references:
        if name not in known:
            raise UnknownNameError(
                f"{type(family).__name__} has no reference {name!r}.{suggestion(name, known)} "
                f"Known: {', '.join(known) or 'none'}."
            )
    return {name: known[name] for name in references}


def _batches(
    family: TaskFamily, num_tasks: int, seed: int, split: Split, device: str
) -> Iterator[tuple[Tensor, Seeds]]:
    """The tasks of an evaluation in manageable parts, each with streams of its own."""
    seeds = Seeds(seed).child("evaluation")
    tasks = family.sample_tasks(num_tasks, seeds.torch(f"{split} tasks", device=device), split)
    for index, start in enumerate(range(0, num_tasks, TASKS_PER_BATCH)):
        yield tasks[start : start + TASKS_PER_BATCH], seeds.child("batch", index)


def _measure(
    phases: Sequence[Trajectory], episodes: int, family: TaskFamily
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Episode [P], environment steps, return and success [P, n] of one batch of tasks.

    Copies within a phase share what was lived in the phases before, so the k-th phase shows the
    episode after k * B * E others; their mean is reported.
    """
    episode, steps, returns, success = [], [], [], []
    lived_episodes, lived_steps = 0, torch.zeros(())
    for phase in phases:
        lengths = phase.episode_lengths(episodes).double()
        episode.append(lived_episodes + 1 + np.arange(episodes))
        steps.append(lived_steps + lengths.cumsum(0).mean(-1).cpu())
        returns.append(phase.episode_returns(episodes).double().mean(-1).cpu())
        success.append(phase.episode_success(episodes).double().mean(-1).cpu())
        lived_episodes += episodes * phase.valid.shape[2]
        lived_steps = lived_steps + lengths.sum((0, 2)).cpu()
    solved = torch.cat(success).numpy()
    if not family.defines_success:
        solved = np.full_like(solved, np.nan)
    return np.concatenate(episode), torch.cat(steps).numpy(), torch.cat(returns).numpy(), solved
