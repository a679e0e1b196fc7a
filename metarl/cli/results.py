"""The commands that read runs: evaluate, compare, plot and record."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from metarl.cli.modules import import_for_run, take_modules
from metarl.cli.table import print_comparison
from metarl.cli.task_form import task_form
from metarl.cli.terminal import SUCCESS, has_option, parse, print_text, shell_command
from metarl.errors import ConfigError
from metarl.evaluation.options import EvaluationOptions
from metarl.options import plain_options
from metarl.plots.options import PlotOptions, reference_names
from metarl.training import zoo
from metarl.video.options import VideoOptions

# NOTE: each command imports the modules that it needs when it runs, so that --help is fast.


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateCommand:
    """Evaluates the agent of a run, and its floors and ceilings, in test tasks.

    Test tasks do not occur in training, except in a few families with too few tasks for two splits.

    Agent and tasks have the options of training, unless --agent.NAME VALUE or --task.NAME VALUE
    changes them; `metarl evaluate RUN --help` lists them with their values.
    """

    run: tyro.conf.Positional[Path]
    """run folder, as printed by `metarl train`, or zoo:NAME, see `metarl list --zoo`"""
    module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """a module that defines the task or the agent, and that you trust: it is imported, from the
    current folder if it is not installed; may be repeated"""
    csv: Path | None = None
    """also write the table to this file"""
    evaluation: Annotated[EvaluationOptions, tyro.conf.OmitArgPrefixes] = EvaluationOptions(
        progress=True
    )


def _evaluate(arguments: Sequence[str]) -> int:
    modules, others = take_modules(arguments)
    trained = _trained_options(others, modules)
    options = parse(_evaluate_command(trained), arguments, "evaluate")
    from metarl.evaluation.agents import evaluate, folder_of_results
    from metarl.results.comparison import compare_curves, write_comparison
    from metarl.results.evaluation_files import adaptation_file
    from metarl.results.evaluation_settings import EARLIER, read_settings

    changed: dict[str, Any] = {
        f"{part}_options": _changed_fields(before, getattr(options, part))
        for part, before in trained.items()
    }
    comparison = compare_curves(evaluate(options.run, options=options.evaluation, **changed))
    print_comparison(comparison, differences=False)
    if options.csv:
        write_comparison(options.csv, comparison)
        print_text(f"The table is in {options.csv}.")
    folder = folder_of_results(options.run, options.evaluation)
    settings = read_settings(folder)
    if settings is not None and settings.is_unfinished:
        print_text(f"The run is not finished: the agent was trained {settings.trained}.")
    if (folder / EARLIER).is_dir():
        print_text(f"Evaluations with other settings are kept in {folder / EARLIER}.")
    print_text(
        f"The rows are in {adaptation_file(folder)}. Plot them:\n  {shell_command('plot', folder)}"
    )
    return SUCCESS


def _trained_options(arguments: Sequence[str], modules: Sequence[str]) -> Mapping[str, Any]:
    """The configs `agent` and `task` of the run among the arguments; empty if there is no run."""
    folder = next((word for word in arguments if _is_run(word)), None)
    option = next((word for word in arguments if word.startswith(("--agent.", "--task."))), None)
    if folder is None and option is None:
        return {}
    from metarl.training.run_folder import load_run

    if folder is None and arguments[0].startswith("-"):
        raise ConfigError(
            f"{option} changes an option with which a run was trained, but no run is named: metarl "
            f"evaluate RUN {option} VALUE, where RUN is the folder printed by `metarl train`."
        )
    named = Path(folder or arguments[0])
    import_for_run(modules, named)
    config = load_run(named).config
    return {"agent": config.make_agent_config(), "task": task_form(config.make_family())}


def _is_run(word: str) -> bool:
    return word.startswith(zoo.PREFIX) or (Path(word) / "config.json").is_file()


def _evaluate_command(trained: Mapping[str, Any]) -> type[Any]:
    """`EvaluateCommand`, with fields for the options of agent and task where these are known."""
    if not trained:
        return EvaluateCommand
    fields = [
        (part, type(value), dataclasses.field(default=value)) for part, value in trained.items()
    ]
    made = dataclasses.make_dataclass(
        "EvaluateCommand", fields, bases=(EvaluateCommand,), frozen=True, kw_only=True
    )
    made.__doc__ = EvaluateCommand.__doc__
    return made


def _changed_fields(before: Any, after: Any) -> dict[str, Any]:
    """The fields in which two dataclasses differ, with the values of the second."""
    old, new = plain_options(before), plain_options(after)
    return {name: value for name, value in new.items() if value != old[name]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareCommand:
    """Compares evaluated runs in one table: returns, scores, and differences in the same tasks.

    Runs of one agent count as its seeds and are joined into one row. Differences are to the agent
    of the first run.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """folders of runs that were evaluated in the same tasks with the same seed"""
    by_seed: bool = False
    """show each run in a separate row"""
    join_unfinished: bool = False
    """join runs that were not trained to their end with others, as seeds of one agent"""
    references: tuple[str, ...] = ("all",)
    """floors, baselines and ceilings to show; all, none, or names"""
    at: int | None = None
    """compare at this number of episodes of experience: each agent in the last of its measured
    episodes up to this one; by default in its last"""
    csv: Path | None = None
    """also write the table to this file, with cumulative regret"""


def _compare(arguments: Sequence[str]) -> int:
    options = parse(CompareCommand, arguments, "compare")
    from metarl.results.comparison import compare, write_comparison

    reference = reference_names(options.references)
    comparison = compare(
        [zoo.evaluated_folder(run) for run in options.runs],
        reference=reference,
        by_seed=options.by_seed,
        join_unfinished=options.join_unfinished,
        at=options.at,
    )
    print_comparison(comparison, differences=True)
    if options.csv:
        write_comparison(options.csv, comparison)
        print_text(f"The table is in {options.csv}.")
    return SUCCESS


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlotCommand:
    """Plots evaluated runs, by default the adaptation curves of their agents.

    Runs of one agent count as its seeds and are joined into one line.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """folders of evaluated runs"""
    paths: bool = False
    """short for --kind paths"""
    figure: Annotated[PlotOptions, tyro.conf.OmitArgPrefixes] = PlotOptions()


def _plot(arguments: Sequence[str]) -> int:
    command = parse(PlotCommand, arguments, "plot")
    options = command.figure
    if command.paths:
        if has_option(arguments, "--kind") and options.kind != "paths":
            raise ConfigError(
                f"Got --kind {options.kind} and --paths, which is short for --kind paths, but one "
                "figure has one kind. Omit one of them."
            )
        options = dataclasses.replace(options, kind="paths")
    runs = tuple(map(zoo.evaluated_folder, command.runs))
    from metarl.plots.plot import plot

    print_text("\n".join(map(str, plot(runs, options=options))))
    return SUCCESS


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordCommand:
    """Records a video of one trial of a run's agent in a test task.

    The caption of a frame shows episode, step and return. An agent that adapts its parameters is
    shown before and after each adaptation step.
    """

    run: tyro.conf.Positional[Path]
    """run folder, as printed by `metarl train`"""
    module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """a module that defines the task or the agent, and that you trust: it is imported, from the
    current folder if it is not installed; may be repeated"""
    video: Annotated[VideoOptions, tyro.conf.OmitArgPrefixes] = VideoOptions(progress=True)


def _record(arguments: Sequence[str]) -> int:
    command = parse(RecordCommand, arguments, "record")
    import_for_run(command.module, command.run)
    from metarl.video.record import record

    print_text(str(record(command.run, options=command.video)))
    return SUCCESS


RESULTS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "evaluate": _evaluate,
    "compare": _compare,
    "plot": _plot,
    "record": _record,
}
