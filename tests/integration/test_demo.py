"""The demo: on the real thing, end to end, with every number compared; and a comparison that would notice."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import duckdb
import psutil
import psycopg
import pyarrow as pa
import pytest

from tests.harness import wait_until
from tests.providers.postgres import Database
from tidegate.demo.compare import Comparison, compare_places, compare_with_store
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
@pytest.mark.spark
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("embedded_stack", "spark_jars")
def test_all_acts_end_with_every_value_equal_and_the_console_open(temporary: Path) -> None:
    """Worker, SIGKILL, Spark, worker, late flights, mended dead letters: all as plain SQL says. Everything then answers until
    Ctrl-C, and nothing stays behind."""
    with _demo(temporary, "--limit", "10000", "--fallback", "--console") as process:
        out = _read_up_to("console   http", process)
        assert re.search(r"All [\d,]+ values are equal", out), out
        for part in ("kill -KILL", "Hours with the most delay", "Busiest three hours", "Windows with most late flights",
                     "Dead letters by reason", "notNull(tailnum)", "registration", "MalformedJson", "Ledger"):  # fmt: skip
            assert part in out
        by_spark = re.search(r"Spark has done ([\d,]+) records", out)
        assert by_spark is not None
        assert int(by_spark[1].replace(",", "")) > 4000
        assert re.search(r"missing in windows: [1-9]\d* before, 0 now", out)
        mended = re.search(r"(\d+) of (\d+) would pass now", out)
        assert mended is not None
        assert mended[1] == mended[2]
        assert f"is done: {mended[1]} ok" in out
        url, console, token = _addresses(out)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT sum(flights) > 9900 FROM hourly").fetchone() == (True,)
        biggest = re.search(r"the biggest, (\w+):", out)
        assert biggest is not None
        assert _state(console, token, biggest[1]) == "resolved"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            _state(console, "somebody else's token", biggest[1])
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2)


def _read_up_to(last: str, process: subprocess.Popen[str]) -> str:
    """What it prints until a line has `last`, or it ends."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if last in line:
            break
    return "".join(lines)


def _addresses(out: str) -> tuple[str, str, str]:
    """The database's URL, the console's, and its token."""
    database = re.search(r"psql '(postgresql://\S+)'", out)
    console = re.search(r"console   (http://\S+)  token (\S+)", out)
    assert database is not None
    assert console is not None
    return database[1], console[1], console[2]


def _state(console: str, token: str, group: str) -> str:
    """Of a group, as the console's API says."""
    address = f"{console}/api/group?group={group}"
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["state"])


def _wait_for(moment: str, process: subprocess.Popen[str]) -> None:
    """Until the demo is at that moment, however fast the machine is."""
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    if moment == "reading":
        time.sleep(0.5)
    elif moment == "streaming":
        assert any("produced" in line for line in process.stdout)
    elif moment == "Spark at work":
        assert "Spark has the pipeline" in _read_up_to("Spark has the pipeline", process)
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
    _interrupt(moment, temporary)


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.spark
@pytest.mark.chaos
@pytest.mark.usefixtures("embedded_stack", "spark_jars")
def test_ctrl_c_while_spark_has_the_pipeline_leaves_nothing(temporary: Path) -> None:
    """Neither its processes nor its directories stay."""
    _interrupt("Spark at work", temporary, "--fallback", "--limit", "10000")


def _interrupt(moment: str, temporary: Path, *options: str) -> None:
    with _demo(temporary, *options) as process:
        _wait_for(moment, process)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


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
        f"CREATE TABLE tidegate_late_windows (pipeline text, aggregation text, {window}, partition int, missing bigint, "
        "amended bigint)"
    )
    connection.execute(
        "CREATE TABLE tidegate_partitions (pipeline text, partition int, read bigint, accepted bigint, "
        "dead_lettered bigint, late bigint, skipped bigint, replayed bigint)"
    )
    for table, source in {
        "hourly": "hourly",
        "destinations": "destinations",
        "tidegate_late_windows": (
            "(SELECT 'flights', aggregation, window_start, window_end, 0, missing, amended FROM late_windows)"
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
        ("UPDATE tidegate_late_windows SET amended = amended + 1", "late windows"),
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
    right = list(expected := dead_letters(truth))
    assert compare_places("dead letters", expected, right).equal
    for wrong in (right[1:], [*right, (0, 1)], [*right, right[0]]):
        assert not compare_places("dead letters", expected, wrong).equal
