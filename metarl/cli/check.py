"""The command `metarl check`: runs all checks on a task environment."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from metarl import registry
from metarl.cli.modules import find_named
from metarl.cli.task_form import task_form
from metarl.cli.terminal import FAILURE, SUCCESS, asks_for_help, parse, print_text
from metarl.errors import ConfigError
from metarl.options import plain_options

# NOTE: the checks are imported when they run, so that --help is fast.

_USAGE = """\
usage: metarl check TASK [--workers INT] [--seed INT] [--task.NAME VALUE ...]

Checks whether adaptation can be measured in TASK: whether the task persists over resets, makes a
difference, is hidden from the agent, and more. TASK is the id of any Gymnasium environment or task
family; for your own, write your_module:namespace/Name-v0. Exit code 0 if no check fails, else 1.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Checks whether adaptation can be measured in a task environment."""

    workers: int = 2
    """worker processes to test; 0 tests none and saves a few seconds"""
    seed: int = 0
    """of all random draws"""


def check(words: Sequence[str]) -> int:
    """Runs the command; exit code 0 if no check fails."""
    if not words or words[0].startswith("-"):
        if not asks_for_help(words):
            raise ConfigError(
                "TASK is missing: metarl check TASK [--options], with TASK first. Known: "
                f"{', '.join(registry.task_ids())}."
            )
        print(_USAGE, end="")
        return SUCCESS
    find_named(words[0])
    lookup = registry.declared_family if asks_for_help(words) else registry.family_class
    options = parse(_options(*lookup(words[0])), words[1:], f"check {words[0]}")
    from metarl.testing import run_checks

    report = run_checks(
        words[0],
        workers=options.workers,
        seed=options.seed,
        task_options=plain_options(options.task),
    )
    print_text(str(report))
    return FAILURE if report.failed else SUCCESS


def _options(cls: type[Any], registered: dict[str, Any]) -> type[Any]:
    """`CheckOptions` with an additional field `task`: the family's options."""
    form = task_form(registry.build_family(cls, registered))
    default = dataclasses.field(default=form)
    made = dataclasses.make_dataclass(
        "CheckOptions",
        [("task", type(form), default)],
        bases=(CheckOptions,),
        frozen=True,
        kw_only=True,
    )
    made.__doc__ = CheckOptions.__doc__
    return made
