"""What commands print: a table for people, one JSON document for machines (`--json`)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PROSE = 24  # columns that a message needs to be readable at all
_PIPED = 160  # width when nobody's terminal sets one: a file or another program reads it
_WIDEST = 1000

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


def print_json(document: object) -> None:
    """`document` as indented JSON on stdout; what JSON does not know (dates, paths, decimals) as its text."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n")


def table(
    rows: Iterable[Mapping[str, object]], columns: Mapping[str, str] | Sequence[str], *, title: str | None = None
) -> Table:
    """A Rich table of `rows`. `columns`: the keys to show, or key → heading. Numbers are right-aligned; None is `–`.

    Cell text is taken as it is: `[red]` in a record's value is not markup. Only prose is broken over lines: an id that is
    broken cannot be copied.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    headings = dict(columns) if isinstance(columns, Mapping) else {key: key for key in columns}
    listed = list(rows)
    drawn = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD)
    for key, heading in headings.items():
        cells = [_cell(row.get(key)) for row in listed]
        numeric = any(_is_number(row.get(key)) for row in listed)
        prose = any(
            cell.count(" ") > 2 and not _is_number(row.get(key)) for cell, row in zip(cells, listed, strict=True)
        )
        least = _PROSE if prose else max(map(len, [heading, *cells]))
        drawn.add_column(heading, justify="right" if numeric else "left", overflow="fold", min_width=least)
    for row in listed:
        drawn.add_row(*(Text(_cell(row.get(key))) for key in headings))
    return drawn


def print_table(
    rows: Iterable[Mapping[str, object]], columns: Mapping[str, str] | Sequence[str], *, title: str | None = None
) -> None:
    """Draw `table(...)` on stdout: as wide as the terminal, but never so narrow that something is left out."""
    from rich.console import Console

    draw(table(rows, columns, title=title), Console())


def draw(drawn: Table, console: Console) -> None:
    """Print a table without leaving anything out, even if the terminal is too narrow for it."""
    from rich.measure import Measurement

    needed = Measurement.get(console, console.options.update(max_width=_WIDEST), drawn).minimum
    width, console.width = console.width, max(console.width if console.is_terminal else _PIPED, needed)
    try:
        console.print(drawn)
    finally:
        console.width = width


def show(
    rows: Sequence[Mapping[str, object]],
    columns: Mapping[str, str] | Sequence[str],
    *,
    as_json: bool,
    title: str | None = None,
) -> None:
    """`rows` as a JSON list with all their fields, or as a table of `columns`."""
    if as_json:
        print_json([dict(row) for row in rows])
    else:
        print_table(rows, columns, title=title)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ")
    return str(value)
