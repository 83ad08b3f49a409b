"""Runs the parts of a benchmark command one after the other: a part that fails does not stop those behind it."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks import results
from benchmarks.stack import Bench, bench

_WIDTH = 150  # of the last table where there is no terminal to ask


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one part: its targets, or why it has none."""

    name: str
    seconds: float
    targets: list[tuple[str, str, bool]]
    failure: str | None = None

    @property
    def met(self) -> bool:
        return self.failure is None and all(met for _, _, met in self.targets)


def main(
    prog: str,
    description: str,
    parts: Mapping[str, str],
    *,
    unit: str,
    number: int,
    quick_number: int,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """`parts`: name → module with `run(bench) -> Section`. Exits with 1 when a part failed or a target is not met.

    `unit`: what `--records` (or `--letters`, …) counts; `number` and `quick_number` of them are its defaults. `choices`: further
    options, each of which takes some of these words; RESULTS.md has parts as a whole, and stays as it is then.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--only", nargs="+", choices=list(parts), help="these parts, not all")
    parser.add_argument("--quick", action="store_true", help="a short form; RESULTS.md stays as it is")
    parser.add_argument(f"--{unit}", type=int, dest="number", help=f"{unit} of a run; default {number}")
    for name, words in (choices or {}).items():
        parser.add_argument(
            f"--{name}", nargs="+", choices=words, help="of parts that have them; RESULTS.md stays as it is"
        )
    arguments = parser.parse_args()
    only = {name: given for name in choices or {} if (given := getattr(arguments, name))}
    amount = arguments.number or (quick_number if arguments.quick else number)
    with bench(amount, arguments.quick, only) as place:
        wanted = [name for name in parts if name in (arguments.only or parts)]
        outcomes = [_run(name, parts, place) for name in wanted]
    _show(outcomes)
    if not all(outcome.met for outcome in outcomes):
        raise SystemExit(1)


def _run(name: str, parts: Mapping[str, str], place: Bench) -> Outcome:
    print(f"{name} …", flush=True)
    began = time.monotonic()
    try:
        section = importlib.import_module(parts[name]).run(place)
    except Exception as error:
        traceback.print_exc()
        return Outcome(name, time.monotonic() - began, [], f"{type(error).__name__}: {error}".splitlines()[0])
    section.seconds = time.monotonic() - began
    print(section.render(), flush=True)
    if not place.quick and not place.only:
        results.write(section, list(parts))
    return Outcome(name, section.seconds, section.targets)


def _show(outcomes: list[Outcome]) -> None:
    table = Table(title="Targets", title_justify="left")
    for column in ("part", "seconds", "target", "measured", ""):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for outcome in outcomes:
        name, seconds = outcome.name, f"{outcome.seconds:.0f}"
        if outcome.failure is not None:
            table.add_row(name, seconds, "runs to its end", outcome.failure, "[red]failed")
        for wanted, measured, met in outcome.targets:
            table.add_row(name, seconds, wanted, measured, "[green]met" if met else "[red]not met")
            name = seconds = ""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(table)
