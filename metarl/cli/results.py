"""The commands that look at what was learnt: runs go in, tables and pictures come out."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarl.cli.terminal import SUCCESS, in_shell, parse, say
from metarl.errors import ConfigError
from metarl.tasks.family import Split

if TYPE_CHECKING:
    from metarl.results.bootstrap import Estimate
    from metarl.results.comparison import Comparison

# NOTE: what evaluates and draws is imported by the command that needs it: help comes fast.


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Lives the agent of a run, and its floors and ceilings, in test tasks.

    Training has not met them, but for the few families that have too few tasks for two splits.

    Agent and tasks have the options of the training, unless --agent.NAME VALUE or --task.NAME VALUE
    says otherwise; `metarl evaluate RUN --help` lists them with what they were.
    """

    run: tyro.conf.Positional[Path]
    """folder of the run, as `metarl train` printed it"""
    num_tasks: int = 1000
    """tasks to live in"""
    seed: int = 0
    """of the tasks and their noise: equal seeds make runs comparable task by task"""
    episodes: int | None = None
    """episodes in a row, of each phase; by default as many as in training"""
    split: Split = "test"
    """test, or train to look for a generalisation gap"""
    references: tuple[str, ...] = ("default",)
    """floors, baselines and ceilings to live beside the agent; default, all, none, or names"""
    label: str | None = None
    """how pictures and tables call the agent; runs of one label are taken for its seeds"""
    device: str = "cpu"
    """torch device to live on, such as cpu or cuda"""
    workers: int | None = None
    """processes that step ordinary Gymnasium environments; by default this one does"""
    progress: bool = True
    """show a progress bar"""
    csv: Path | None = None
    """write the table there, too"""


def _evaluate(words: Sequence[str]) -> int:
    trained = _trained(words)
    options = parse(_evaluate_options(trained), words, "evaluate")
    from metarl.evaluation.agents import evaluate
    from metarl.results.comparison import compare_curves, write_comparison
    from metarl.results.curves import FILE_NAME

    names = [name for name in options.references if name != "none"]
    chosen = _fields(options)
    del chosen["csv"]
    chosen["references"] = names == ["default"] or names
    for part, before in trained.items():
        now = _fields(chosen.pop(part))
        chosen[f"{part}_options"] = {
            name: value for name, value in now.items() if value != getattr(before, name)
        }
    comparison = compare_curves(evaluate(**chosen))
    _say_table(comparison, differences=False)
    if options.csv:
        write_comparison(options.csv, comparison)
        say(f"The table is in {options.csv}.")
    rows = options.run / FILE_NAME
    say(f"The rows are in {rows}. Draw them:\n  {in_shell('plot', options.run)}")
    return SUCCESS


def _trained(words: Sequence[str]) -> Mapping[str, Any]:
    """`agent` and `task` as the run among the words was trained; nothing where there is no run."""
    folder = next((word for word in words if (Path(word) / "config.json").is_file()), None)
    option = next((word for word in words if word.startswith(("--agent.", "--task."))), None)
    if folder is None and option is None:
        return {}
    from metarl.training.run_folder import load_run

    if folder is None and words[0].startswith("-"):
        raise ConfigError(
            f"{option} is an option of what a run was trained with, and no run is named: metarl "
            f"evaluate RUN {option} VALUE, where RUN is the folder that `metarl train` printed."
        )
    config = load_run(folder or words[0]).config
    return {"agent": config.make_agent_config(), "task": config.make_family()}


def _evaluate_options(trained: Mapping[str, Any]) -> type[Any]:
    """`EvaluateOptions`, with fields for agent and task where it is known what these may be."""
    if not trained:
        return EvaluateOptions
    fields = [
        (part, type(value), dataclasses.field(default=value)) for part, value in trained.items()
    ]
    made = dataclasses.make_dataclass(
        "EvaluateOptions", fields, bases=(EvaluateOptions,), frozen=True, kw_only=True
    )
    made.__doc__ = EvaluateOptions.__doc__
    return made


def _fields(options: Any) -> dict[str, Any]:
    """The values of a dataclass, as they are."""
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}


def _names(chosen: Sequence[str]) -> list[str] | None:
    """None for all of them."""
    return None if list(chosen) == ["all"] else [name for name in chosen if name != "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Puts evaluated runs into one table: returns, scores, and differences in the same tasks.

    Runs of one agent are taken as its seeds and joined into one row. Differences are to the agent
    of the first run named.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """folders of runs that `metarl evaluate` has been through, with the same tasks and seed"""
    by_seed: bool = False
    """show each run in a row of its own"""
    references: tuple[str, ...] = ("all",)
    """names of floors and ceilings to show; all, none, or names"""
    csv: Path | None = None
    """write the table there, too, with cumulative regret"""


def _compare(words: Sequence[str]) -> int:
    options = parse(CompareOptions, words, "compare")
    from metarl.results.comparison import compare, write_comparison

    reference = _names(options.references)
    comparison = compare(options.runs, reference=reference, by_seed=options.by_seed)
    _say_table(comparison, differences=True)
    if options.csv:
        write_comparison(options.csv, comparison)
        say(f"The table is in {options.csv}.")
    return SUCCESS


def _say_table(comparison: "Comparison", *, differences: bool) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a log file has no edge to break lines at
    title = (
        f"{comparison.family}, {comparison.num_tasks:,} {comparison.split} tasks, "
        f"seed {comparison.seed}"
    )
    table = Table("agent", "role", box=box.SIMPLE, title=Text(title), title_justify="left")
    table.caption = Text(_caption(comparison, differences))
    table.caption_justify = "left"
    unequal = len({row.episodes for row in comparison.rows}) > 1
    headings = ["seeds", *["episodes"] * unequal, "first episode", "last episode", "whole trial"]
    headings += ["score", *["difference"] * differences]
    headings += ["first success", "last success"] * comparison.defines_success
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")  # a number is never cut
    for row in comparison.rows:
        numbers = [row.first, row.last, row.total, row.score, *[row.difference] * differences]
        numbers += [row.first_success, row.last_success] * comparison.defines_success
        counts = [str(row.num_runs) if row.role == "agent" else "", *[str(row.episodes)] * unequal]
        table.add_row(*map(Text, (row.label, row.role, *counts, *map(_number, numbers))))
    console.print(table)


def _caption(comparison: "Comparison", differences: bool) -> str:
    measure = "whole trial" if comparison.measure == "total" else "last episode"
    parts = ["mean return [95% bootstrap interval]"]
    if comparison.floor is not None and comparison.ceiling is not None:
        parts.append(f"score of the {measure}: 0 {comparison.floor}, 1 {comparison.ceiling}")
    if differences and comparison.base is not None:
        parts.append(f"difference of the {measure} to {comparison.base}, task by task")
    if comparison.defines_success:
        parts.append("success: share of tasks solved at some step of the episode")
    if any(row.total is None for row in comparison.rows):
        parts.append("no whole trial and no regret where not every episode was measured")
    return "; ".join(parts)


def _number(estimate: "Estimate | None") -> str:
    if estimate is None:
        return "-"
    decimals = 3 if abs(float(estimate.mean)) < 100 else 1
    mean, low, high = (f"{float(part):.{decimals}f}" for part in estimate)
    return f"{mean} [{low},{high}]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """Draws evaluated runs: how fast their agents adapt, unless another kind is asked for.

    Runs of one agent are taken as its seeds and joined into one line.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """folders of runs that `metarl evaluate` has been through"""
    kind: Literal["adaptation", "regret", "learning", "pulls", "paths"] | None = None
    """adaptation, the default: return over episodes of experience; regret: what was lost against
    the ceiling; learning: a metric of training over steps and time; pulls: arms pulled in a few
    bandits; paths: ways of each episode to a few goals"""
    paths: bool = False
    """short for --kind paths"""
    out: Path | None = None
    """where to, such as curve or curve.pdf; by default named after its kind, beside the runs"""
    references: tuple[str, ...] | None = None
    """floors and ceilings to draw; all, none, or names; by default all beside curves, and none
    beside pulls and paths"""
    formats: tuple[str, ...] = ("png", "svg")
    """any of png, svg, pdf"""
    metric: str = "last_episode_return"
    """of learning: a column of metrics.csv"""
    smooth: int | None = None
    """of learning: iterations in each running mean; by default a fiftieth of the run, 1 for none"""
    tasks: int | None = None
    """of pulls and paths: how many tasks to show"""


def _plot(words: Sequence[str]) -> int:
    options = parse(PlotOptions, words, "plot")
    from metarl.plots.plot import plot

    chosen = _fields(options)
    if chosen.pop("paths"):
        if options.kind not in (None, "paths"):
            raise ConfigError(
                f"--paths is short for --kind paths, but --kind {options.kind} was given, too; one "
                "picture is of one kind, so leave one of them out."
            )
        chosen["kind"] = "paths"
    chosen["kind"] = chosen["kind"] or "adaptation"
    wanted = chosen.pop("references")
    reference = None if wanted is None else _names(wanted)
    say("\n".join(map(str, plot(**chosen, reference=reference))))
    return SUCCESS


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """Films one trial of a run's agent in a test task.

    Above each picture stand episode, step and return. An agent that adapts its parameters is shown
    before and after each adaptation step.
    """

    run: tyro.conf.Positional[Path]
    """folder of the run, as `metarl train` printed it"""
    out: Path | None = None
    """where to, such as film.gif or film.mp4; by default trial.gif beside the run"""
    num: int = 0
    """which task of the test split; equal numbers and seeds are equal tasks in an evaluation"""
    seed: int = 0
    """of the task and the trial"""
    episodes: int | None = None
    """episodes in a row, of each phase; by default as many as in training"""
    fps: float = 10.0
    """pictures per second"""
    size: int = 400
    """pixels of the longer side of what is drawn"""
    device: str = "cpu"
    """torch device to live on, such as cpu or cuda"""
    progress: bool = True
    """show a progress bar"""


def _record(words: Sequence[str]) -> int:
    options = parse(RecordOptions, words, "record")
    from metarl.video.record import record

    say(str(record(**_fields(options))))
    return SUCCESS


RESULTS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "evaluate": _evaluate,
    "compare": _compare,
    "plot": _plot,
    "record": _record,
}
