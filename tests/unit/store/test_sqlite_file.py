"""How connections to one SQLite file begin."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Timer

import pytest
from sqlalchemy.exc import DatabaseError, OperationalError

from tidegate.store.sqlite import connect_file


def _begin(file: Path, timeout: int = 30_000) -> None:
    engine = connect_file(file, timeout=timeout)
    try:
        with engine.connect():
            pass
    finally:
        engine.dispose()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that has the file for itself, and not in WAL mode."""
    connection = sqlite3.connect(tmp_path / "store.db", isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE there (a)")
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


@pytest.mark.slow
def test_first_connections_at_once(tmp_path: Path) -> None:
    """All of them get the file, whoever of them puts it into WAL mode."""
    for number in range(40):
        gate, file = Barrier(6), tmp_path / f"{number}.db"

        def begin(_: int, gate: Barrier = gate, file: Path = file) -> None:
            gate.wait()
            _begin(file)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(begin, range(6)))


def test_a_connection_waits_for_the_file(tmp_path: Path, held: sqlite3.Connection) -> None:
    """A file that somebody has for a moment is waited for."""
    Timer(0.05, held.rollback).start()
    _begin(tmp_path / "store.db")


def test_a_file_that_is_not_given_back(tmp_path: Path, held: sqlite3.Connection) -> None:
    """At most as long as the sink's timeout says."""
    begun = time.monotonic()
    with pytest.raises(OperationalError, match="database is locked"):
        _begin(tmp_path / "store.db", 100)
    assert time.monotonic() - begun >= 0.1


def test_no_database(tmp_path: Path) -> None:
    """What is no matter of waiting is said at once."""
    (tmp_path / "store.db").write_bytes(b"no database" * 100)
    with pytest.raises(DatabaseError, match="not a database"):
        _begin(tmp_path / "store.db")
