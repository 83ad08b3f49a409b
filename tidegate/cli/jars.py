"""`tidegate jars`: fetch the jars of the local Kafka and of Spark, or check those that are there."""

from __future__ import annotations

from typing import Annotated

import typer

from tidegate.errors import StackError
from tidegate.local import jars as local_jars
from tidegate.local.progress import fetch

_SHOWN = 8  # problems that are listed; an empty cache has one for each of its jars


def jars(
    verify: Annotated[bool, typer.Option("--verify", help="Only compare what is cached with its checksums.")] = False,
    spark_jars: Annotated[
        bool, typer.Option("--spark-jars", help="Print those of Spark, as spark-submit's --jars takes them.")
    ] = False,
) -> None:
    """Fetch the jars of the local Kafka and of Spark's Kafka source into the user's cache, unless they are there unchanged.

    With --verify nothing is fetched, and the exit code is 1 when a jar is missing or changed.
    """
    if spark_jars:
        fetch("spark")
        typer.echo(local_jars.listed("spark"))
        return
    for configuration in local_jars.CONFIGURATIONS:
        if verify:
            _verify(configuration)
        else:
            fetch(configuration)
        count, megabytes = len(local_jars.expected(configuration)), local_jars.size(configuration) / 1e6
        typer.echo(
            f"{configuration}: {count} jars, {megabytes:.0f} MB, checksums match: {local_jars.home(configuration)}"
        )


def _verify(configuration: str) -> None:
    if problems := local_jars.damages(configuration):
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        found = "\n".join(f"  {line}" for line in [*problems[:_SHOWN], *more])
        raise StackError(
            f"{configuration}: {len(problems)} jars are not as they should be; run: tidegate jars\n{found}"
        )
