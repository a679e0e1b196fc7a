"""Evaluation of any policy in the tasks in which `evaluate` measures agents.

Axes: `P` points of experience, `N` tasks; `E` consecutive episodes.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from metarl.errors import ConfigError
from metarl.evaluation.agents import (
    protocol_of,
    reference_columns,
    result_folder,
    select_references,
)
from metarl.evaluation.options import EvaluationOptions
from metarl.evaluation.protocol import (
    Measurement,
    PolicyBuilder,
    Schedule,
    join_measurements,
)
from metarl.field_types import checks_arguments, kind_of, overridden, require_instance, shown
from metarl.options import option_names
from metarl.registry import name_of, resolve_family
from metarl.results.adaptation_curves import Curve, describe_family, require_form, write_curves
from metarl.results.evaluation_files import (
    ADAPTATION_FILES,
    STEPS_FILE,
    TableForm,
    remove_other_tables,
)
from metarl.results.files import as_folder_error
from metarl.results.step_log import write_step_logs
from metarl.tasks.family import TaskDistribution
from metarl.text import visible
from metarl.training.progress import tracked
from metarl.training.torch_defaults import torch_defaults
from metarl.validation import as_device

DEFAULTS = EvaluationOptions(references=("none",))


@checks_arguments("out", "task_options", "agent")
@torch_defaults()
def evaluate_policy(
    policy: PolicyBuilder | Mapping[int, PolicyBuilder],
    task: str | TaskDistribution,
    *,
    agent: str,
    out: str | os.PathLike[str] | None = None,
    task_options: Mapping[str, Any] | None = None,
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
        out: folder for the table of curves and `trials.csv`, which `metarl.plot` and
            `metarl.compare` accept like that of a run. By default nothing is written.
        task_options: fields of the family where `task` is an id, whatever their names.
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
    options, family_options = _split(options, overrides)
    as_device(options.device)
    family = resolve_family(task, {**(task_options or {}), **family_options})
    _require_no_common_name(family, task, overrides)
    out = options.out if out is None else out
    folder = None if out is None else result_folder(Path(out))
    episodes = options.episodes or family.trial_episodes
    builders = dict(policy) if isinstance(policy, Mapping) else {0: policy}
    _require_builders(builders)
    _require_spacing(list(builders), episodes)

    protocol = protocol_of(family, options)
    points = np.concatenate([before + np.arange(1, episodes + 1) for before in builders])
    length = Schedule(steps=0, rollouts_per_task=1, episodes=int(points[-1]))
    references = select_references(family, length, options.references)
    if folder:
        rows = options.num_tasks * len(points) * (1 + len(references))
        require_form(options.table, rows=rows, seeds=[options.seed])
    described = describe_family(*name_of(family))
    columns = {
        "run": visible(folder.name if folder else agent),
        "agent": agent,
        "role": "agent",
        "label": options.label or agent,
        "family": described,
    }
    stages = []
    for stage, before in enumerate(tracked(list(builders), "evaluating", enabled=options.progress)):
        stages.append(
            protocol.measure_policy(
                builders[before],
                np.arange(1, episodes + 1),
                columns,
                experience=before,
                stage=stage,
            )
        )
    measured = [join_measurements(stages)]
    for name, reference in references.items():
        of_reference = reference_columns(name, reference, described)
        measured.append(protocol.measure_policy(reference.build, points, of_reference))
    if folder:
        _write(folder, measured, options.table)
    return [each.curve for each in measured]


def _split(
    options: EvaluationOptions | None, overrides: Mapping[str, Any]
) -> tuple[EvaluationOptions, dict[str, Any]]:
    """The options with the overrides among their fields, and the other overrides."""
    known = {field.name for field in fields(EvaluationOptions)}
    changed = {name: value for name, value in overrides.items() if name in known}
    others = {name: value for name, value in overrides.items() if name not in known}
    return overridden(options, DEFAULTS, changed), others


def _require_no_common_name(
    family: TaskDistribution, task: str | TaskDistribution, overrides: Mapping[str, Any]
) -> None:
    """Raises `ConfigError` if a keyword is the name of an option of both evaluation and family."""
    taken = {field.name for field in fields(EvaluationOptions)} & set(option_names(type(family)))
    for name in sorted(taken & overrides.keys()):
        if isinstance(task, str):
            raise ConfigError(
                f"{name} is an option of the evaluation and of {type(family).__name__}, so the "
                f"keyword {name}= could be either. Pass that of the family in task_options, and "
                "that of the evaluation in options=EvaluationOptions(...)."
            )


def _require_builders(builders: Mapping[int, PolicyBuilder]) -> None:
    for before, build in builders.items():
        require_instance("policy", before, int, "a function, or functions by episodes before")
        if not callable(build) or isinstance(build, type):
            raise ConfigError(
                f"policy={shown(build)} must be a function that builds the policy for tasks "
                f"[N, ...]; got {kind_of(build)}. If the policy is made already: lambda tasks: it."
            )


def _require_spacing(experience: Sequence[int], episodes: int) -> None:
    """Raises `ConfigError` if an episode of experience would be measured twice."""
    apart = all(one + episodes <= two for one, two in pairwise(experience))
    if not experience or experience[0] < 0 or not apart:
        raise ConfigError(
            f"Amounts of experience must not be negative and rise by at least the {episodes} "
            f"episode(s) that are measured at each; got {list(experience)}."
        )


def _write(folder: Path, measured: Sequence[Measurement], table: TableForm) -> None:
    with as_folder_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    name = ADAPTATION_FILES[table]
    write_curves(folder / name, [each.curve for each in measured])
    with as_folder_error(folder):
        remove_other_tables(folder, [name])
    write_step_logs(folder / STEPS_FILE, [each.log for each in measured])
