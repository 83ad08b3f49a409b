"""Fetching jars in front of a person: a progress bar the first time, nothing when they are cached."""

from __future__ import annotations

from pathlib import Path

from tidegate.local import jars


def fetch(configuration: str) -> Path:
    """The folder of the jars, fetched under a progress bar on stderr if needed. Raises StackError when that fails."""
    if not jars.damages(configuration):
        return jars.home(configuration)
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("Kafka's jars, once: {task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking up", total=None)

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        return jars.ensure(configuration, show)
