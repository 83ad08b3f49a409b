"""Results as Kafka records: JSON values, keyed by window and group, written by DuckDB a batch at a time.

    {"aggregation": "hourly", "window": {"start": "2013-01-01T05:00:00.000Z", "end": "…"}, "group": {"origin": "JFK"},
     "values": {"flights": 12}, "records": 12, "upto": {"flights-0": 4711}, "revision": 3, "final": false}

The same window and group always has the same key; `revision` grows with every change, so the largest one is the newest.
"""

from __future__ import annotations

import duckdb
import msgspec
import pyarrow as pa

from tidegate.stages.aggregate import finalize
from tidegate.stages.plan import AggregationPlan
from tidegate.stages.sql import query, quote


class ResultEncoder:
    """Turns rows of one aggregation (as WindowRows.table) into keys and values."""

    def __init__(self, plan: AggregationPlan, connection: duckdb.DuckDBPyConnection) -> None:
        self._plan, self._connection = plan, connection
        group = _object({column.name: _value(quote(column.name), column.type) for column in plan.group})
        document = {
            "aggregation": _json(_text(plan.name)),
            "window": _object({"start": _json(_instant("window_start")), "end": _json(_instant("window_end"))}),
            "group": group,
            "values": _object({m.name: _value(quote(m.name), m.result_type) for m in plan.measures}),
            "records": _json("records"),
            "upto": "_upto",
            "revision": _json("revision"),
            "final": _json("_final"),
        }
        key = {"aggregation": document["aggregation"], "start": _json(_instant("window_start")), "group": group}
        self._sql = f"SELECT encode({_object(key)}) AS key, encode({_object(document)}) AS value FROM rows"

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


def _object(fields: dict[str, str]) -> str:
    """SQL for the text of a JSON object; `fields`: name → SQL for the text of its value."""
    if not fields:
        return "'{}'"
    parts = [f"{_text(msgspec.json.encode(name).decode() + ':')} || {sql}" for name, sql in fields.items()]
    return "('{' || " + " || ',' || ".join(parts) + " || '}')"


def _value(sql: str, kind: pa.DataType) -> str:
    """Decimals go by their own text: DuckDB's JSON makes doubles of them, and loses digits beyond the 16th."""
    if not pa.types.is_decimal(kind):
        return _json(sql)
    text = f"CAST({sql} AS VARCHAR)"
    if kind.scale == kind.precision:
        text = f"replace({text}, '.', '0.')"  # written as .5, which is no JSON
    return f"coalesce({text}, 'null')"


def _json(sql: str) -> str:
    return f"coalesce(CAST(to_json({sql}) AS VARCHAR), 'null')"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _instant(column: str) -> str:
    return f"strftime(make_timestamp({column} * 1000), '%Y-%m-%dT%H:%M:%S.%gZ')"
