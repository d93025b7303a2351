"""Tables that fit a terminal: columns leave in an order of their own, names never."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

BORDER, PADDING = 1, 2


@dataclass
class Column:
    """One column of a table.

    Attributes
    ----------
    heading : str
        May have several lines.
    rank : int
        Which columns leave first where there is no room: those of the highest rank. 0 stays.
    right : bool
        Numbers end at the same place.
    cells : list of str
    """

    heading: str
    rank: int = 0
    right: bool = True
    cells: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The heading in one line."""
        return " ".join(self.heading.split())

    @property
    def width(self) -> int:
        """Characters that the widest line takes, with what is around it."""
        lines = (line for text in (self.heading, *self.cells) for line in text.split("\n"))
        return max(map(cell_len, lines)) + PADDING + BORDER


def fitting(columns: Sequence[Column], width: int) -> tuple[list[Column], list[Column]]:
    """Return the columns that a table of so many characters has room for, and those that leave, both in order."""
    staying = list(columns)
    for column in sorted(columns, key=lambda column: -column.rank):
        if not column.rank or sum(each.width for each in staying) + BORDER <= width:
            break
        staying.remove(column)
    return staying, [column for column in columns if column not in staying]


def print_table(
    console: Console,
    columns: Sequence[Column],
    *,
    title: str = "",
    sections: Sequence[int] = (),
    everything: bool = False,
) -> None:
    """Print columns of equally many cells, and below them which had no room.

    Parameters
    ----------
    console : Console
    columns : sequence of Column
        Not empty.
    title : str
    sections : sequence of int
        Rows above which there is a line.
    everything : bool
        All columns, also where lines then are longer than the terminal is wide.
    """
    width = max(console.width, sum(column.width for column in columns) + BORDER) if everything else console.width
    staying, leaving = fitting(columns, width)
    table = Table(title=Text(title) if title else None, title_justify="left", header_style="bold")
    for column in staying:
        table.add_column(column.heading, justify="right" if column.right else "left", no_wrap=True)
    rows = len(columns[0].cells)
    lines = [max(column.cells[row].count("\n") for column in staying) for row in range(rows)]
    for begin, end in pairwise(sorted({0, rows} | {row for row in sections if 0 < row < rows})):
        # what stands below each other is one cell, as rich takes a tenth of a millisecond for every one
        parts = [zip(column.cells[begin:end], lines[begin:end], strict=True) for column in staying]
        cells = ["\n".join(cell + "\n" * (most - cell.count("\n")) for cell, most in part) for part in parts]
        table.add_row(*map(Text, cells), end_section=True)  # text of a file is never read as markup
    terminal = console.width
    console.width = max(width, sum(column.width for column in staying) + BORDER)  # rich folds what is wider
    console.print(table)
    console.width = terminal
    if leaving:
        told = ", ".join(column.name for column in leaving)
        console.print(f"no room for: {told} (--wide prints them, --json too)", markup=False, soft_wrap=True)
