"""Sinks of type `delta` and `parquet`: what stands in them after publications, repeats, races, kills and outages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from batch.publish.delta import DeltaTarget
from tests.contract.lake_scene import (
    PLAN,
    SMALL,
    Lake,
    Row,
    Target,
    bucket_lake,
    commits,
    measured,
    result,
    results,
    seen,
    stored,
)
from tests.contract.store_records import START, Flight
from tidegate.errors import BucketUnavailable, ConfigError, LakeUnavailable
from tidegate.stages.plan import AggregationPlan

if TYPE_CHECKING:
    from pathlib import Path

    from tests.providers.s3 import S3Server

pytestmark = pytest.mark.slow
KINDS = [
    ("delta", "upsert"),
    ("delta", "append"),
    ("delta", "overwrite"),
    ("parquet", "append"),
    ("parquet", "overwrite"),
]
MINUTE, DAY = 60_000, 86_400_000
FLIGHTS = [
    Flight(0, delay=7, fare=Decimal("12345678.90"), day=date(2013, 1, 1)),
    Flight(1, origin=None, delay=-3, landed=datetime(2013, 1, 1, 12, 0, 0, 123456), miles=None, day=None),  # noqa: DTZ001 (timestamps are naive, always UTC)
    Flight(2, origin="ÅØ", delay=None, fare=None, tail=None, on_time=None, landed=None, digest=None, miles=0.1),
    Flight(3, time=START + DAY, tail="N2", on_time=False, digest=b"\x01"),
]


@pytest.fixture(params=["disk", "bucket"])
def lake(request: pytest.FixtureRequest) -> Lake:
    where: Lake = request.getfixturevalue(request.param)
    return where


@pytest.fixture
def disk(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def bucket(s3: S3Server) -> Lake:
    return bucket_lake(s3)


def write(target: Target, version: int, *rows: Row, aggregation: AggregationPlan = SMALL) -> None:
    target.write(aggregation, version, results(aggregation, rows), complete=True)


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_every_kind_of_value_comes_back(disk: Lake, kind: str, mode: str) -> None:
    """Groups with nulls and all measures with exact decimals, instants in UTC, dates, bytes and distinct counts."""
    target = disk.sink(kind, mode)
    for aggregation in PLAN.values():
        rows = measured(aggregation, FLIGHTS)
        write(target, 1, *rows, aggregation=aggregation)
        wanted = sorted(map(stored, rows), key=lambda row: [str(value) for value in row.values()])
        assert disk.rows(kind, aggregation) == wanted


def test_newest_revision_stands_in_an_upserted_table(lake: Lake) -> None:
    """A larger revision takes the row's place, an older one does not; null is a group like others; and a window that has
    become final says so with the revision that it had."""
    target = lake.sink("delta", "upsert")
    write(target, 1, result(START, "EWR", 5, 3), result(START, None, 1, 1), result(START, "JFK", 4, 2))
    write(target, 2, result(START, "EWR", 4, 2), result(START, None, 2, 2), result(START + MINUTE, "EWR", 1, 1))
    write(target, 3, result(START, "JFK", 4, 2, final=True))
    assert seen(lake.rows("delta", SMALL)) == [
        (0, "EWR", 5, 3, False),
        (0, "JFK", 4, 2, True),
        (0, "–", 2, 2, False),
        (1, "EWR", 1, 1, False),
    ]


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_what_a_promotion_has_taken_away(disk: Lake, kind: str, mode: str) -> None:
    """It goes from the table, null being a group like others, and what was never there does not come; where changes are
    appended it is a row with no records, the newest. It can come back."""
    gone = [{**result(START, origin, 0, 4), "flights": None} for origin in ("EWR", None, "LGA")]
    kept, back = result(START, "JFK", 2, 2), result(START, "EWR", 1, 1)
    target = disk.sink(kind, mode)
    write(target, 1, result(START, "EWR", 5, 3), result(START, None, 1, 3), kept)
    write(target, 2, *gone, kept)
    rows = disk.rows(kind, SMALL)
    if mode == "append":
        newest = {row["origin"]: row["records"] for row in sorted(rows, key=lambda row: int(row["revision"]))}
        assert newest == {"EWR": 0, None: 0, "LGA": 0, "JFK": 2}
        return
    assert seen(rows) == [(0, "JFK", 2, 2, False)]
    write(target, 3, back, kept)
    assert seen(disk.rows(kind, SMALL)) == [(0, "EWR", 1, 1, False), (0, "JFK", 2, 2, False)]


@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_each_change_is_a_row_when_appended(disk: Lake, kind: str) -> None:
    """What a publication has stands behind what earlier ones had."""
    target = disk.sink(kind, "append")
    write(target, 1, result(START, "EWR", 1, 1))
    write(target, 2, result(START, "EWR", 2, 2))
    assert seen(disk.rows(kind, SMALL)) == [(0, "EWR", 1, 1, False), (0, "EWR", 2, 2, False)]


@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_overwriting_leaves_the_last_publication(disk: Lake, kind: str) -> None:
    """What the last one does not have is gone; one that has not all results is refused, and nothing of it written."""
    target = disk.sink(kind, "overwrite")
    write(target, 1, result(START, "EWR", 1, 1), result(START, "JFK", 1, 1))
    write(target, 2, result(START, "EWR", 2, 2))
    with pytest.raises(ConfigError, match="only some of the results"):
        target.write(SMALL, 3, results(SMALL, []), complete=False)
    assert seen(disk.rows(kind, SMALL)) == [(0, "EWR", 2, 2, False)]
    write(target, 4)
    assert disk.rows(kind, SMALL) == []


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_a_publication_that_comes_again_changes_nothing(lake: Lake, kind: str, mode: str) -> None:
    """Every file is as it was, byte for byte, also when another process repeats it."""
    rows = [result(START, "EWR", 1, 1), result(START + DAY, None, 1, 1)]
    write(lake.sink(kind, mode), 1, *rows)
    write(lake.sink(kind, mode), 2, *[{**row, "revision": 2} for row in rows])
    before = lake.files()
    write(lake.sink(kind, mode), 2, *[{**row, "revision": 2} for row in rows])
    assert lake.files() == before


def test_files_lie_by_day(tmp_path: Path) -> None:
    """A reader of Hive's form finds the day of a window's start as a column, and nothing else counts."""
    import duckdb

    target = Lake(str(tmp_path)).sink("parquet", "append")
    write(
        target,
        7,
        result(START, "EWR", 1, 1),
        result(START + DAY - MINUTE, "EWR", 1, 1),
        result(START + DAY, "EWR", 1, 1),
    )
    (tmp_path / "per_origin" / ".killed.parquet.part").write_bytes(b"half")
    found = duckdb.sql(
        f"SELECT date::VARCHAR, count(*) FROM read_parquet('{tmp_path}/per_origin/**/*.parquet', hive_partitioning = true) "
        "GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert found == [("2013-01-01", 2), ("2013-01-02", 1)]


def test_merging_leaves_files_of_other_windows_alone(tmp_path: Path) -> None:
    """Only files that can hold the windows of a publication are written anew."""
    lake = Lake(str(tmp_path))
    target = lake.sink("delta", "upsert")
    write(target, 1, result(START, "EWR", 1, 1))
    write(target, 2, result(START + DAY, "EWR", 1, 1))
    write(target, 3, result(START + DAY, "EWR", 2, 2))
    removed = [[action for action in actions if "remove" in action] for actions in commits(of_table(lake))]
    assert [len(actions) for actions in removed] == [0, 0, 0, 1]
    operation = next(action["commitInfo"] for action in commits(of_table(lake))[-1] if "commitInfo" in action)
    assert operation["operationMetrics"]["num_target_files_skipped_during_scan"] == 1


def of_table(lake: Lake) -> dict[str, bytes]:
    return {name.removeprefix("per_origin/"): body for name, body in lake.files().items()}


def test_each_commit_says_which_publication_it_is(disk: Lake) -> None:
    """txnAppId is the pipeline, the sink and the aggregation; txnVersion the publication."""
    write(disk.sink("delta", "upsert"), 41, result(START, "EWR", 1, 1))
    (said,) = [action["txn"] for actions in commits(of_table(disk)) for action in actions if "txn" in action]
    assert (said["appId"], said["version"]) == ("flights/lake/per_origin", 41)


def test_what_a_kill_leaves_before_the_commit_is_no_row(bucket: Lake) -> None:
    """Data files are there, the commit is not: the same publication again is there once."""
    target = bucket.sink("delta", "append")
    write(target, 1, result(START, "EWR", 1, 1))
    with denied(bucket, "s3:PutObject", "*/_delta_log/*"), pytest.raises(ConfigError):
        write(target, 2, result(START, "EWR", 2, 2))
    assert len([name for name in bucket.files() if name.endswith(".parquet")]) == 2
    assert seen(bucket.rows("delta", SMALL)) == [(0, "EWR", 1, 1, False)]
    write(bucket.sink("delta", "append"), 2, result(START, "EWR", 2, 2))
    assert seen(bucket.rows("delta", SMALL)) == [(0, "EWR", 1, 1, False), (0, "EWR", 2, 2, False)]


@pytest.mark.parametrize("mode", ["upsert", "append"])
def test_of_two_writers_at_once_one_tries_again(lake: Lake, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose table has moved on under it gets an error that is worth a retry; the publication of both is there once."""
    slow, fast = lake.sink("delta", mode), lake.sink("delta", mode)
    write(slow, 1, result(START, "JFK", 1, 1))
    commit = DeltaTarget._commit

    def overtaken(self: DeltaTarget, *args: Any) -> None:
        if self is slow:
            monkeypatch.setattr(DeltaTarget, "_commit", commit)
            write(fast, 2, result(START, "EWR", 2, 2))
        commit(self, *args)

    monkeypatch.setattr(DeltaTarget, "_commit", overtaken)
    with pytest.raises(LakeUnavailable):
        write(slow, 2, result(START, "EWR", 2, 2))
    write(slow, 2, result(START, "EWR", 2, 2))
    assert [row for row in seen(lake.rows("delta", SMALL)) if row[1] == "EWR"] == [(0, "EWR", 2, 2, False)]


def test_a_table_that_is_ahead_is_not_written(disk: Lake) -> None:
    """Numbers that begin anew are those of another database, whose results would be taken for repeats and left out."""
    write(disk.sink("delta", "upsert"), 9, result(START, "EWR", 9, 9))
    with pytest.raises(ConfigError, match="publication 9 of this sink, but the database is at 1"):
        write(disk.sink("delta", "upsert"), 1, result(START, "EWR", 1, 1))


def test_a_table_with_other_columns_is_not_written(disk: Lake) -> None:
    """The error shows the columns of both; overwriting replaces them with the rows."""
    write(disk.sink("delta", "append"), 1, result(START, "EWR", 1, 1))
    other = PLAN["per_origin"]
    with pytest.raises(ConfigError, match=r"the table has other columns(.|\n)*delay_sum decimal"):
        write(disk.sink("delta", "append"), 2, *measured(other, FLIGHTS), aggregation=other)
    write(disk.sink("delta", "overwrite"), 2, *measured(other, FLIGHTS), aggregation=other)


@pytest.mark.parametrize(("kind", "mode"), [("delta", "upsert"), ("parquet", "append")])
def test_s3_that_is_away_is_waited_for(bucket: Lake, kind: str, mode: str) -> None:
    """The error is worth a retry, and the retry writes."""
    target, server = bucket.sink(kind, mode), bucket.server
    assert server is not None
    server.stop()
    with pytest.raises(BucketUnavailable):
        write(target, 1, result(START, "EWR", 1, 1))
    server.start()
    write(target, 1, result(START, "EWR", 1, 1))
    assert seen(bucket.rows(kind, SMALL)) == [(0, "EWR", 1, 1, False)]


@pytest.mark.parametrize("mode", ["upsert", "append"])
def test_s3_that_goes_away_in_the_midst_is_waited_for(bucket: Lake, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the table was opened too."""
    target, server = bucket.sink("delta", mode), bucket.server
    assert server is not None
    write(target, 1, result(START, "EWR", 1, 1))
    commit = DeltaTarget._commit

    def cut_off(self: DeltaTarget, *args: Any) -> None:
        server.stop()
        commit(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTarget, "_commit", cut_off)
        with pytest.raises(BucketUnavailable):
            write(target, 2, result(START, "EWR", 2, 2))
    server.start()
    write(target, 2, result(START, "EWR", 2, 2))
    assert (0, "EWR", 2, 2, False) in seen(bucket.rows("delta", SMALL))


@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_a_bucket_that_is_not_there_is_no_outage(s3: S3Server, kind: str) -> None:
    """The error names the field and the bucket."""
    target = Lake("s3://no-such-bucket/x", s3).sink(kind, "append")
    with pytest.raises(ConfigError, match=r"sinks\[1\].path: there is no such bucket(.|\n)*no-such-bucket"):
        write(target, 1, result(START, "EWR", 1, 1))


@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_a_bucket_that_may_not_be_written_is_no_outage(bucket: Lake, kind: str) -> None:
    """Credentials without the right."""
    write(bucket.sink(kind, "append"), 1, result(START, "EWR", 1, 1))
    with denied(bucket, "s3:PutObject", "*"), pytest.raises(ConfigError, match=r"sinks\[1\].path: it may not be"):
        write(bucket.sink(kind, "append"), 2, result(START, "EWR", 2, 2))


@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_a_path_that_is_no_directory_is_no_outage(tmp_path: Path, kind: str) -> None:
    """The error names the field and the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"sinks\[1\].path: nothing can be written there"):
        write(Lake(str(tmp_path / "file" / "below")).sink(kind, "append"), 1, result(START, "EWR", 1, 1))


@contextmanager
def denied(lake: Lake, action: str, names: str) -> Iterator[None]:
    """While it lasts nobody may do `action` with the bucket's objects whose names match."""
    assert lake.server is not None
    client, bucket = lake.server.client, lake.path.split("/")[2]
    rule = {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": f"arn:aws:s3:::{bucket}/{names}"}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [rule]}))
    yield
    client.delete_bucket_policy(Bucket=bucket)
