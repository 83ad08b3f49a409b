"""Fixtures of contracts that are kept by more than one database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.replay_scene import ReplayScene
from tests.providers.kafka import KafkaTopics


@pytest.fixture
def make_replays(
    request: pytest.FixtureRequest, kafka: KafkaTopics, tmp_path: Path
) -> Iterator[Callable[..., ReplayScene]]:
    """`make_replays(**settings)`: a scene with an index in a fresh database: SQLite, or what a test is parametrised with."""
    sqlite = getattr(request, "param", "sqlite") == "sqlite"
    url = f"sqlite:///{tmp_path / 'index.sqlite'}" if sqlite else request.getfixturevalue("postgres").url
    scenes: list[ReplayScene] = []

    def make_(**settings: Any) -> ReplayScene:
        scenes.append(ReplayScene(kafka, url, **settings))
        return scenes[-1]

    yield make_
    for made in scenes:
        made.close()


@pytest.fixture
def replays(make_replays: Callable[..., ReplayScene]) -> ReplayScene:
    """The scene as it is without settings."""
    return make_replays()
