"""The command `metarl check`: the name of a task goes in, what it keeps and breaks is said."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from metarl import registry
from metarl.cli.terminal import FAILURE, SUCCESS, parse, say
from metarl.errors import ConfigError

# NOTE: what examines is imported when it is needed: help comes fast.

_USAGE = """\
usage: metarl check TASK [--workers INT] [--seed INT] [--task.NAME VALUE ...]

Examines whether adaptation can be measured in TASK: whether the task stays over resets, makes a
difference, is hidden from the agent, and much more. TASK is the id of any Gymnasium environment
or task family; for one of your own write your_module:namespace/Name-v0. Exit code 0 if nothing is
broken, else 1.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Examines whether a task environment keeps what adaptation is measured by."""

    workers: int = 2
    """processes that are tried beside this one; 0 saves the seconds that they cost"""
    seed: int = 0
    """of all that is drawn"""


def check(words: Sequence[str]) -> int:
    """Runs the command; exit code 0 if nothing is broken."""
    if not words or words[0].startswith("-"):
        if not {"-h", "--help"} & set(words):
            raise ConfigError(
                "TASK is missing: metarl check TASK [--options], the name first. Known: "
                f"{', '.join(registry.task_ids())}."
            )
        print(_USAGE, end="")
        return SUCCESS
    options = parse(_options(words[0]), words[1:], f"check {words[0]}")
    from metarl.testing import examine_task

    report = examine_task(
        words[0],
        workers=options.workers,
        seed=options.seed,
        **dataclasses.asdict(options.task),
    )
    say(str(report))
    return FAILURE if report.broken else SUCCESS


def _options(task: str) -> type[Any]:
    """`CheckOptions` and the field `task`, the family's options."""
    cls, registered = registry.family_class(task)
    default = dataclasses.field(default=registry.build_family(cls, registered))
    made = dataclasses.make_dataclass(
        "CheckOptions", [("task", cls, default)], bases=(CheckOptions,), frozen=True, kw_only=True
    )
    made.__doc__ = CheckOptions.__doc__
    return made
