"""What tests of the PostgreSQL store do to its server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import make_url

from tests.contract.store_records import flights_plan
from tidegate.record import TopicPartition
from tidegate.store.base import Store

if TYPE_CHECKING:
    from tests.providers.postgres import Database

Open = Callable[..., Store]
TP = TopicPartition("flights", 0)
PLAN = flights_plan(measures=["flights"], groups=["overall"])


def sql(postgres: Database, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def kill_others(postgres: Database) -> None:
    sql(postgres, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tidegate'")


def as_user(url: str, role: str) -> str:
    return make_url(url).set(username=role, password="x").render_as_string(hide_password=False)
