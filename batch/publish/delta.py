"""Results as tables of Delta Lake, one per aggregation.

Each publication is one commit of the table, and carries its version as an application's transaction (txnAppId, txnVersion): a
commit is there whole or not at all, and a publication that the table has is not written again. What a killed process leaves
are data files that no commit names, which VACUUM removes.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, DeltaProtocolError, SchemaMismatchError

from batch.publish.columns import WINDOW, lake_schema, there, typed
from batch.publish.place import folder_of, open_place
from tidegate.config.sinks import DeltaSink
from tidegate.errors import ConfigError, LakeUnavailable
from tidegate.stages.plan import AggregationPlan
from tidegate.stages.sql import quote

# Equal revisions differ where only time has passed: the window has become final.
_NEWER = "s.revision > t.revision OR (s.revision = t.revision AND s.final <> t.final)"

_GONE = "s.records = 0"


class DeltaTarget:
    """A sink of type `delta`; see Target. `field`: of the sink, in the pipeline file."""

    def __init__(self, sink: DeltaSink, pipeline: str, field: str) -> None:
        """Raises ConfigError."""
        self.name, self._sink, self._pipeline, self._field = sink.name, sink, pipeline, field
        self._place = open_place(sink, field)

    def write(self, aggregation: AggregationPlan, version: int, results: pa.Table, *, complete: bool) -> None:
        """1. the table is opened, or made  2. does it have this version?  3. one commit.

        Raises LakeUnavailable, BucketUnavailable, ConfigError.
        """
        if self._sink.write_mode == "overwrite" and not complete:
            raise ConfigError(
                "only some of the results would replace all", field=f"{self._field}.mode", value="overwrite"
            )
        try:
            table = self._table(aggregation)
            if self._has(table, aggregation, version):
                return
            self._commit(table, aggregation, version, typed(aggregation, results))
        except CommitFailedError as error:  # another writer was faster
            raise LakeUnavailable(f"{self._uri(aggregation)}: {error}") from error
        except (DeltaProtocolError, SchemaMismatchError) as error:
            problem, uri = f"the table cannot be written: {error}", self._uri(aggregation)
            raise ConfigError(problem, field=f"{self._field}.path", value=uri) from error
        except (DeltaError, OSError) as error:  # an outage in the midst of a write is a DeltaError
            raise self._place.failure(error) from error

    def close(self) -> None:
        """Nothing is open between two writes."""

    def _table(self, aggregation: AggregationPlan) -> DeltaTable:
        """As it is now. Raises ConfigError when its columns are others, unless all of it is replaced."""
        uri, schema = self._uri(aggregation), lake_schema(aggregation)
        table = DeltaTable.create(
            uri, schema, mode="ignore", name=aggregation.name, storage_options=self._place.options()
        )
        found, wanted = table.schema(), Schema.from_arrow(schema)
        if self._sink.write_mode != "overwrite" and found != wanted:
            raise ConfigError(
                "the table has other columns",
                field=f"{self._field}.path",
                value=f"{uri}: {_shown(found)}",
                expected=_shown(wanted),
                hint="give the sink another path, or move the table away: a new one gets all results",
            )
        return table

    def _has(self, table: DeltaTable, aggregation: AggregationPlan, version: int) -> bool:
        """Raises ConfigError when the table is ahead: what is newer there would be lost from sight."""
        last = table.transaction_version(self._app(aggregation))
        if last is not None and last > version:
            raise ConfigError(
                f"the table has publication {last} of this sink, but the database is at {version}: it is another database, or "
                "has gone back",
                field=f"{self._field}.path",
                value=table.table_uri,
                hint="give the sink another path, or move the table away: a new one gets all results",
            )
        return last == version

    def _commit(self, table: DeltaTable, aggregation: AggregationPlan, version: int, rows: pa.Table) -> None:
        properties = CommitProperties(app_transactions=[Transaction(self._app(aggregation), version)])
        if self._sink.write_mode == "overwrite":
            write_deltalake(table, there(rows), mode="overwrite", schema_mode="overwrite", commit_properties=properties)
        elif self._sink.write_mode == "append":
            write_deltalake(table, rows, mode="append", commit_properties=properties)
        else:
            merge = table.merge(rows, _match(aggregation, rows), "s", "t", commit_properties=properties)
            merge = merge.when_matched_delete(_GONE).when_matched_update_all(_NEWER)
            merge.when_not_matched_insert_all(f"NOT ({_GONE})").execute()

    def _uri(self, aggregation: AggregationPlan) -> str:
        return self._place.uri(folder_of(aggregation.name))

    def _app(self, aggregation: AggregationPlan) -> str:
        return f"{self._pipeline}/{self.name}/{aggregation.name}"


def _match(aggregation: AggregationPlan, rows: pa.Table) -> str:
    """The same window and group, nulls being equal; with bounds, by which files of other windows are left alone."""
    bounds = pc.min_max(rows["window_start"].cast(pa.int64()))
    at = "t.window_start {} to_timestamp_micros({})"
    conditions = [at.format(">=", bounds["min"]), at.format("<=", bounds["max"])]
    conditions += [f"t.{name} = s.{name}" for name in WINDOW]
    names = [quote(column.name) for column in aggregation.group]
    return " AND ".join([*conditions, *(f"(t.{name} IS NOT DISTINCT FROM s.{name})" for name in names)])


def _shown(schema: Schema) -> str:
    return ", ".join(f"{field.name} {getattr(field.type, 'type', field.type)}" for field in schema.fields)
