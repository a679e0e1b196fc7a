"""The command `metarl benchmark`: the speed of an agent on a task family, on this machine."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from metarl import registry
from metarl.cli.modules import find_named
from metarl.cli.task_form import task_form
from metarl.cli.terminal import SUCCESS, asks_for_help, parse, print_text
from metarl.errors import ConfigError
from metarl.options import plain_options

# NOTE: what measures is imported when it runs, so that --help is fast.

_USAGE = """\
usage: metarl benchmark AGENT TASK [--options]

Measures steps per second of the environment alone, of rollouts with the agent's policy and of
training, for several numbers of tasks, and compares them with the rate at which this machine
multiplies matrices. Options of the agent are written --agent.name VALUE, those of the task family
--task.name VALUE. Run it on an idle machine.
"""


def benchmark(arguments: Sequence[str]) -> int:
    """Runs the command."""
    names = [word for word in arguments[:2] if not word.startswith("-")]
    if len(names) < 2:
        if asks_for_help(arguments):
            print(_USAGE, end="")
            return SUCCESS
        raise ConfigError(
            "AGENT or TASK is missing: metarl benchmark AGENT TASK [--options], the names first, "
            "such as metarl benchmark rl2 metarl/BernoulliBandit-v0."
        )
    agent, task = names
    find_named(agent, task)
    rest = arguments[2:]
    kind = _options(agent, task, declared=asks_for_help(rest))
    options = parse(kind, rest, f"benchmark {agent} {task}")
    from metarl.training import speed

    chosen = plain_options(options.agent)
    del chosen["num_tasks"]
    found = speed.benchmark(
        agent,
        task,
        agent_options=chosen,
        task_options=plain_options(options.task),
        options=options.speed,
    )
    rows = speed.table(found)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print_text("  ".join(map(str.rjust, row, widths)))
    print_text(
        "Medians over the rounds. The limit is the rate of torch's products of matrices; the share "
        "counts the products that the agent's definition needs."
    )
    if options.speed.out is not None:
        print_text(f"The page is {options.speed.files[0]}.")
    return SUCCESS


def _options(agent: str, task: str, *, declared: bool) -> type[Any]:
    from metarl.training.options import SpeedOptions

    config: type[Any] = (registry.declared_agent if declared else registry.agent_config)(agent)
    cls, registered = (registry.declared_family if declared else registry.family_class)(task)
    form = task_form(registry.build_family(cls, registered))
    parts = [
        ("speed", Annotated[SpeedOptions, tyro.conf.OmitArgPrefixes], SpeedOptions(progress=True)),
        ("agent", config, config()),
        ("task", type(form), form),
    ]
    fields = [(name, kind, dataclasses.field(default=value)) for name, kind, value in parts]
    made = dataclasses.make_dataclass("BenchmarkOptions", fields, frozen=True, kw_only=True)
    made.__doc__ = f"Measures the speed of {agent} on {task}."
    return made
