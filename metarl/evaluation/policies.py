"""Evaluation of any policy in the tasks in which `evaluate` measures agents.

Axes: `P` points of experience, `N` tasks; `E` consecutive episodes.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl.agent import Policy
from metarl.errors import ConfigError, RunFolderError
from metarl.evaluation.agents import select_references
from metarl.evaluation.options import EvaluationOptions
from metarl.evaluation.protocol import Measured, Points, Schedule, Trials
from metarl.registry import name_of, resolve_family
from metarl.results.curves import ADAPTATION_FILE, Curve, describe_family, write_curves
from metarl.results.step_log import STEPS_FILE, StepLog, write_step_logs
from metarl.tasks.family import Reference, TaskDistribution
from metarl.training.progress import tracked
from metarl.validation import as_device

PolicyBuilder: TypeAlias = Callable[[Tensor], Policy]
"""makes the policy for the tasks [N, ...] in which it acts"""

DEFAULTS = EvaluationOptions(references=("none",))


def evaluate_policy(
    policy: PolicyBuilder | Mapping[int, PolicyBuilder],
    task: str | TaskDistribution,
    *,
    agent: str,
    out: str | os.PathLike[str] | None = None,
    options: EvaluationOptions | None = None,
    **overrides: Any,
) -> list[Curve]:
    """Evaluates any policy in unseen tasks, the same in which `evaluate` measures agents.

    The policy is given as a function that builds it for tasks [N, ...]; it may hold parameters for
    each of them, and may depend on the task or not. A learner that trains in each task outside the
    engine, such as PPO from scratch, is measured at several amounts of experience:
    `{0: before, 100: after_100, 1000: after_1000}` maps the episodes of experience to functions,
    which are called in this order with the same tasks, so each can continue from the one before.
    (More than 2500 tasks are evaluated in batches of 2500.)

    Args:
        policy: builds the policy, or one policy for each amount of experience.
        task: id of a family, or a family.
        agent: name of the agent in the rows, such as `ppo`; also its default label.
        out: folder for `adaptation.csv` and `trials.csv`, which `metarl.plot` and `metarl.compare`
            accept like that of a run. By default nothing is written.
        options: tasks, references and device, as in `evaluate`, but by default without references
            and with `trial_episodes` of the family as `episodes`.
        overrides: fields of `EvaluationOptions`, and of the family where `task` is an id.

    Returns:
        The policy's curve, then one for each reference. Experience before a point counts as whole
        episodes of the family's full length in `env_steps`.

    Raises:
        ConfigError: a number is not positive, an option is unknown, or amounts of experience are
            negative or closer to each other than the number of episodes measured at each.
        RunFolderError: `out` is the folder of a run, whose agent is evaluated there.
        UnknownNameError: unknown id or reference.
    """
    options, family_options = _split(options or DEFAULTS, overrides)
    as_device(options.device)
    family = resolve_family(task, family_options)
    folder = None if out is None else _result_folder(Path(out))
    episodes = options.episodes or family.trial_episodes
    builders = dict(policy) if isinstance(policy, Mapping) else {0: policy}
    _require_spacing(list(builders), episodes)

    trials = Trials(
        family=family,
        schedule=Schedule(steps=0, rollouts_per_task=1, episodes=episodes),
        num_tasks=options.num_tasks,
        seed=options.seed,
        split=options.split,
        device=options.device,
        workers=options.workers,
    )
    points = np.concatenate([before + np.arange(1, episodes + 1) for before in builders])
    of_references = _with_length(trials, int(points[-1]))
    references = select_references(family, of_references.schedule, options.references)
    columns: dict[str, Any] = {
        "run": folder.name if folder else agent,
        "agent": agent,
        "role": "agent",
        "label": options.label or agent,
        "family": describe_family(*name_of(family)),
        "split": options.split,
        "seed": options.seed,
    }
    measured = _measure_stages(trials, builders, options.progress)
    curves, logs = [_curve(columns, measured)], [_log(columns, measured)]
    for name, reference in references.items():
        identity = {"run": "", "agent": name, "role": reference.role, "label": reference.label}
        found = of_references.measured(of_references.of_reference(reference))
        selected = [_at_episodes(found, points)]
        curves.append(_curve(columns | identity, selected))
        logs.append(_log(columns | identity, selected))
    if folder:
        _write(folder, curves, logs)
    return curves


def _split(
    options: EvaluationOptions, overrides: Mapping[str, Any]
) -> tuple[EvaluationOptions, dict[str, Any]]:
    """The options with the overrides among their fields, and the other overrides."""
    known = {field.name for field in fields(EvaluationOptions)}
    changed = {name: value for name, value in overrides.items() if name in known}
    others = {name: value for name, value in overrides.items() if name not in known}
    return replace(options, **changed), others


def _result_folder(path: Path) -> Path:
    if (path / "config.json").exists():
        raise RunFolderError(
            f"{path} is the folder of a run, and its adaptation.csv is that of the run's agent. "
            "Choose another folder for this policy with `out`."
        )
    return path


def _require_spacing(experience: Sequence[int], episodes: int) -> None:
    """Raises `ConfigError` if an episode of experience would be measured twice."""
    apart = all(one + episodes <= two for one, two in pairwise(experience))
    if not experience or experience[0] < 0 or not apart:
        raise ConfigError(
            f"Amounts of experience must not be negative and rise by at least the {episodes} "
            f"episode(s) that are measured at each; got {list(experience)}."
        )


def _with_length(trials: Trials, episodes: int) -> Trials:
    """The same trials for references: `episodes` consecutive episodes, each of them measured."""
    if episodes == trials.schedule.episodes:
        return trials  # as for any agent without adaptation steps
    return replace(trials, schedule=Schedule(steps=episodes - 1, rollouts_per_task=1, episodes=1))


def _measure_stages(
    trials: Trials, builders: Mapping[int, PolicyBuilder], progress: bool
) -> list[Measured]:
    """The results at each amount of experience, in order."""
    measured = []
    for stage, before in enumerate(tracked(list(builders), "evaluating", enabled=progress)):
        # Like a reference: one lane for each task, and a policy that is built from the tasks.
        policy = Reference(role="baseline", label="", build=builders[before])
        found = trials.measured(trials.of_reference(policy))
        measured.append(_after_experience(found, before, stage, trials.family.episode_steps))
    return measured


def _write(folder: Path, curves: Sequence[Curve], logs: Sequence[StepLog]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_curves(folder / ADAPTATION_FILE, curves)
    write_step_logs(folder / STEPS_FILE, logs)


def _after_experience(found: Measured, before: int, stage: int, episode_steps: int) -> Measured:
    """The same results, counted from `before` episodes of experience on, as phase `stage`."""
    points, log = found.curve, dict(found.log)
    log["episode"] = log["episode"] + before
    log["phase"] = np.full_like(log["phase"], stage)
    shifted = Points(
        points.episode + before,
        points.env_steps + before * episode_steps,
        points.returns,
        points.success,
    )
    return Measured(shifted, log)


def _at_episodes(found: Measured, episodes: NDArray[np.int64]) -> Measured:
    """The results at some of the measured episodes."""
    points, selected = found.curve, np.isin(found.curve.episode, episodes)
    curve = Points(*(part[selected] for part in vars(points).values()))
    steps = np.isin(found.log["episode"], episodes)
    log = {
        name: part[steps] if isinstance(part, np.ndarray) else part
        for name, part in found.log.items()
    }
    return Measured(curve, log)


def _curve(columns: Mapping[str, Any], parts: Sequence[Measured]) -> Curve:
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part.curve, name) for part in parts])
        for name in vars(parts[0].curve)
    }
    return Curve(**columns, **joined)


def _log(columns: Mapping[str, Any], parts: Sequence[Measured]) -> StepLog:
    joined: dict[str, Any] = {
        name: np.concatenate([part.log[name] for part in parts])
        if isinstance(column, np.ndarray)
        else column
        for name, column in parts[0].log.items()
    }
    return StepLog(**columns, **joined)
