"""A stretch of one source partition's late records, added in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from batch.backfill.patience import Patience
from dlq.late_reading import LateSource
from tidegate.errors import SinkRecordError
from tidegate.stages.amend import Amended, Amender
from tidegate.stages.batch import RawBatch, Reason
from tidegate.stages.plan import Plan
from tidegate.store.base import Amendment, Store
from tidegate.store.late import LateCounts, LateWindow, late_window


class Stretches:
    """Adds stretches to one store. `owner`: of this run alone. Close it."""

    def __init__(self, plan: Plan, store: Store, dependency: Patience, owner: str) -> None:
        self._store, self._dependency, self._owner = store, dependency, owner
        self._names = {aggregation.name for aggregation in plan.aggregations}
        self._amender = Amender(plan)

    def add(self, records: Sequence[LateSource], before: int, upto: int) -> Amended:
        """Records of one partition with `before` < offset ≤ `upto`, in offset order. What the database refuses is left out,
        and counted as refused. Raises StoreFenced, DependencyError, AggregateOverflow; SinkRecordError for rows behind which
        there is no record.
        """
        tp, refused = records[0].tp, dict[int, Reason]()
        raw = RawBatch.of_records(tp, records)
        missed = {one.offset: tuple(m for m in one.missed if m.aggregation in self._names) for one in records}
        while True:
            amended = self._amender.run(raw, missed, refused)
            amendment = Amendment(tp, self._owner, before, upto, amended.deltas, _changes(amended))
            try:
                self._dependency.call(self._store.amend, amendment)
            except SinkRecordError as error:
                guilty = self._amender.offsets_behind(amended, error.aggregation or "", error.rows)
                if not set(guilty) - refused.keys():  # it would go on for ever
                    raise
                refused |= {o: Reason("SinkRefused", str(error), field=error.aggregation) for o in guilty}
                continue
            return amended

    def close(self) -> None:
        self._amender.close()


def _changes(amended: Amended) -> dict[LateWindow, LateCounts]:
    """What moves in the late table: a refused record is missing still, another is not."""
    refused = {rejection.offset for rejection in amended.rejected}
    changes: dict[LateWindow, LateCounts] = {}
    for offset, missed in amended.missed.items():
        for one in missed:
            window = late_window(one.aggregation, one.start, one.end)
            before = changes.get(window, LateCounts())
            changes[window] = (
                before._replace(refused=before.refused + 1)
                if offset in refused
                else before._replace(missing=before.missing - 1, amended=before.amended + 1)
            )
    return changes
