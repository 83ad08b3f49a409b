"""Fixtures of contracts that are kept by more than one database, and of tests that ask PostgreSQL alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.contract.postgres_stores import PLAN, Open, sql
from tests.contract.replay_scene import ReplayScene, replay_scene
from tests.providers.kafka import KafkaTopics
from tests.providers.postgres import Database
from tidegate.clock import ManualClock
from tidegate.config.sinks import PostgresSink
from tidegate.stages.plan import Plan
from tidegate.store import open_store
from tidegate.store.base import Store


@pytest.fixture
def make_replays(
    request: pytest.FixtureRequest, kafka: KafkaTopics, tmp_path: Path
) -> Iterator[Callable[..., ReplayScene]]:
    """`make_replays(**settings)`: a scene with an index in a fresh database: SQLite, or what a test is parametrised with."""
    sqlite = getattr(request, "param", "sqlite") == "sqlite"
    url = f"sqlite:///{tmp_path / 'index.sqlite'}" if sqlite else request.getfixturevalue("postgres").url
    with ExitStack() as scenes:
        yield lambda **settings: scenes.enter_context(replay_scene(kafka, url, **settings))


@pytest.fixture
def replays(make_replays: Callable[..., ReplayScene]) -> ReplayScene:
    """The scene as it is without settings."""
    return make_replays()


@pytest.fixture
def opened(postgres: Database) -> Iterator[Open]:
    """A prepared store of a plan (`PLAN`) in this test's database; closed afterwards."""
    stores: list[Store] = []

    def open_(plan: Plan = PLAN, **settings: Any) -> Store:
        sink = PostgresSink.model_validate({"type": "postgres", "url": postgres.url, **settings})
        stores.append(open_store(plan, sink, ManualClock()))
        stores[-1].prepare()
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


@pytest.fixture
def role(postgres: Database) -> Iterator[str]:
    """A user of this test's own, with the password `x`."""
    name = f"tidegate_{postgres.url.rsplit('/', 1)[1][-12:]}"
    sql(postgres, f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    yield name
    sql(postgres, f"DROP OWNED BY {name}")
    sql(postgres, f"DROP ROLE {name}")
