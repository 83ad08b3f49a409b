"""SQL without parameters, so that a percent sign in a name stays what it is: SQLAlchemy and psycopg would take it for one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection


def execute(connection: Connection, statement: str) -> None:
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement)
    finally:
        cursor.close()


def fetch(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    cursor = connection.connection.cursor()
    try:
        cursor.execute(query)
        return list(cursor.fetchall())
    finally:
        cursor.close()
