"""The command `metarl`.

Exit codes: 0 success, 1 failure, 2 wrong usage; after a signal 130 (Ctrl-C), 143 (SIGTERM), 129
(SIGHUP).
"""

import argparse
import contextlib
import dataclasses
import itertools
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from metarl import __version__, registry
from metarl.cli.check import check
from metarl.cli.results import RESULTS
from metarl.cli.terminal import (
    FAILURE,
    INTERRUPTED,
    SUCCESS,
    USAGE,
    parse,
    print_error,
    print_text,
    shell_command,
)
from metarl.errors import ConfigError, MetaRLError, UnknownNameError
from metarl.validation import suggestion

if TYPE_CHECKING:
    from metarl.training.run_folder import Run

# NOTE: each command imports the modules that it needs when it runs, so that --help is fast.

MAX_SPACE_LENGTH = 200
"""characters that `metarl list` shows of a space"""

_OVERVIEW = """\
usage: metarl COMMAND ...

Trains and evaluates agents that adapt to a new task, on families of tasks.

  metarl list                             list the task families and agents
  metarl check TASK [--options]           check that adaptation can be measured in a task
  metarl train AGENT TASK [--options]     meta-train an agent; creates a run folder
  metarl evaluate RUN [--options]         evaluate it in test tasks; writes adaptation.csv
  metarl compare RUN [RUN ...]            compare agents and seeds in a table; can write CSV
  metarl plot RUN [RUN ...] [--options]   plot adaptation curves and more; writes PNG and SVG
  metarl record RUN [--options]           record one trial in a test task; writes a GIF

`metarl COMMAND --help` explains every option.
"""

_TRAIN_USAGE = """\
usage: metarl train AGENT TASK [--options]

Meta-trains AGENT on the training tasks of TASK and writes a run folder. Options of the agent and
of the run are written --name VALUE, those of the task family --task.name VALUE; `metarl train AGENT
TASK --help` explains all of them with their defaults. For a family of your own write
your_module:namespace/Name-v0: your_module is imported first, from the current folder if it is not
installed.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: the arguments after `metarl`; by default those of this process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # A console script does not search the current folder for modules. It is added last, so that a
    # file in it hides no installed package.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return _run_command(arguments)
    except SystemExit as stop:  # from the option parser, which has printed its message
        return stop.code if isinstance(stop.code, int) else FAILURE
    except KeyboardInterrupt:
        print_error("Interrupted; nothing new was saved.")
        return INTERRUPTED
    except MetaRLError as error:
        print_error(error)
        return USAGE if isinstance(error, ConfigError | UnknownNameError) else FAILURE


def _run_command(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_OVERVIEW, end="")
        return SUCCESS if arguments else USAGE
    command, *rest = arguments
    if command == "--version":
        print(f"metarl {__version__}")
        return SUCCESS
    if command not in COMMANDS:
        raise UnknownNameError(
            f"There is no command {command!r}.{suggestion(command, COMMANDS)} Commands: "
            f"{', '.join(COMMANDS)}."
        )
    return COMMANDS[command](rest)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Lists the installed task families, agents and memories, with options."""


def _list(arguments: Sequence[str]) -> int:
    parse(ListOptions, arguments, "list")
    _print_task_families(detailed=True)
    _print_agents()
    _print_memories()
    return SUCCESS


def _print_task_families(*, detailed: bool) -> None:
    print_text("Task families:")
    for task_id in registry.task_ids():
        try:
            lines = _description(task_id, detailed=detailed)
        except Exception as error:  # one broken package must not hide the others
            reason = str(error) if isinstance(error, MetaRLError) else repr(error)
            lines = [f"cannot be made: {reason}"]
        print_text("\n    ".join([f"  {task_id}", *lines]))


def _description(task_id: str, *, detailed: bool) -> list[str]:
    """The first line of a family's docstring, its spaces and its options."""
    cls, registered = registry.family_class(task_id)
    lines = [_first_line(cls)]
    if detailed:
        family = registry.build_family(cls, registered)
        values = dataclasses.asdict(family)  # type: ignore[call-overload]
        options = [f"--task.{name.replace('_', '-')} {v}" for name, v in values.items()]
        for name in ("observation", "action", "task"):
            space = textwrap.shorten(str(getattr(family, f"{name}_space")), MAX_SPACE_LENGTH)
            lines.append(f"{name:12} {space}")
        lines.append(f"options      {'  '.join(options) or 'none'}")
    return lines


def _print_agents() -> None:
    print_text("Agents:")
    for name in registry.agent_names():
        try:
            print_text(f"  {name}\n    {_first_line(registry.agent_config(name))}")
        except Exception as error:  # as above
            print_text(f"  {name}\n    cannot be imported: {error!r}")


def _print_memories() -> None:
    print_text("Memories of agents that adapt in memory (--memory):")
    for name in registry.memory_names():
        try:
            options = registry.memory_options(name)
        except Exception as error:  # as above
            print_text(f"  {name}\n    cannot be imported: {error!r}")
            continue
        fields = [f"--memory-options {f.name} {f.default}" for f in dataclasses.fields(options)]
        print_text("\n    ".join([f"  {name}", _first_line(options), *fields]))


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _train(arguments: Sequence[str]) -> int:
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments[:2]))
    if len(names) < 2:
        return _train_without_task(names, arguments)
    agent, task = names
    preset, rest = _take_preset(agent, task, arguments[2:])
    options = parse(_train_options(agent, task, preset), rest, f"train {agent} {task}")
    return _run_training(agent, task, options, arguments)


def _take_preset(
    agent: str, task: str, arguments: Sequence[str]
) -> tuple[registry.Preset | None, list[str]]:
    """The preset named by --preset, whose values become defaults, and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset")
    try:
        found, rest = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError(f"--preset needs the name of a preset: {error}.") from error
    return found.preset and registry.find_preset(agent, task, found.preset), rest


def _train_without_task(names: Sequence[str], arguments: Sequence[str]) -> int:
    config = registry.agent_config(names[0]) if names else None
    if not {"-h", "--help"} & set(arguments):
        known = registry.task_ids() if names else registry.agent_names()
        raise ConfigError(
            f"{'TASK' if names else 'AGENT'} is missing: metarl train "
            f"{names[0] if names else 'AGENT'} TASK [--options], the names first. Known: "
            f"{', '.join(known)}."
        )
    print(_TRAIN_USAGE)
    _print_task_families(detailed=False)
    if config is None:
        _print_agents()
        return SUCCESS
    print(flush=True)
    parse(config, ["--help"], f"train {names[0]} TASK")
    return SUCCESS


def _train_options(agent: str, task: str, preset: registry.Preset | None) -> type[Any]:
    """A dataclass with the fields `agent`, `run` and `task`, whose own fields are the options."""
    from metarl.training.loop import RunOptions

    config = registry.agent_config(agent)
    cls, registered = registry.family_class(task)
    agent_names, run_names = ({f.name for f in dataclasses.fields(c)} for c in (config, RunOptions))
    if both := sorted(agent_names & run_names):
        raise ConfigError(
            f"{config.__name__} has options that every run has already: {', '.join(both)}. Rename "
            "them in that class."
        )
    defaults = config(**preset.agent_options) if preset else config()
    options = {**registered, **preset.task_options} if preset else registered
    parts = {
        "agent": (Annotated[config, tyro.conf.OmitArgPrefixes], defaults),
        "run": (Annotated[RunOptions, tyro.conf.OmitArgPrefixes], RunOptions()),
        "task": (cls, registry.build_family(cls, options)),
    }
    fields = [(name, kind, dataclasses.field(default=v)) for name, (kind, v) in parts.items()]
    made = dataclasses.make_dataclass("TrainOptions", fields, frozen=True, kw_only=True)
    made.__doc__ = f"Meta-trains {agent} on the training tasks of {task}."
    if known := registry.presets(agent, task):
        lines = [f"  --preset {name}: {known[name].note}" for name in known]
        made.__doc__ += "\n\nPresets, whose values other options override:\n\n"
        made.__doc__ += "\n\n".join(lines)
    return made


def _run_training(agent: str, task: str, options: Any, arguments: Sequence[str]) -> int:
    from metarl.training.interruption import StoppedBySignal
    from metarl.training.loop import train
    from metarl.training.run_folder import Run, RunConfig

    chosen = dataclasses.asdict(options)
    config = RunConfig(
        agent=agent,
        agent_options=chosen["agent"],
        task=task,
        task_options=chosen["task"],
        seed=options.run.seed,
    )
    # The folder is chosen here, so that it is known if the run is interrupted.
    folder = options.run.out or config.default_path
    run_options = dataclasses.replace(options.run, out=folder)
    try:
        run = train(agent, task, task_options=chosen["task"], config=options.agent, run=run_options)
    except (KeyboardInterrupt, StoppedBySignal) as stop:
        if not Run(path=folder, config=config).is_started:
            raise
        others = (word for word in arguments if word != "--resume")
        command = shell_command("train", *others, "--resume")
        with contextlib.suppress(OSError):  # after SIGHUP the terminal may be gone
            print_error(f"Interrupted. The run is saved in {folder}; continue it with\n  {command}")
        return INTERRUPTED if isinstance(stop, KeyboardInterrupt) else stop.code
    print_text(_training_summary(run))
    return SUCCESS


def _training_summary(run: "Run") -> str:
    from metarl.results.learning_curves import read_metrics

    *_, last = read_metrics(run.path / "metrics.csv")
    return (
        f"Trained {run.config.agent} on {run.config.task}: {last['iteration']} iterations, "
        f"{int(last['env_steps']):,} steps, {float(last['seconds']):.0f} s; return in training "
        f"{float(last['first_episode_return']):.3f} in the first episode of a task, "
        f"{float(last['last_episode_return']):.3f} in the last.\n"
        f"The run is in {run.path}. Evaluate it in test tasks:\n"
        f"  {shell_command('evaluate', run.path)}"
    )


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "list": _list,
    "check": check,
    "train": _train,
    **RESULTS,
}
