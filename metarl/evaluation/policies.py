"""Anybody's policy goes in, its curve comes out, in the tasks in which `evaluate` measures agents.

Axes: `P` points of experience, `N` tasks; `E` episodes in a row.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl.agent import Policy
from metarl.errors import ConfigError, RunFolderError
from metarl.evaluation.agents import require_measurable, select_references
from metarl.evaluation.protocol import Measured, Points, Schedule, Trials
from metarl.registry import make_family, name_of
from metarl.results.curves import FILE_NAME, Curve, describe_family, write_curves
from metarl.results.step_log import FILE_NAME as TRIALS_FILE_NAME
from metarl.results.step_log import TrialLog, write_trials
from metarl.tasks.family import Reference, Split, TaskDistribution
from metarl.training.progress import tracked

Build: TypeAlias = Callable[[Tensor], Policy]
"""makes the policy for the tasks [N, ...] that it will live in"""


def evaluate_policy(
    policy: Build | Mapping[int, Build],
    task: str | TaskDistribution,
    *,
    agent: str,
    label: str | None = None,
    episodes: int | None = None,
    num_tasks: int = 1000,
    seed: int = 0,
    split: Split = "test",
    references: bool | Sequence[str] = False,
    out: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    progress: bool = False,
    **options: Any,
) -> list[Curve]:
    """Lives with any policy in unseen tasks, the very ones in which `evaluate` measures agents.

    A policy is handed over as a function that makes it for given tasks [N, ...]: it may hold
    parameters of its own for each of them, and be told them or not. Who learns in a task outside
    the engine, such as PPO started anew in each, is measured at several amounts of experience:
    `{0: before, 100: after_100, 1000: after_1000}` are functions by the episodes of experience that
    came before, called in this order with the same tasks, so that the next one can go on from
    where the one before stopped. (Of more than 2500 tasks each lives in 2500 at a time.)

    Args:
        policy: makes the policy, or several that do by the experience that each has.
        task: id of a family, or a family.
        agent: name of the agent in the rows, such as `ppo`.
        label: how legends call it; by default its name.
        episodes: E, that are lived in a row and measured; by default what the family says.
        num_tasks: tasks drawn from `split`.
        seed: of tasks and trials; with equal `seed` and `num_tasks` they are those of `evaluate`.
        split: "test", or "train" to look for a generalisation gap.
        references: as in `evaluate`; measured at the same episodes.
        out: folder for `adaptation.csv` and `trials.csv`, which `metarl.plot` and `metarl.compare`
            take like a run's. By default nothing is written.
        device: torch device to live on.
        progress: show a progress bar.
        options: fields of the family, where `task` is an id.

    Returns:
        The policy's curve, then one for each reference. Experience before a point counts as whole
        episodes of the family's full length in `env_steps`.

    Raises:
        ConfigError: a number is not positive, an option unknown, or amounts of experience are
            negative or nearer to each other than the episodes measured at each.
        RunFolderError: `out` is the folder of a run, whose own agent is measured there.
        UnknownNameError: unknown id or reference.
    """
    require_measurable(num_tasks, episodes, device, split)
    family, folder = _family(task, options), None if out is None else _folder(Path(out))
    each = episodes or family.trial_episodes
    stages = dict(policy) if isinstance(policy, Mapping) else {0: policy}
    _require_apart(list(stages), each)

    own = Trials(
        family=family,
        schedule=Schedule(steps=0, rollouts_per_task=1, episodes=each),
        num_tasks=num_tasks,
        seed=seed,
        split=split,
        device=device,
    )
    points = np.concatenate([before + np.arange(1, each + 1) for before in stages])
    beside = _as_long(own, int(points[-1]))
    chosen = select_references(family, beside.schedule, references)
    names: dict[str, Any] = {
        "run": folder.name if folder else agent,
        "agent": agent,
        "role": "agent",
        "label": label or agent,
        "family": describe_family(*name_of(family)),
        "split": split,
        "seed": seed,
    }
    measured = _stages(own, stages, progress)
    curves, logs = [_curve(names, measured)], [_log(names, measured)]
    for name, reference in chosen.items():
        of_reference = {"run": "", "agent": name, "role": reference.role, "label": reference.label}
        shown = [_at(beside.measured(beside.of_reference(reference)), points)]
        curves.append(_curve(names | of_reference, shown))
        logs.append(_log(names | of_reference, shown))
    if folder:
        _write(folder, curves, logs)
    return curves


def _family(task: str | TaskDistribution, options: Mapping[str, Any]) -> TaskDistribution:
    if isinstance(task, str):
        return make_family(task, **options)
    if options:
        raise ConfigError(
            f"{', '.join(options)} would be options of a family, but the family was given itself; "
            "build it with them."
        )
    return task


def _folder(path: Path) -> Path:
    if (path / "config.json").exists():
        raise RunFolderError(
            f"{path} is the folder of a run, and its adaptation.csv is that of its own agent; give "
            "this policy a folder of its own."
        )
    return path


def _require_apart(before: Sequence[int], episodes: int) -> None:
    """Raises `ConfigError` unless no episode of experience would be measured twice."""
    apart = all(one + episodes <= two for one, two in pairwise(before))
    if not before or before[0] < 0 or not apart:
        raise ConfigError(
            f"Amounts of experience must not be negative and rise by at least the {episodes} "
            f"episode(s) that are measured at each; got {list(before)}."
        )


def _as_long(trials: Trials, episodes: int) -> Trials:
    """In which references live so many episodes in a row, and are measured at each."""
    if episodes == trials.schedule.episodes:
        return trials  # as beside any agent without adaptation steps
    return replace(trials, schedule=Schedule(steps=episodes - 1, rollouts_per_task=1, episodes=1))


def _stages(trials: Trials, stages: Mapping[int, Build], progress: bool) -> list[Measured]:
    """What is lived after each amount of experience, in order."""
    measured = []
    for number, before in enumerate(tracked(list(stages), "evaluating", enabled=progress)):
        # A reference lives in one lane for each task, and is built when it is told which.
        stage = Reference(role="baseline", label="", build=stages[before])
        found = trials.measured(trials.of_reference(stage))
        measured.append(_later(found, before, number, trials.family.episode_steps))
    return measured


def _write(folder: Path, curves: Sequence[Curve], logs: Sequence[TrialLog]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_curves(folder / FILE_NAME, curves)
    write_trials(folder / TRIALS_FILE_NAME, logs)


def _later(found: Measured, before: int, number: int, episode_steps: int) -> Measured:
    """The same with so much experience before; `number` counts such measurements."""
    points, log = found.curve, dict(found.log)
    log["episode"] = log["episode"] + before
    log["phase"] = np.full_like(log["phase"], number)
    moved = Points(
        points.episode + before,
        points.env_steps + before * episode_steps,
        points.returns,
        points.success,
    )
    return Measured(moved, log)


def _at(found: Measured, episodes: NDArray[np.int64]) -> Measured:
    """Some of the episodes measured."""
    points, shown = found.curve, np.isin(found.curve.episode, episodes)
    some = Points(*(part[shown] for part in vars(points).values()))
    steps = np.isin(found.log["episode"], episodes)
    log = {
        name: part[steps] if isinstance(part, np.ndarray) else part
        for name, part in found.log.items()
    }
    return Measured(some, log)


def _curve(names: Mapping[str, Any], parts: Sequence[Measured]) -> Curve:
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part.curve, name) for part in parts])
        for name in vars(parts[0].curve)
    }
    return Curve(**names, **joined)


def _log(names: Mapping[str, Any], parts: Sequence[Measured]) -> TrialLog:
    joined: dict[str, Any] = {
        name: np.concatenate([part.log[name] for part in parts])
        if isinstance(column, np.ndarray)
        else column
        for name, column in parts[0].log.items()
    }
    return TrialLog(**names, **joined)
