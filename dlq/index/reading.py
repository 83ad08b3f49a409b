"""What the readers of the index share."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select

from dlq.index.database import IndexDatabase

Document = dict[str, Any]
"""A row by column name."""


class Reading:
    """Safe under threads; each call is one reading transaction. Raises StoreUnavailable."""

    def __init__(self, database: IndexDatabase) -> None:
        self._database, self._tables = database, database.tables

    def _fetch(self, query: Select[Any]) -> list[Document]:
        with self._database.transaction(reads=True) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _scalar(self, query: Select[Any]) -> Any:
        with self._database.transaction(reads=True) as connection:
            return connection.execute(query).scalar_one()
