"""A batch that had to be taken in parts (see dedupe.py): each part's memory for the next, and their results as one."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa

from tidegate.stages.aggregate import merge_partials
from tidegate.stages.batch import Answers, BatchResult, RawBatch, RuleTally, Seen
from tidegate.stages.eventtime import count_missing
from tidegate.stages.plan import Plan
from tidegate.stages.rules.ruleset import MAX_SAMPLES


class Recollection:
    """What dedupe has seen, with what the parts before have added."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._added: dict[bytes, int] = {}

    def remember(self, seen: Sequence[tuple[bytes, int]]) -> None:
        self._added.update(seen)

    def get(self, keys: Sequence[bytes]) -> list[int | None]:
        """As Seen.get."""
        found = self._seen.get(keys)
        if not self._added:
            return found
        return [self._added.get(key, before) for key, before in zip(keys, found, strict=True)]


def join(parts: Sequence[BatchResult], plan: Plan, con: duckdb.DuckDBPyConnection) -> BatchResult:
    """The result of the whole batch from those of its consecutive parts."""
    if len(parts) == 1:
        return parts[0]
    records = pa.Table.from_batches([part.raw.records for part in parts]).combine_chunks().to_batches()[0]
    late = [record for part in parts for record in part.late]
    return BatchResult(
        raw=RawBatch(parts[0].raw.tp, records),
        before=parts[0].before,
        state=parts[-1].state,
        accepted=pa.concat_tables([part.accepted for part in parts]),
        deltas={a.name: merge_partials(a, [part.deltas[a.name] for part in parts], con) for a in plan.aggregations},
        rejected=[rejection for part in parts for rejection in part.rejected],
        deferred=[deferral for part in parts for deferral in part.deferred],
        late=late,
        late_windows=count_missing(late),
        seen=[entry for part in parts for entry in part.seen],
        rules={name: _add([part.rules[name] for part in parts]) for name in parts[0].rules},
        answers=_join_answers(parts),
        repeats=sum(part.repeats for part in parts),
        seconds={stage: sum(part.seconds.get(stage, 0.0) for part in parts) for stage in parts[0].seconds},
    )


def _add(tallies: Sequence[RuleTally]) -> RuleTally:
    samples = [sample for tally in tallies for sample in tally.samples]
    failures = sum(tally.failures for tally in tallies)
    return RuleTally(tallies[0].severity, tallies[0].rejects, failures, samples[:MAX_SAMPLES])


def _join_answers(parts: Sequence[BatchResult]) -> Answers | None:
    given = [part.answers for part in parts if part.answers is not None]
    if not given:
        return None
    tables = [answers.rows for answers in given if answers.rows is not None]
    return Answers(
        parts[0].before.upto,
        parts[-1].state.upto,
        pa.concat_tables(tables) if tables else None,
        {offset: rejection for answers in given for offset, rejection in answers.rejected.items()},
        np.concatenate([answers.filtered for answers in given]),
    )
