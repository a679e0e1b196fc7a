"""A comparison as a table that fits the width of the terminal.

Cells are never broken. Columns for which there is no room are left out, the least important first,
and named below the table.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarl.text import visible

if TYPE_CHECKING:
    from metarl.results.comparison import Comparison
    from metarl.results.comparison_table import Column

LOG_WIDTH = 200
"""characters of a line where there is no terminal and COLUMNS is not set"""
LABEL_WORD = 24
"""longest word of a label that is never broken"""
GAP = 2
"""spaces between columns"""


def print_comparison(comparison: "Comparison", *, differences: bool) -> None:
    """Prints the table on stdout, in the width of the terminal or of COLUMNS.

    Args:
        comparison: rows of agents and references.
        differences: whether the column of differences is wanted.
    """
    from metarl.results.comparison_table import caption, columns, title

    console = Console(highlight=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = LOG_WIDTH
    label, *others = columns(comparison, differences)
    if console.options.ascii_only:  # an encoding that may not have the sign
        others = [
            replace(column, cells=[cell.replace("±", "+-") for cell in column.cells])
            for column in others
        ]
    shown, label_width = fitted(label, others, console.width)
    dropped = [column.heading for column in others if column not in shown]
    note = caption(comparison, [column.heading for column in shown])
    if dropped:
        note += f"; no room for {', '.join(dropped)}: --csv FILE has all"
    table = Table(box=box.SIMPLE, padding=(0, GAP - 1, 0, 0), title_justify="left")
    table.title, table.caption = Text(visible(title(comparison))), Text(visible(note))
    table.caption_justify = "left"
    table.add_column(label.heading, width=label_width, overflow="fold")
    for column in shown:
        justify = "left" if column.heading == "role" else "right"
        table.add_column(column.heading, width=column.width, justify=justify)  # type: ignore[arg-type]
    for index, name in enumerate(label.cells):
        table.add_row(Text(name), *(Text(column.cells[index]) for column in shown))
    console.print(table)


def fitted(label: "Column", others: Sequence["Column"], width: int) -> tuple[list["Column"], int]:
    """The columns that fit next to the label in `width` characters, and the label's width."""
    words = [min(len(word), LABEL_WORD) for cell in label.cells for word in cell.split()]
    longest = max(map(len, label.cells), default=0)
    narrow = max([*words, min(longest, LABEL_WORD), len(label.heading)])
    room = width - GAP - narrow - GAP
    shown = list(others)
    while len(shown) > 1 and sum(column.width + GAP for column in shown) > room:
        shown.remove(min(shown, key=lambda column: column.importance))
    rest = room - sum(column.width + GAP for column in shown)
    return shown, max(len(label.heading), min(longest, narrow + max(rest, 0)))
