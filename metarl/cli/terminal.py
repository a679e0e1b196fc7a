"""Parsing of options and printing of text, shared by all commands."""

import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from io import StringIO
from typing import TypeVar

import tyro
from rich.console import Console
from rich.text import Text

from metarl.text import visible
from metarl.training.launcher import is_first_rank

SUCCESS, FAILURE, USAGE, INTERRUPTED = 0, 1, 2, 130
"""exit codes; 130 after Ctrl-C, and 128 + its number after another signal"""

Options = TypeVar("Options")


def parse(options: Callable[..., Options], arguments: Sequence[str], command: str) -> Options:
    """The options of a command, a dataclass, from its arguments.

    Of several ranks the first one alone prints what is wrong with them, or the help.
    """
    with ExitStack() as quiet:
        if not is_first_rank():
            quiet.enter_context(redirect_stdout(StringIO()))
            quiet.enter_context(redirect_stderr(StringIO()))
        return tyro.cli(options, args=list(arguments), prog=f"metarl {command}")


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether the options of a command are to be explained."""
    return not {"-h", "--help"}.isdisjoint(arguments)


def print_text(text: str) -> None:
    """Prints plain text without line breaks, so that paths and commands can be copied.

    Control characters are written as escapes, because parts of the text may come from files.
    """
    Console(highlight=False, soft_wrap=True).print(Text(visible(text, lines=True)))


def print_error(problem: object) -> None:
    """Prints a message in red on stderr, after the name of the program."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        Text.assemble(("metarl: ", "bold red"), (visible(problem, lines=True), "red"))
    )


def has_option(arguments: Sequence[str], name: str) -> bool:
    """Whether an option is among the arguments, as `name VALUE` or `name=VALUE`."""
    return any(word.partition("=")[0] == name for word in arguments)


def shell_command(*arguments: object) -> str:
    """A command of metarl as typed in a shell, quoted where needed."""
    return shlex.join(["metarl", *map(str, arguments)])
