"""A worker's totals as results on Kafka: measures finished from their partials, then written as documents."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from tidegate.results import ResultDocuments
from tidegate.stages.aggregate import finalize_sql, finish_results
from tidegate.stages.plan import AggregationPlan
from tidegate.stages.prepared import Prepared


class ResultEncoder:
    """Turns rows of one aggregation (as WindowRows.table) into keys and values."""

    def __init__(self, plan: AggregationPlan, connection: duckdb.DuckDBPyConnection) -> None:
        self._plan = plan
        self._finals = Prepared(connection, lambda rows: finalize_sql(plan, rows))
        self._documents = ResultDocuments(plan)

    def encode(self, rows: pa.Table, upto: pa.Array | list[str], final: pa.Array) -> tuple[list[bytes], list[bytes]]:
        """Keys and values, in the order of `rows`. `upto`: JSON text per row; `final`: boolean per row."""
        if rows.num_rows == 0:
            return [], []
        results = finish_results(self._plan, self._finals.run(rows))
        results = results.append_column("records", rows["records"]).append_column("revision", rows["revision"])
        texts = upto if isinstance(upto, pa.Array) else pa.array(upto, pa.string())
        return self._documents.encode(results.append_column("upto", texts).append_column("final", final))
