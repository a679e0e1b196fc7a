"""What all commands share at a terminal: words are parsed here, and said."""

import shlex
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro
from rich.console import Console
from rich.text import Text

SUCCESS, FAILURE, USAGE, INTERRUPTED = 0, 1, 2, 130
"""exit codes; interrupted by Ctrl-C"""

Options = TypeVar("Options")


def parse(kind: Callable[..., Options], words: Sequence[str], command: str) -> Options:
    """The options of a command, a dataclass, from its words."""
    return tyro.cli(kind, args=list(words), prog=f"metarl {command}")


def say(text: str) -> None:
    """Plain text, not broken into lines, so that paths and commands can be copied."""
    Console(highlight=False, soft_wrap=True).print(Text(text))


def complain(problem: object) -> None:
    """The same in red on stderr, with the name of the program."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        Text.assemble(("metarl: ", "bold red"), (str(problem), "red"))
    )


def in_shell(*words: object) -> str:
    """A command of metarl as one types it, quoted where needed."""
    return shlex.join(["metarl", *map(str, words)])
