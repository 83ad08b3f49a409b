"""`tidegate demo`: a year of real flights through a real broker, worker and database, and the proof."""

from __future__ import annotations

from typing import Annotated

import typer


def _speed(text: str) -> float | None:
    """Times real time; None: as fast as it goes."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if speed <= 0:
        raise typer.BadParameter(f"{text!r}: expected `max` or a number above 0, such as 100000")
    return speed


def demo(
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many flights.")] = None,
    speed: Annotated[
        str, typer.Option(help="Times real time, or `max`. A year at 1000000 takes half a minute.")
    ] = "max",
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")] = False,
    poison: Annotated[int, typer.Option(min=0, help="Malformed records to strew in.")] = 40,
    fallback: Annotated[
        bool,
        typer.Option(
            "--fallback",
            help="Kill the worker in mid-stream: Spark takes over, hands back, and late flights are brought in.",
        ),
    ] = False,
    console: Annotated[
        bool, typer.Option("--console", help="At the end open the dead letters' console, and keep everything running.")
    ] = False,
) -> None:
    """Stream the flights that left New York in 2013 through Kafka and a Faust worker into PostgreSQL, mend dead letters
    and replay them, and check every number.

    It takes about two minutes on two cores, with --fallback half a minute more. Needs Java 17 or newer and, the first time,
    the network. Nothing stays behind. The exit code is 1 if anything differs from the same answer computed in plain SQL
    over the CSV.
    """
    try:  # the imports too: they take a second
        from rich.console import Console

        from tidegate.demo.run import Options, run_demo

        equal = run_demo(Options(limit, _speed(speed), keep, poison, fallback, console), Console())
    except KeyboardInterrupt:
        typer.echo("stopped; nothing is left behind")
        raise typer.Exit(130) from None
    if not equal:
        raise typer.Exit(1)
