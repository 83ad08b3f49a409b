"""Results for the sinks of lakes, and what such a sink has, read with pyarrow alone: of a Delta table that is its log."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batch.publish.delta import DeltaTarget
from batch.publish.parquet import ParquetTarget
from tests.contract.store_records import SIZE, Flight, flights_plan, truth
from tests.providers.s3 import S3Server
from tidegate.config.sinks import DeltaSink, ParquetSink
from tidegate.stages.plan import AggregationPlan

PLAN = {aggregation.name: aggregation for aggregation in flights_plan().aggregations}
SMALL = {aggregation.name: aggregation for aggregation in flights_plan(measures=["flights"]).aggregations}["per_origin"]
Row = dict[str, Any]
Target = DeltaTarget | ParquetTarget


@dataclass(frozen=True, slots=True)
class Lake:
    """A place for a sink, on disk or in S3 (then with its `server`)."""

    path: str
    server: S3Server | None = None

    def sink(self, kind: str, mode: str, name: str = "lake") -> Target:
        settings: dict[str, Any] = {"type": kind, "name": name, "path": self.path, "mode": mode}
        if self.server is not None:
            config = self.server.config("")
            settings["s3"] = {key: value for key, value in config.items() if key != "bucket"}
        if kind == "delta":
            return DeltaTarget(DeltaSink.model_validate(settings), "flights", "sinks[1]")
        return ParquetTarget(ParquetSink.model_validate(settings), "flights", "sinks[1]")

    def files(self) -> dict[str, bytes]:
        """By their names below the place."""
        if self.server is None:
            root = Path(self.path)
            return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        bucket, _, prefix = self.path.removeprefix("s3://").partition("/")
        objects = self.server.objects(bucket)
        return {name.removeprefix(f"{prefix}/"): body for name, body in objects.items()}

    def rows(self, kind: str, aggregation: AggregationPlan) -> list[Row]:
        """What a reader of the sink finds, in the order of window and group."""
        folder = f"{aggregation.name}/"
        below = {name.removeprefix(folder): body for name, body in self.files().items() if name.startswith(folder)}
        data = live(below) if kind == "delta" else below.values()
        rows = [row for body in data for row in pq.read_table(io.BytesIO(body)).to_pylist()]
        return sorted(rows, key=lambda row: [str(value) for value in row.values()])


def live(files: Mapping[str, bytes]) -> list[bytes]:
    """The data files that a Delta table's log names."""
    names: set[str] = set()
    for actions in commits(files):
        names |= {action["add"]["path"] for action in actions if "add" in action}
        names -= {action["remove"]["path"] for action in actions if "remove" in action}
    return [files[name] for name in sorted(names)]


def commits(files: Mapping[str, bytes]) -> list[list[Row]]:
    """The actions of each commit, in order."""
    log = sorted(name for name in files if name.startswith("_delta_log/") and name.endswith(".json"))
    return [[json.loads(line) for line in files[name].splitlines()] for name in log]


def bucket_lake(server: S3Server) -> Lake:
    return Lake(f"s3://{server.bucket()}/results/{uuid.uuid4().hex[:6]}", server)


def results(aggregation: AggregationPlan, rows: Iterable[Row]) -> pa.Table:
    """Rows in the form in which a publisher hands them over."""
    types: dict[str, pa.DataType] = {"window_start": pa.int64(), "window_end": pa.int64()}
    types |= {column.name: column.type for column in aggregation.group}
    types |= {measure.name: measure.result_type for measure in aggregation.measures}
    types |= {"records": pa.int64(), "revision": pa.int64(), "upto": pa.string(), "final": pa.bool_()}
    return pa.Table.from_pylist(list(rows), pa.schema(list(types.items())))


def measured(aggregation: AggregationPlan, flights: Iterable[Flight]) -> list[Row]:
    """The results of flights, computed in plain Python."""
    group = [column.name for column in aggregation.group]
    return [
        dict(zip(["window_start", *group], key, strict=True))
        | {"window_end": key[0] + SIZE, **measures, "records": 1, "revision": 1, "upto": '{"t-0": 7}', "final": False}
        for key, measures in truth(aggregation, flights).items()
    ]


def result(start: int, origin: str | None, flights: int, revision: int, *, final: bool = False) -> Row:
    """Of the aggregation SMALL."""
    own = {"records": flights, "revision": revision, "upto": '{"t-0": 7}', "final": final}
    return {"window_start": start, "window_end": start + SIZE, "origin": origin, "flights": flights, **own}


def seen(rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    """(minute of the window, origin, flights, revision, final) of rows of SMALL."""
    return sorted(
        (
            (row["window_start"].minute, row["origin"] or "–", row["flights"], row["revision"], row["final"])
            for row in rows
        ),
    )


def stored(row: Row) -> Row:
    """A result as a lake shows it: moments in time in UTC, columns in their order."""
    window, own = ("window_start", "window_end"), ("records", "revision", "upto", "final")
    rest = [name for name in row if name not in (*window, *own)]
    return {name: _moment(name, row[name]) for name in (*window, *rest, *own) if name in row}


def _moment(name: str, value: Any) -> Any:
    if name in ("window_start", "window_end"):
        return datetime.fromtimestamp(value / 1000, UTC)
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
