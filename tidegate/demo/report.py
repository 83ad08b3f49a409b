"""What is printed at the end: results, dead letters with an example each, late windows, ledger, and the comparison."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import psycopg
from rich.console import Console
from rich.text import Text

from tidegate.cli.output import draw, table
from tidegate.demo.compare import Comparison
from tidegate.ledger import LEDGER_COLUMNS

_WORST_HOURS = """
SELECT to_char(window_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS hour, origin, carrier, flights, departed,
       delay_total, delay_worst, aircraft
FROM hourly ORDER BY delay_total DESC NULLS LAST, window_start, origin, carrier LIMIT 8
"""
_BUSIEST = """
SELECT to_char(window_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS "from", dest, flights, late_arrivals,
       arrival_worst, carriers
FROM destinations ORDER BY flights DESC, window_start, dest LIMIT 8
"""
_LATE_WINDOWS = """
SELECT aggregation, to_char(window_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS "from",
       to_char(window_end AT TIME ZONE 'UTC', 'HH24:MI') AS "to", sum(missing)::bigint AS missing,
       sum(amended)::bigint AS amended
FROM tidegate_late_windows WHERE pipeline = %s GROUP BY aggregation, window_start, window_end
ORDER BY sum(missing + amended) DESC, window_start, aggregation LIMIT 8
"""
_SHOWN_VALUE = 110  # characters of an example

Row = Mapping[str, Any]


def print_results(console: Console, url: str, pipeline: str) -> None:
    """The top rows of each result table and of the late windows, from PostgreSQL."""
    with psycopg.connect(url) as connection:
        _print(console, "Hours with the most delay (table hourly, minutes)", _rows(connection, _WORST_HOURS))
        _print(console, "Busiest three hours by destination (table destinations)", _rows(connection, _BUSIEST))
        _print(console, "Windows with most late flights", _rows(connection, _LATE_WINDOWS, [pipeline]))


def _rows(connection: psycopg.Connection, statement: str, parameters: Sequence[str] = ()) -> list[Row]:
    cursor = connection.execute(statement.encode(), list(parameters) or None)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, map(_number, row), strict=True)) for row in cursor.fetchall()]


def _number(value: Any) -> Any:
    """PostgreSQL's exact sums and rounded averages come as Decimal: shown as what they are."""
    if not isinstance(value, Decimal):
        return value
    return int(value) if value == value.to_integral_value() and value.as_tuple().exponent == 0 else float(value)


def _print(console: Console, title: str, rows: Iterable[Row]) -> None:
    listed = list(rows)
    console.print()
    if listed:
        draw(table(listed, list(listed[0]), title=title), console)
    else:
        console.print(Text(f"{title}: none"))


def print_dead_letters(console: Console, letters: Iterable[Row]) -> None:
    """One line per reason, with the number of dead letters and one example."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for letter in letters:
        groups.setdefault((letter["stage"], _reason(letter)), []).append(letter)
    largest = sorted(groups.items(), key=lambda group: -len(group[1]))
    console.print(
        Text("\nDead letters by reason, with one example each (the topic keeps those that went back)\n", style="bold")
    )
    for (stage, reason), group in largest:
        first = group[0]
        said = Text.assemble(f"{len(group):>6}  ", (f"{stage}  {reason}", "bold"), f"  {first['message']}")
        _print_line(console, said)
        _print_line(console, Text(f"        {first['id']}  {_value(first)}", style="dim"))


def _print_line(console: Console, text: Text) -> None:
    """As much as a line of the terminal takes; all of it where there is none."""
    seen = console.is_terminal
    console.print(text, no_wrap=True, overflow="ellipsis" if seen else "ignore", crop=seen)


def _reason(letter: Row) -> str:
    """The failed rule, or the error type and the field."""
    first = letter["reasons"][0]
    if first.get("rule"):
        return str(first["rule"])
    return f"{letter['errorType']}({first['field']})" if first.get("field") else str(letter["errorType"])


def _value(letter: Row) -> str:
    if letter["value"] is None:
        return "null"
    value = letter["value"]
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= _SHOWN_VALUE else shown[:_SHOWN_VALUE] + "…"


def print_ledger(console: Console, rows: Sequence[Row]) -> None:
    """The ledger's rows (`partitions` of `tidegate ledger --json`), and what does not balance. Without the places in which
    no record is: all of them are wider than a terminal."""
    used = [name for name in LEDGER_COLUMNS if any(row[name] for row in rows)]
    listed = [
        {
            "partition": f"{row['topic']}-{row['partition']}",
            **{name.replace("_", "-"): row[name] for name in (*used, "balanced")},
        }
        for row in rows
    ]
    _print(console, "Ledger: every record read is in one place", listed)
    for row in rows:
        for problem in row["problems"]:
            console.print(Text(f"  {row['topic']}-{row['partition']}: {problem}", style="red"), soft_wrap=True)


def print_comparison(console: Console, comparisons: Sequence[Comparison]) -> bool:
    """The verdict, and examples of what differs. True: everything is equal."""
    rows = [
        {
            "compared": each.what,
            "expected rows": each.expected,
            "found rows": each.found,
            "values": each.values,
            "different rows": each.different,
            "": "equal" if each.equal else "DIFFERENT",
        }
        for each in comparisons
    ]
    _print(console, "Compared with the same answer in plain SQL over the CSV", rows)
    for each in comparisons:
        for example in each.examples:
            console.print(Text(f"  {each.what}: {example}", style="red"), soft_wrap=True)
    equal = all(each.equal for each in comparisons)
    values = sum(each.values for each in comparisons)
    console.print()
    if equal:
        console.print(
            Text(f"All {values:,} values are equal: nothing lost, nothing counted twice.", style="bold green")
        )
    else:
        console.print(Text("The run differs from the truth.", style="bold red"))
    return equal
