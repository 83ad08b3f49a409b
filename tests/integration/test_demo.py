"""The demo: on the real thing, end to end, with every number compared; and a comparison that would notice."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import psutil
import psycopg
import pyarrow as pa
import pytest

from tests.harness import wait_until
from tests.providers.postgres import Database
from tidegate.demo.compare import Comparison, compare_dead_letters, compare_with_store
from tidegate.demo.flights import read_departures
from tidegate.demo.truth import PRODUCED_SCHEMA, compute_truth, dead_letters

pytestmark = pytest.mark.slow

_TIDEGATE = [sys.executable, "-c", "from tidegate.cli.main import run; print('up', flush=True); run()"]


def _demo(temporary: Path, *options: str) -> subprocess.Popen[str]:
    """The command as a user starts it, with a folder for temporary files of its own."""
    return subprocess.Popen(
        [*_TIDEGATE, "demo", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), "COLUMNS": "200"},
    )


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Empty before and after. Short, and open to PostgreSQL's own user."""
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
        assert list(Path(name).iterdir()) == []


@pytest.mark.kafka
@pytest.mark.postgres
def test_the_demo_ends_with_every_value_equal(temporary: Path, embedded_stack: None) -> None:
    """Three weeks of flights through Kafka, worker and PostgreSQL are what plain SQL says; nothing stays behind."""
    with _demo(temporary, "--limit", "20000") as process:
        out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    assert re.search(r"All [\d,]+ values are equal", out)
    for part in ("Hours with the most delay", "Busiest three hours", "Dead letters by reason", "Windows that miss most",
                 "notNull(tailnum)", "registration", "MalformedJson", "Ledger"):  # fmt: skip
        assert part in out


def _wait_for(moment: str, process: subprocess.Popen[str]) -> None:
    """Until the demo is at that moment, however fast the machine is."""
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    if moment == "reading":
        time.sleep(0.5)
    elif moment == "streaming":
        assert any("produced" in line for line in process.stdout)
    else:
        program = {"starting the servers": "postgres", "starting the worker": "worker.app"}[moment]
        wait_until(lambda: any(program in words for words in _family_words(process)), 60, moment)


def _family_words(process: subprocess.Popen[str]) -> Iterator[list[str]]:
    """The command line of everything that the demo has started."""
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            yield [Path(word).name for word in child.cmdline()]


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.chaos
@pytest.mark.parametrize("moment", ["reading", "starting the servers", "starting the worker", "streaming"])
def test_ctrl_c_at_any_moment_leaves_nothing(moment: str, temporary: Path, embedded_stack: None) -> None:
    """While reading, starting or streaming: no process and no directory stays."""
    with _demo(temporary) as process:
        _wait_for(moment, process)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


@pytest.mark.kafka
@pytest.mark.postgres
def test_with_keep_the_stack_answers_until_ctrl_c(temporary: Path, embedded_stack: None) -> None:
    """How to connect is printed, holds, and ends with everything else."""
    with _demo(temporary, "--limit", "2000", "--keep") as process:
        assert process.stdout is not None
        url = ""
        for line in process.stdout:
            if found := re.search(r"psql '(postgresql://\S+)'", line):
                url = found[1]
            if "tidegate dlq list" in line:
                break
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT sum(flights) > 1900 FROM hourly").fetchone() == (True,)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2)


@pytest.fixture(scope="module")
def truth() -> duckdb.DuckDBPyConnection:
    """Of some flights, as if all were in one partition."""
    flights = read_departures(2000)
    columns = (
        [flight.row for flight in flights],
        [None] * len(flights),
        [0] * len(flights),
        list(range(len(flights))),
        [flight.timestamp for flight in flights],
    )
    arrays = [pa.array(values, field.type) for values, field in zip(columns, PRODUCED_SCHEMA, strict=True)]
    return compute_truth(pa.Table.from_arrays(arrays, schema=PRODUCED_SCHEMA))


def _store(connection: psycopg.Connection, truth: duckdb.DuckDBPyConnection) -> None:
    """Tables as a run leaves them, filled with the truth itself."""
    window = "window_start timestamptz, window_end timestamptz"
    connection.execute(
        f"CREATE TABLE hourly ({window}, origin text, carrier text, flights bigint, departed bigint, "
        "delay_total numeric, delay_average float8, delay_worst int, kilometres float8, aircraft bigint, "
        "first_flight int, last_flight int)"
    )
    connection.execute(
        f"CREATE TABLE destinations ({window}, dest text, flights bigint, late_arrivals bigint, arrival_worst int, "
        "carriers bigint)"
    )
    connection.execute(
        f"CREATE TABLE tidegate_late_windows (pipeline text, aggregation text, {window}, partition int, missing bigint)"
    )
    connection.execute(
        "CREATE TABLE tidegate_partitions (pipeline text, partition int, read bigint, accepted bigint, "
        "dead_lettered bigint, late bigint, skipped bigint)"
    )
    for table, source in {
        "hourly": "hourly",
        "destinations": "destinations",
        "tidegate_late_windows": (
            "(SELECT 'flights', aggregation, window_start, window_end, 0, missing FROM late_windows)"
        ),
        "tidegate_partitions": "(SELECT 'flights', * FROM ledger)",
    }.items():
        rows = truth.execute(
            f"SELECT * REPLACE (make_timestamp(window_start * 1000) AS window_start, "
            f"make_timestamp(window_end * 1000) AS window_end) FROM {source}"
            if table != "tidegate_partitions"
            else f"SELECT * FROM {source}"
        ).fetchall()
        marks = ", ".join(["%s"] * len(rows[0]))
        with connection.cursor() as cursor:
            cursor.execute("SET TimeZone = 'UTC'")
            cursor.executemany(f"INSERT INTO {table} VALUES ({marks})".encode(), rows)


def _compare(postgres: Database, truth: duckdb.DuckDBPyConnection) -> dict[str, Comparison]:
    return {each.what: each for each in compare_with_store(truth, postgres.url, "flights")}


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE hourly SET flights = flights + 1 WHERE ctid = (SELECT min(ctid) FROM hourly)", "hourly"),
        ("UPDATE hourly SET kilometres = kilometres * 1.00000001", "hourly"),
        ("UPDATE hourly SET delay_total = NULL WHERE ctid = (SELECT min(ctid) FROM hourly)", "hourly"),
        ("DELETE FROM destinations WHERE ctid = (SELECT min(ctid) FROM destinations)", "destinations"),
        ("INSERT INTO destinations SELECT * FROM destinations LIMIT 1", "destinations"),
        ("UPDATE destinations SET window_start = window_start + interval '1 hour' WHERE dest = 'ATL'",
         "destinations"),
        ("UPDATE tidegate_late_windows SET missing = missing + 1", "late windows"),
        ("UPDATE tidegate_partitions SET late = late - 1, accepted = accepted + 1", "ledger"),
    ],
)  # fmt: skip
def test_one_wrong_row_is_found(postgres: Database, truth: duckdb.DuckDBPyConnection, change: str, what: str) -> None:
    """A count, a sum in its ninth digit, a null, a row too few or too many, another window: each is seen, alone."""
    with psycopg.connect(postgres.url) as connection:
        _store(connection, truth)
    before = _compare(postgres, truth)
    assert all(each.equal and each.expected for each in before.values())
    with psycopg.connect(postgres.url) as connection:
        connection.execute(change.encode())
    after = _compare(postgres, truth)
    assert [name for name, each in after.items() if not each.equal] == [what]
    assert after[what].examples


def test_a_dead_letter_too_few_too_many_or_twice_is_found(truth: duckdb.DuckDBPyConnection) -> None:
    """The topic must hold exactly the right records, each once."""
    right = [{"partition": partition, "offset": offset} for partition, offset in dead_letters(truth)]
    assert compare_dead_letters(truth, right).equal
    assert not compare_dead_letters(truth, right[1:]).equal
    assert not compare_dead_letters(truth, [*right, {"partition": 0, "offset": 1}]).equal
    assert not compare_dead_letters(truth, [*right, right[0]]).equal
