"""Results as Kafka records: JSON values, keyed by window and group, written by DuckDB a batch at a time.

    {"aggregation": "hourly", "window": {"start": "2013-01-01T05:00:00.000Z", "end": "…"}, "group": {"origin": "JFK"},
     "values": {"flights": 12}, "records": 12, "upto": {"flights-0": 4711}, "revision": 3, "final": false}

The same window and group always has the same key; `revision` grows with every change, so the largest one is the newest.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from tidegate.stages.aggregate import finalize
from tidegate.stages.plan import AggregationPlan
from tidegate.stages.sql import query, quote


class ResultEncoder:
    """Turns rows of one aggregation (as WindowRows.table) into keys and values."""

    def __init__(self, plan: AggregationPlan, connection: duckdb.DuckDBPyConnection) -> None:
        self._plan, self._connection = plan, connection
        groups = [column.name for column in plan.group]
        group = _struct({name: quote(name) for name in groups})
        values = _struct({measure.name: quote(measure.name) for measure in plan.measures})
        window = "{'start': " + _instant("window_start") + ", 'end': " + _instant("window_end") + "}"
        document = {
            "aggregation": _text(plan.name),
            "window": window,
            "group": group,
            "values": values,
            "records": "records",
            "upto": "_upto::JSON",
            "revision": "revision",
            "final": "_final",
        }
        key = _struct({"aggregation": _text(plan.name), "start": _instant("window_start"), "group": group})
        self._sql = f"SELECT to_json({key})::BLOB AS key, to_json({_struct(document)})::BLOB AS value FROM rows"

    def encode(self, rows: pa.Table, upto: pa.Array | list[str], final: pa.Array) -> tuple[list[bytes], list[bytes]]:
        """Keys and values, in the order of `rows`. `upto`: JSON text per row; `final`: boolean per row."""
        if rows.num_rows == 0:
            return [], []
        finals = finalize(self._plan, rows, self._connection)
        table = pa.table(
            {
                **{name: finals[name] for name in finals.column_names},
                "records": rows["records"],
                "revision": rows["revision"],
                "_upto": pa.array(upto, pa.string()),
                "_final": final,
            }
        )
        encoded = query(self._connection, self._sql, rows=table)
        return encoded["key"].to_pylist(), encoded["value"].to_pylist()


def _struct(fields: dict[str, str]) -> str:
    if not fields:
        return "'{}'::JSON"
    return "{" + ", ".join(f"{_text(name)}: {sql}" for name, sql in fields.items()) + "}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _instant(column: str) -> str:
    return f"strftime(make_timestamp({column} * 1000), '%Y-%m-%dT%H:%M:%S.%gZ')"
