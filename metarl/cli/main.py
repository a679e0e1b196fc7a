"""The command `metarl`: words from a terminal go in, runs, tables and pictures come out.

Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted by Ctrl-C.
"""

import argparse
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
from metarl.cli.terminal import FAILURE, INTERRUPTED, SUCCESS, USAGE, complain, in_shell, parse, say
from metarl.errors import ConfigError, MetaRLError, UnknownNameError

if TYPE_CHECKING:
    from metarl.training.run_folder import Run

# NOTE: what trains, evaluates and draws is imported by the command that needs it: help comes fast.

MOST_SPACE = 200
"""characters of a space in a list"""

_OVERVIEW = """\
usage: metarl COMMAND ...

Agents that learn to adapt to a new task, trained and measured on families of tasks.

  metarl list                             the task families and agents there are
  metarl check TASK [--options]           can adaptation be measured in it? for your own tasks
  metarl train AGENT TASK [--options]     meta-train an agent; makes a run folder
  metarl evaluate RUN [--options]         live it in test tasks; writes adaptation.csv
  metarl compare RUN [RUN ...]            agents and seeds side by side; may write CSV
  metarl plot RUN [RUN ...] [--options]   draw how fast it adapts, and more; writes PNG and SVG
  metarl record RUN [--options]           film one trial in a test task; writes a GIF

`metarl COMMAND --help` explains every option.
"""

_TRAIN_USAGE = """\
usage: metarl train AGENT TASK [--options]

Meta-trains AGENT on the training tasks of TASK and keeps everything in a run folder. Options of
the agent and of the run are written --name VALUE, those of the task family --task.name VALUE;
`metarl train AGENT TASK --help` explains all of them with their defaults. For a family of your
own write your_module:namespace/Name-v0: your_module is imported first, from the folder where you
stand if it is not installed.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: the words after `metarl`; by default those of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # A console script does not look for modules where the user stands; last, so that a file
    # there hides nothing that is installed.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return _run_command(words)
    except SystemExit as stop:  # from the option parser, which has said everything
        return stop.code if isinstance(stop.code, int) else FAILURE
    except KeyboardInterrupt:
        complain("Interrupted; nothing new was kept.")
        return INTERRUPTED
    except MetaRLError as error:
        complain(error)
        return USAGE if isinstance(error, ConfigError | UnknownNameError) else FAILURE


def _run_command(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_OVERVIEW, end="")
        return SUCCESS if words else USAGE
    if words[0] == "--version":
        print(f"metarl {__version__}")
        return SUCCESS
    if words[0] not in COMMANDS:
        raise UnknownNameError(
            f"There is no command {words[0]!r}.{registry.suggestion(words[0], COMMANDS)} Commands: "
            f"{', '.join(COMMANDS)}."
        )
    return COMMANDS[words[0]](words[1:])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Lists the task families and the agents that are installed, with their options."""


def _list(words: Sequence[str]) -> int:
    parse(ListOptions, words, "list")
    _say_task_families(detailed=True)
    _say_agents()
    return SUCCESS


def _say_task_families(*, detailed: bool) -> None:
    say("Task families:")
    for task_id in registry.task_ids():
        try:
            lines = _description(task_id, detailed=detailed)
        except Exception as error:  # one broken package must not hide the others
            reason = str(error) if isinstance(error, MetaRLError) else repr(error)
            lines = [f"cannot be made: {reason}"]
        say("\n    ".join([f"  {task_id}", *lines]))


def _description(task_id: str, *, detailed: bool) -> list[str]:
    """What a family is, its spaces and options."""
    cls, registered = registry.family_class(task_id)
    lines = [_first_line(cls)]
    if detailed:
        family = registry.build_family(cls, registered)
        values = dataclasses.asdict(family)  # type: ignore[call-overload]
        options = [f"--task.{name.replace('_', '-')} {v}" for name, v in values.items()]
        for name in ("observation", "action", "task"):
            space = textwrap.shorten(str(getattr(family, f"{name}_space")), MOST_SPACE)
            lines.append(f"{name:12} {space}")
        lines.append(f"options      {'  '.join(options) or 'none'}")
    return lines


def _say_agents() -> None:
    say("Agents:")
    for name in registry.agent_names():
        try:
            say(f"  {name}\n    {_first_line(registry.agent_config(name))}")
        except Exception as error:  # as above
            say(f"  {name}\n    cannot be imported: {error!r}")


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _train(words: Sequence[str]) -> int:
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), words[:2]))
    if len(names) < 2:
        return _train_without_task(names, words)
    agent, task = names
    preset, rest = _take_preset(agent, task, words[2:])
    options = parse(_train_options(agent, task, preset), rest, f"train {agent} {task}")
    return _live(agent, task, options, words)


def _take_preset(
    agent: str, task: str, words: Sequence[str]
) -> tuple[registry.Preset | None, list[str]]:
    """The preset named among the words, whose values become defaults, and the other words."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset")
    try:
        found, rest = parser.parse_known_args(list(words))
    except argparse.ArgumentError as error:
        raise ConfigError(f"--preset needs the name of a preset: {error}.") from error
    return found.preset and registry.find_preset(agent, task, found.preset), rest


def _train_without_task(names: Sequence[str], words: Sequence[str]) -> int:
    config = registry.agent_config(names[0]) if names else None
    if not {"-h", "--help"} & set(words):
        known = registry.task_ids() if names else registry.agent_names()
        raise ConfigError(
            f"{'TASK' if names else 'AGENT'} is missing: metarl train "
            f"{names[0] if names else 'AGENT'} TASK [--options], the names first. Known: "
            f"{', '.join(known)}."
        )
    print(_TRAIN_USAGE)
    _say_task_families(detailed=False)
    if config is None:
        _say_agents()
        return SUCCESS
    print(flush=True)
    parse(config, ["--help"], f"train {names[0]} TASK")
    return SUCCESS


def _train_options(agent: str, task: str, preset: registry.Preset | None) -> type[Any]:
    """A dataclass with the fields `agent`, `run` and `task`, all of whose fields are options."""
    from metarl.training.loop import RunOptions

    config = registry.agent_config(agent)
    cls, registered = registry.family_class(task)
    of_agent, of_run = ({f.name for f in dataclasses.fields(c)} for c in (config, RunOptions))
    if of_agent & of_run:
        raise ConfigError(
            f"{config.__name__} has options that every run has already: "
            f"{', '.join(sorted(of_agent & of_run))}; rename them there."
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
        made.__doc__ += "\n\nPresets, whose values other options may change:\n\n" + "\n\n".join(
            lines
        )
    return made


def _live(agent: str, task: str, options: Any, words: Sequence[str]) -> int:
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
    # Settled here, so that the folder is known should the run be interrupted.
    folder = options.run.out or config.default_path
    settled = dataclasses.replace(options.run, out=folder)
    try:
        run = train(agent, task, task_options=chosen["task"], config=options.agent, run=settled)
    except KeyboardInterrupt:
        if not Run(path=folder, config=config).checkpoint.exists():
            raise
        again = in_shell("train", *(word for word in words if word != "--resume"), "--resume")
        complain(f"Interrupted. What was learnt is kept in {folder}; go on with\n  {again}")
        return INTERRUPTED
    say(_training_summary(run))
    return SUCCESS


def _training_summary(run: "Run") -> str:
    from metarl.results.learning_curves import read_metrics

    *_, last = read_metrics(run.path / "metrics.csv")
    return (
        f"Trained {run.config.agent} on {run.config.task}: {last['iteration']} iterations, "
        f"{int(last['env_steps']):,} steps, {float(last['seconds']):.0f} s; return in training "
        f"{float(last['first_episode_return']):.3f} in the first episode of a task, "
        f"{float(last['last_episode_return']):.3f} in the last.\n"
        f"The run is in {run.path}. See how it does in test tasks:\n"
        f"  {in_shell('evaluate', run.path)}"
    )


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "list": _list,
    "check": check,
    "train": _train,
    **RESULTS,
}
