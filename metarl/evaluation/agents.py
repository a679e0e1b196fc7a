"""Evaluation of a trained run: adaptation curves of its agent and of reference policies."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from metarl.agent import AgentConfig
from metarl.errors import ConfigError, RunFolderError, UnknownNameError
from metarl.evaluation.options import EvaluationOptions
from metarl.evaluation.protocol import EvaluationProtocol, Measurement, Schedule
from metarl.field_types import (
    checks_arguments,
    overridden,
    require_known,
    suggestion,
)
from metarl.modules import split_module
from metarl.options import plain_options, plain_value
from metarl.results.adaptation_curves import Curve, require_form, write_curves
from metarl.results.evaluation_files import (
    ADAPTATION_FILES,
    STEPS_FILE,
    TableForm,
    move_evaluation,
)
from metarl.results.evaluation_settings import (
    EvaluationSettings,
    keep_earlier,
    write_settings,
)
from metarl.results.files import as_folder_error
from metarl.results.step_log import write_step_logs
from metarl.tasks.family import Reference, TaskDistribution
from metarl.text import visible
from metarl.training.progress import tracked
from metarl.training.run_folder import Run, as_run
from metarl.training.torch_defaults import torch_defaults
from metarl.training.zoo import results_path, run_path
from metarl.validation import as_device


@checks_arguments("agent_options", "task_options")
@torch_defaults()
def evaluate(
    run: Run | str | os.PathLike[str],
    *,
    agent_options: Mapping[str, Any] | None = None,
    task_options: Mapping[str, Any] | None = None,
    modules: Sequence[str] = (),
    options: EvaluationOptions | None = None,
    **overrides: Any,
) -> list[Curve]:
    """Evaluates the final agent of a run, and the family's references, in unseen tasks.

    All are evaluated in the same tasks with the same environment noise (given equal `seed`,
    `num_tasks` and rollouts), so curves can be compared task by task. An agent that adapts its
    parameters is measured before and after each adaptation step, as the mean over its rollouts. A
    reference then runs as many consecutive episodes as the agent has had by its last one, and is
    measured at the same episodes.

    Writes into the run folder or `out` (for the zoo, into `runs/zoo/NAME`): `adaptation.csv`, or
    with `table="parquet"` the same rows as `adaptation.parquet`; `trials.csv` with every step of
    the measured episodes in the first few tasks; the settings, `evaluation.json`. An evaluation
    with other settings that is in this folder already is moved to `evaluations/`.

    Args:
        run: a run or its folder, or `zoo:NAME`.
        agent_options: options of the agent that differ from training, such as
            `{"rollouts_per_task": 40, "evaluation_steps": 5}`.
        task_options: options of the family that differ from training, such as `{"pulls": 200}`, to
            test generalisation; the spaces must not change.
        modules: modules that define the task or the agent and that you trust; see `load_run`.
        options: tasks, references and device; by default made from `overrides`.
        overrides: fields of `EvaluationOptions`, such as `num_tasks=200, references=["random"]`.

    Returns:
        The agent's curve, then one for each reference.

    Raises:
        RunFolderError: there is no run in this folder, or it names a module that is not imported.
        CheckpointError: the run is not trained yet, its checkpoint is broken or of another run, or
            an option of the agent changes its network.
        UnknownNameError: the family has no such reference, or none for trials of this length.
        ConfigError: a number is not positive, the split is unknown, the agent or the family has no
            such option, options of the family change its spaces, or the table is too large for
            Parquet.
        MissingPackageError: `table="parquet"` needs the extra `parquet`.
    """
    options = overridden(options, EvaluationOptions(), overrides)
    as_device(options.device)
    run = as_run(run, modules=modules)
    folder = folder_of_results(run.path, options)
    # The agent is built with the options of this evaluation, its parameters are those of training.
    changed = _with_options(run, agent_options or {}, task_options or {})
    family = changed.config.make_family()
    trained, config = run.config.make_agent_config(), changed.config.make_agent_config()
    agent = changed.make_agent(family, options.device)
    progress = run.load(agent)
    schedule = Schedule(
        steps=agent.evaluation_steps,
        rollouts_per_task=config.rollouts_per_task,
        episodes=options.episodes or config.episodes or family.trial_episodes,
    )
    protocol = protocol_of(family, options)
    references = select_references(family, schedule, options.references)
    _require_form(run, options, schedule, references)

    described = changed.config.family
    measured = []
    title = f"evaluating {run.path.name}"
    for name in tracked(["", *references], title, enabled=options.progress):
        if name:
            columns = reference_columns(name, references[name], described)
            build = references[name].build
            measured.append(
                protocol.measure_policy(
                    build, schedule.reference_points, columns, logged=schedule.points
                )
            )
            continue
        columns = {
            "run": visible(run.path.name),
            "agent": split_module(run.config.agent)[1],
            "role": "agent",
            "label": options.label or _label(trained, config),
            "family": described,
        }
        keep = config.reads_next_obs
        found = protocol.measure_agent(agent, schedule, columns, keep_next_obs=keep)
        curve = replace(found.curve, training_seed=run.config.seed)
        measured.append(replace(found, curve=curve))
    curves = [each.curve for each in measured]
    options_changed = agent_options or {}, task_options or {}
    settings = _settings(
        run, progress.iteration, options, schedule, options_changed, list(references)
    )
    _write(folder, settings, measured, options.table)
    return curves


def _require_form(
    run: Run, options: EvaluationOptions, schedule: Schedule, references: Mapping[str, Reference]
) -> None:
    """Raises an error before the evaluation if its table cannot be written as wanted."""
    points = len(schedule.points) + len(references) * len(schedule.reference_points)
    rows = options.num_tasks * points
    require_form(options.table, rows=rows, seeds=(options.seed, run.config.seed))


def protocol_of(family: TaskDistribution, options: EvaluationOptions) -> EvaluationProtocol:
    """How a family is measured with these options."""
    return EvaluationProtocol(
        family=family,
        num_tasks=options.num_tasks,
        seed=options.seed,
        split=options.split,
        device=options.device,
        threads=options.threads,
        workers=options.workers,
    )


def _settings(
    run: Run,
    iteration: int,
    options: EvaluationOptions,
    schedule: Schedule,
    changed: tuple[Mapping[str, Any], Mapping[str, Any]],
    references: list[str],
) -> EvaluationSettings:
    """What is stored next to the rows; `changed` are the options of agent and family."""
    return EvaluationSettings(
        training=asdict(run.config),
        iteration=iteration,
        split=options.split,
        seed=options.seed,
        num_tasks=options.num_tasks,
        episodes=schedule.episodes,
        references=references,
        label=options.label,
        agent_options=plain_value(changed[0]),
        task_options=plain_value(changed[1]),
    )


def result_folder(path: Path) -> Path:
    """A folder for rows, which must not be that of a run.

    Raises:
        RunFolderError: it is the folder of a run, or cannot be written.
    """
    if (path / "config.json").exists():
        raise RunFolderError(
            f"{path} is the folder of a run, and its adaptation table is that of the run's agent. "
            "Choose another folder with `out`."
        )
    return _writable(path)


def folder_of_results(run: Path, options: EvaluationOptions) -> Path:
    """Where an evaluation writes its rows: `out`, or the run folder, or for the zoo below runs/.

    Raises:
        RunFolderError: it is the folder of another run, or cannot be written.
    """
    default = results_path(run_path(run))
    if options.out is None or Path(options.out).resolve() == default.resolve():
        return _writable(default)
    return result_folder(Path(options.out))


def _writable(path: Path) -> Path:
    """Raises `RunFolderError` if the folder cannot be written, before an evaluation starts."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise RunFolderError(
            f"Nothing can be written to {path}, so the evaluation would be lost. Choose another "
            "folder with --out."
        )
    return path


def _write(
    folder: Path,
    settings: EvaluationSettings,
    measured: Sequence[Measurement],
    table: TableForm,
) -> None:
    """Writes the results beside those of an earlier evaluation, which stay until all is written."""
    with as_folder_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        drafts = TemporaryDirectory(prefix=".evaluation.", dir=folder)
    with drafts as name:
        draft = Path(name)
        write_curves(draft / ADAPTATION_FILES[table], [each.curve for each in measured])
        write_step_logs(draft / STEPS_FILE, [each.log for each in measured])
        write_settings(draft, settings)
        keep_earlier(folder, settings)
        with as_folder_error(folder):
            move_evaluation(draft, folder)


def _with_options(run: Run, agent: Mapping[str, Any], task: Mapping[str, Any]) -> Run:
    """The run as if it had been trained with these options of its agent and its family changed."""
    family = run.config.make_family()  # first: its module may register the agent and its memory
    trained = run.config.make_agent_config()
    require_known(run.config.agent, agent, [field.name for field in fields(trained)])
    # Options within an option, such as those of a memory, keep those of training.
    merged: dict[str, Any] = {
        name: {**getattr(trained, name), **value} if isinstance(value, Mapping) else value
        for name, value in agent.items()
    }
    changed = replace(
        run.config,
        agent_options=plain_options(replace(trained, **merged)),
        task_options={**run.config.task_options, **plain_value(task)},
    )
    if task:
        _require_equal_spaces(family, changed.make_family(), task)
    return replace(run, config=changed)


def _require_equal_spaces(
    trained: TaskDistribution, changed: TaskDistribution, options: Mapping[str, Any]
) -> None:
    for name in ("observation_space", "action_space"):
        before, after = getattr(trained, name), getattr(changed, name)
        if before != after:
            values = ", ".join(f"{option}={value!r}" for option, value in options.items())
            raise ConfigError(
                f"With {values} the {name} is {after}, but the agent was trained with {before}, "
                "and its network fits no other. Choose options that leave the spaces unchanged, "
                "or train another agent."
            )


def _label(trained: AgentConfig, config: AgentConfig) -> str:
    """The label of the trained agent, with the options by which this one differs from it."""
    changed = [
        f"{field.name}={getattr(config, field.name)}"
        for field in fields(config)
        if field.name not in ("rollouts_per_task", "episodes", "evaluation_steps")
        and getattr(config, field.name) != getattr(trained, field.name)
    ]
    return f"{trained.label} ({', '.join(changed)})" if changed else trained.label


def reference_columns(name: str, reference: Reference, family: str) -> dict[str, str]:
    """What names a reference in tables and figures."""
    return {
        "run": "",
        "agent": name,
        "role": reference.role,
        "label": reference.label,
        "family": family,
    }


def select_references(
    family: TaskDistribution, schedule: Schedule, wanted: Sequence[str]
) -> Mapping[str, Reference]:
    """The references named in `wanted`, which may be "default", "all" or "none" as well.

    Raises:
        UnknownNameError: there is none of this name, or it cannot run as long as the agent.
    """
    known = family.references(schedule.total_episodes)
    names = [name for name in wanted if name != "none"]
    if names == ["default"]:
        names = [name for name in known if known[name].by_default]
    elif names == ["all"]:
        names = list(known)
    for name in names:
        if name not in known:
            reason = f"The family has no reference {name!r}.{suggestion(name, known)}"
            if name in family.references(schedule.episodes):
                reason = (
                    f"The reference {name!r} is not defined for {schedule.total_episodes:,} "
                    f"consecutive episodes, the experience of the agent at its last one: "
                    f"{schedule.steps} x "
                    f"{schedule.rollouts_per_task} x {schedule.episodes} before its adaptation "
                    f"steps and {schedule.episodes} after them. Name others, or evaluate with "
                    "fewer adaptation steps or rollouts per task."
                )
            raise UnknownNameError(f"{reason} Known: {', '.join(known) or 'none'}.")
    return {name: known[name] for name in names}
