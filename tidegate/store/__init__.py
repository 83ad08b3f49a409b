"""Results and offsets in one transaction: the contract (base.py) and its two databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.clock import Clock, SystemClock
from tidegate.config.sinks import PostgresSink, SqliteSink

if TYPE_CHECKING:  # Plan brings pyarrow
    from tidegate.stages.plan import Plan
    from tidegate.store.base import Store


def open_store(plan: Plan, sink: PostgresSink | SqliteSink, clock: Clock | None = None) -> Store:
    """The store of a sink; nothing is connected yet. Only the database that is used is imported.

    Raises ConfigError when the plan's names or types do not fit a table.
    """
    if isinstance(sink, PostgresSink):
        from tidegate.store.postgres import PostgresStore

        return PostgresStore(plan, sink, clock or SystemClock())
    from tidegate.store.sqlite import SqliteStore

    return SqliteStore(plan, sink, clock or SystemClock())


__all__ = ["open_store"]
