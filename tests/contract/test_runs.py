"""Runs in the database: the same on SQLite and PostgreSQL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tidegate.clock import ManualClock
from tidegate.config.sinks import PostgresSink, SqliteSink
from tidegate.errors import StoreUnavailable
from tidegate.store.raw import execute
from tidegate.store.runs import Beat, Position, Runs, open_runs
from tidegate.store.tables import qualified

if TYPE_CHECKING:
    from tests.providers.postgres import Database

FIRST = Beat("a", query="q", host="h", pid=1, trigger="once")
FULL = replace(
    FIRST, state="failed", doing="x", error="100 % of ½", batches=3, read=2**40, records_per_second=1.5, batch_seconds=0.25,
    positions=(Position("t", 0, 2**40, 7, -5), Position("t", 1)), metrics="http://m", ui="http://u", published={"kafka": 2**40},
)  # fmt: skip


class RunsSuite(ABC):
    @pytest.fixture
    def runs(self) -> Iterator[Runs]:
        opened = self.open("p")
        yield opened
        opened.close()

    @abstractmethod
    def open(self, pipeline: str) -> Runs: ...

    @abstractmethod
    def pass_by(self, seconds: float) -> None:
        """Time, since the last beats."""

    def test_there_is_none_before_the_first(self, runs: Runs) -> None:
        """Nor is a table needed to say so."""
        assert runs.recent() == []

    def test_a_beat_is_read_back(self, runs: Runs) -> None:
        """All that the run has said, the last time; since when there is a row, and how old the beat is."""
        runs.prepare()
        runs.prepare()
        assert runs.beat(FIRST) is False
        [before] = runs.recent()
        assert (before.said, before.state, before.alive, before.stop_asked) == (FIRST, "running", True, False)
        self.pass_by(4)
        assert 4 <= runs.recent()[0].age < 9
        runs.beat(FULL)
        [after] = runs.recent()
        assert (after.said, after.state, after.alive) == (FULL, "failed", False)
        assert after.age < 4
        assert after.started <= before.started < after.beaten

    def test_a_table_of_an_older_version(self, runs: Runs) -> None:
        """It gets the column that it lacks, and what it has stays."""
        runs.prepare()
        runs.beat(FIRST)
        with runs._transaction() as connection:
            execute(connection, f"ALTER TABLE {qualified(runs._table)} DROP COLUMN published")
        runs.prepare()
        assert runs.recent()[0].said == FIRST
        runs.beat(FULL)
        assert runs.recent()[0].said == FULL

    def test_a_run_without_a_beat_is_gone(self, runs: Runs) -> None:
        """One that has ended is not, however long ago that was; after a week both are forgotten."""
        runs.prepare()
        runs.beat(FIRST)
        runs.beat(replace(FIRST, run="b", state="finished"))
        self.pass_by(11)
        assert {one.said.run: (one.state, one.alive) for one in runs.recent()} == {
            "a": ("gone", False),
            "b": ("finished", False),
        }
        self.pass_by(7 * 24 * 3600)
        runs.prepare()
        assert runs.recent() == []

    def test_one_that_is_asked_to_stop_learns_it(self, runs: Runs) -> None:
        """With every beat from then on; another run does not, nor one of the same name in another pipeline."""
        runs.prepare()
        other = self.open("other")
        for each, beat in ((runs, FIRST), (runs, replace(FIRST, run="b")), (other, FIRST)):
            each.beat(beat)
        runs.ask_to_stop("a")
        assert {one.said.run: one.state for one in runs.recent()} == {"a": "stopping", "b": "running"}
        assert [runs.beat(FIRST), runs.beat(FIRST), runs.beat(replace(FIRST, run="b")), other.beat(FIRST)] == [
            True, True, False, False,
        ]  # fmt: skip
        other.close()

    def test_twenty_are_listed_and_the_living_first(self, runs: Runs) -> None:
        """A run that goes on for days is not hidden by others that failed meanwhile."""
        runs.prepare()
        runs.beat(FIRST)
        self.pass_by(5)
        for number in range(25):
            runs.beat(replace(FIRST, run=f"r{number}", state="failed"))
        found = runs.recent()
        assert (len(found), found[0].said.run) == (20, "a")

    def test_text_that_a_database_does_not_hold_is_no_obstacle(self, runs: Runs) -> None:
        """An error that quotes a NUL."""
        runs.prepare()
        runs.beat(replace(FIRST, error="a\0b"))
        assert runs.recent()[0].said.error == "a�b"


class TestSqlite(RunsSuite):
    """SQLite in a file."""

    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> None:
        self.path, self.clock = tmp_path / "store.db", ManualClock()

    def open(self, pipeline: str) -> Runs:
        return open_runs(SqliteSink(type="sqlite", path=str(self.path)), pipeline, self.clock)

    def pass_by(self, seconds: float) -> None:
        self.clock.advance(seconds)


@pytest.mark.postgres
@pytest.mark.slow  # each test has a fresh database
class TestPostgres(RunsSuite):
    """PostgreSQL, in a schema that is not there before."""

    @pytest.fixture(autouse=True)
    def database(self, postgres: Database) -> None:
        self.url = postgres.url

    def open(self, pipeline: str) -> Runs:
        sink: dict[str, Any] = {"type": "postgres", "url": self.url, "schema": "new"}
        return open_runs(PostgresSink.model_validate(sink), pipeline)

    def pass_by(self, seconds: float) -> None:
        """The database's clock is the machine's: what there is becomes older instead."""
        with psycopg.connect(self.url) as connection:
            ms = round(seconds * 1000)
            connection.execute("UPDATE new.tidegate_runs SET started = started - %s, beaten = beaten - %s", (ms, ms))


def test_a_database_that_is_away() -> None:
    """An outage as any other, with the sink's name."""
    sink = PostgresSink.model_validate({"type": "postgres", "url": "postgresql://127.0.0.1:1/x"})
    runs = open_runs(sink, "p")
    with pytest.raises(StoreUnavailable, match="sink 'postgres'"):
        runs.recent()
    runs.close()
