"""The command `metarl`.

Exit codes: 0 success, 1 failure, 2 wrong usage; after a signal 130 (Ctrl-C), 143 (SIGTERM), 129
(SIGHUP).
"""

import argparse
import dataclasses
import io
import itertools
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import tyro

from metarl import __version__, registry
from metarl.cli.benchmark import benchmark
from metarl.cli.check import check
from metarl.cli.config_file import take_config, take_resumed
from metarl.cli.deployment import DEPLOYMENT
from metarl.cli.listing import list_names, preset_lines, print_overview
from metarl.cli.modules import find_named
from metarl.cli.report import report
from metarl.cli.results import RESULTS
from metarl.cli.sweep import sweep
from metarl.cli.task_form import task_form
from metarl.cli.terminal import (
    FAILURE,
    INTERRUPTED,
    SUCCESS,
    USAGE,
    asks_for_help,
    parse,
    print_error,
)
from metarl.cli.training import EVALUATE_HELP, SEEDS_HELP, TRACK_HELP, run_training
from metarl.errors import ConfigError, MetaRLError, RankError, UnknownNameError
from metarl.field_types import require_known, suggestion
from metarl.options import option_names, typed_options
from metarl.training.launcher import (
    are_joined,
    is_first_rank,
    leave_to_first_rank,
    require_one_process,
)
from metarl.training.settings_file import TrainingFile

# NOTE: each command imports the modules that it needs when it runs, so that --help is fast. Lists
# and help read the options of families and agents without importing them: that would load torch.

_OVERVIEW = """\
usage: metarl COMMAND ...

Trains and evaluates agents that adapt to a new task, on families of tasks.

  metarl list [NAME ...]                  list families and agents; options and presets of NAME
  metarl list --zoo                       list the trained agents that come with metarl
  metarl check TASK [--options]           check that adaptation can be measured in a task
  metarl train AGENT TASK [--options]     meta-train an agent; creates a run folder, or one per seed
  metarl sweep FILE [--options]           train many settings and seeds, and compare the settings
  metarl evaluate RUN [--options]         evaluate it in test tasks; writes adaptation.csv
  metarl compare RUN [RUN ...]            compare agents and seeds in a table; can write CSV
  metarl plot RUN [RUN ...] [--options]   plot adaptation curves and more; writes PNG and SVG
  metarl report RUN [RUN ...] [--out F]   write one page of HTML: figures, table, films, settings
  metarl record RUN [--options]           record one trial in a test task; writes a GIF
  metarl export RUN --out FILE            write one acting step for torch.export or ONNX
  metarl card RUN [--share DIR]           write a model card; make a folder to share
  metarl push RUN USER/NAME               send settings, weights and card to the Hugging Face Hub
  metarl pull USER/NAME [--out DIR]       fetch a run from there into a new folder
  metarl benchmark AGENT TASK             measure steps per second on this machine

`metarl COMMAND --help` explains every option.
"""

_TRAIN_USAGE = """\
usage: metarl train AGENT TASK [--options]
       metarl train --config FILE [--options]
       metarl train --resume RUN [--options]

Meta-trains AGENT on the training tasks of TASK and writes a run folder. Options of the agent and
of the run are written --name VALUE, those of the task family --task.name VALUE; `metarl train AGENT
TASK --help` explains all of them with their defaults. For a family of your own write
your_module:namespace/Name-v0, for an agent of your own your_module:name: your_module is imported
first, from the current folder if it is not installed. FILE is the config.json of a run, which is
repeated, or a TOML file with agent, task, and if wanted preset and the tables agent_options,
task_options and run; other options override it. RUN is the folder of a run, which goes on; with
more --iterations it is prolonged.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: the arguments after `metarl`; by default those of this process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every encoding has "RL²"
    try:
        return _run_command(arguments)
    except SystemExit as stop:  # from the option parser, which has printed its message
        if stop.code == USAGE:
            leave_to_first_rank()
        return stop.code if isinstance(stop.code, int) else FAILURE
    except KeyboardInterrupt:
        print_error("Interrupted; nothing new was saved.")
        return INTERRUPTED
    except MetaRLError as error:
        _say(error)
        return USAGE if isinstance(error, ConfigError | UnknownNameError) else FAILURE
    except BrokenPipeError:  # nothing reads on, as in `metarl list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        return 128 + signal.SIGPIPE
    except OSError as error:
        print_error(f"{error.filename or 'The system'}: {error.strerror or error}.")
        return FAILURE


def _say(error: MetaRLError) -> None:
    """Prints an error, unless another of the processes that train together does."""
    try:
        is_first = is_first_rank()
    except ConfigError:  # this error: the environment says no number
        is_first = True
    if is_first:
        print_error(error)
    elif isinstance(error, RankError):
        if not error.is_reported:
            print_error(error)
    elif isinstance(error, ConfigError | UnknownNameError) and not are_joined():
        leave_to_first_rank()  # before the ranks are joined, each finds the same fault
    else:
        print_error(error)


def _run_command(arguments: Sequence[str]) -> int:
    if asks_for_help(arguments) and not is_first_rank():
        return SUCCESS
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
    if command != "train":
        require_one_process(f"metarl {command}")
    return COMMANDS[command](rest)


def _train(arguments: Sequence[str]) -> int:
    file, others = take_config(take_resumed(arguments))
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), others[:2]))
    if len(names) < 2:
        return _train_without_task(names, others)
    agent, task = names
    find_named(agent, task)
    preset, rest = _take_preset(agent, task, others[2:])
    options = parse(
        _train_options(agent, task, preset, file=file, declared=asks_for_help(rest)),
        rest,
        f"train {agent} {task}",
    )
    return run_training(agent, task, options, arguments)


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
    name = found.preset
    return None if name is None else registry.find_preset(agent, task, name), rest


def _train_without_task(names: Sequence[str], arguments: Sequence[str]) -> int:
    find_named(*names)
    config = registry.declared_agent(names[0]) if names else None
    if not asks_for_help(arguments):
        known = registry.task_ids() if names else registry.agent_names()
        raise ConfigError(
            f"{'TASK' if names else 'AGENT'} is missing: metarl train "
            f"{names[0] if names else 'AGENT'} TASK [--options], the names first. Known: "
            f"{', '.join(known)}."
        )
    print(_TRAIN_USAGE)
    print_overview(agents=config is None)
    if config is None:
        return SUCCESS
    print(flush=True)
    parse(config, ["--help"], f"train {names[0]} TASK")
    return SUCCESS


def _train_options(
    agent: str,
    task: str,
    preset: registry.Preset | None,
    *,
    file: TrainingFile | None = None,
    declared: bool = False,
) -> type[Any]:
    """A dataclass with the fields `agent`, `run`, `task`, `seeds`, `evaluate_every` and `track`.

    Args:
        agent: its name.
        task: id of the family.
        preset: overrides defaults.
        file: overrides defaults, and is overridden by the preset.
        declared: read the options without importing agent and family: enough for a help text.
    """
    from metarl.training.options import RunOptions

    config: type[Any] = (registry.declared_agent if declared else registry.agent_config)(agent)
    cls, registered = (registry.declared_family if declared else registry.family_class)(task)
    agent_names, run_names = ({f.name for f in dataclasses.fields(c)} for c in (config, RunOptions))
    if both := sorted(agent_names & run_names):
        raise ConfigError(
            f"{config.__name__} has options that every run has already: {', '.join(both)}. Rename "
            "them in that class."
        )
    agent_options, task_options, run = _defaults(agent, task, preset, file)
    require_known(agent, agent_options, option_names(config))
    require_known("a run", run, sorted(run_names))
    defaults = config(**typed_options(config, agent_options))
    form = task_form(registry.build_family(cls, {**registered, **task_options}))
    parts = {
        "agent": (Annotated[config, tyro.conf.OmitArgPrefixes], defaults),
        "run": (
            Annotated[RunOptions, tyro.conf.OmitArgPrefixes],
            RunOptions(**typed_options(RunOptions, run)),
        ),
        "task": (type(form), form),
    }
    fields = [(name, kind, dataclasses.field(default=v)) for name, (kind, v) in parts.items()]
    fields.append(("seeds", tuple[int, ...], dataclasses.field(default=(), metadata=SEEDS_HELP)))
    every = dataclasses.field(default=None, metadata=EVALUATE_HELP)
    fields.append(("evaluate_every", int | None, every))
    track = dataclasses.field(default=(), metadata=TRACK_HELP)
    fields.append(("track", tuple[Literal["wandb", "mlflow"], ...], track))
    made = dataclasses.make_dataclass("TrainOptions", fields, frozen=True, kw_only=True)
    made.__doc__ = f"Meta-trains {agent} on the training tasks of {task}."
    if known := registry.presets(agent, task):
        made.__doc__ += "\n\nPresets, whose values other options override:\n"
        for name, one in known.items():
            made.__doc__ += "\n" + "\n".join(preset_lines(one, f"--preset {name}"))
    return made


def _defaults(
    agent: str, task: str, preset: registry.Preset | None, file: TrainingFile | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Options of the agent, the task and the run that replace the defaults of their classes."""
    layers: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
    if file is not None:
        if file.preset is not None:
            named = registry.find_preset(agent, task, file.preset)
            layers.append((named.agent_options, named.task_options))
        layers.append((file.agent_options, file.task_options))
    if preset is not None:
        layers.append((preset.agent_options, preset.task_options))
    of_agent: dict[str, Any] = {}
    of_task: dict[str, Any] = {}
    for agent_options, task_options in layers:
        of_agent.update(agent_options)
        of_task.update(task_options)
    return of_agent, of_task, dict(file.run) if file else {}


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "list": list_names,
    "check": check,
    "train": _train,
    "sweep": sweep,
    **RESULTS,
    "report": report,
    **DEPLOYMENT,
    "benchmark": benchmark,
}
