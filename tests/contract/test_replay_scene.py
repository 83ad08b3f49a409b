"""The scene of the replays' tests, where a test goes wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlq.index.database import IndexDatabase
from dlq.index.writer import IndexWriter
from tests.contract.replay_scene import Killed, replay_scene
from tests.providers.kafka import KafkaTopics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def open_files(folder: Path) -> set[str]:
    """The files of a folder that this process has open."""
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return {name for link in links if link.is_symlink() and (name := str(link.readlink())).startswith(f"{folder}/")}


def broken_off(kafka: KafkaTopics, folder: Path) -> None:
    with replay_scene(kafka, f"sqlite:///{folder / 'index.sqlite'}") as scene:
        scene.letters(range(3))
        assert open_files(folder)
        raise Killed


def test_closed_whatever_happens(kafka: KafkaTopics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene whose test is broken off leaves no connection to its index, nor does one that cannot be made: either would fail
    the next test."""
    with pytest.raises(Killed):
        broken_off(kafka, tmp_path)
    assert not open_files(tmp_path)

    def not_made(writer: IndexWriter, database: IndexDatabase) -> None:
        assert open_files(tmp_path)  # it has been prepared
        raise Killed

    monkeypatch.setattr(IndexWriter, "__init__", not_made)
    with pytest.raises(Killed):
        broken_off(kafka, tmp_path)
    assert not open_files(tmp_path)
