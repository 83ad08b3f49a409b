"""Running a log through the vectorised stages in batches of any size, and reading the outcome as the model does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pyarrow as pa

from tests.reference import Cell, Late, Record, raw_batch
from tidegate.config.pipeline import Pipeline
from tidegate.record import Stage, TopicPartition
from tidegate.stages.aggregate import finalize, merge_partials
from tidegate.stages.batch import Answers, PartitionState, Reason, Rejection
from tidegate.stages.pipeline import StagePipeline
from tidegate.stages.plan import Plan, compile_plan
from tidegate.stages.sql import connect

TP = TopicPartition("flights", 0)


@dataclass
class SeenKeys:
    """Dedupe's memory as a dictionary."""

    held: dict[bytes, int] = field(default_factory=dict)

    def get(self, keys: Sequence[bytes]) -> list[int | None]:
        return [self.held.get(key) for key in keys]


@dataclass
class Account:
    """All that the batches of one log gave."""

    state: PartitionState = field(default_factory=PartitionState)
    accepted: list[int] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)
    late: list[Late] = field(default_factory=list)
    missing: dict[tuple[str, int, int], int] = field(default_factory=dict)
    deltas: dict[str, list[pa.Table]] = field(default_factory=dict)


@cache
def stages_of(document: str) -> tuple[Plan, StagePipeline]:
    """The stages of a pipeline, kept: a batch changes nothing in them."""
    plan = compile_plan(Pipeline.model_validate_json(document))
    return plan, StagePipeline(plan)


def run(
    stages: StagePipeline, records: Sequence[Record], cuts: Iterable[int], refused: dict[int, str] | None = None
) -> Account:
    """`cuts`: the sizes of the batches; when they run out, the rest is one batch."""
    account, seen, start = Account(), SeenKeys(), 0
    known = Answers(
        -1,
        2**62,
        rejected={o: Rejection(o, Stage(stage), (Reason("Refused", "no"),)) for o, stage in (refused or {}).items()},
    )
    for size in [*cuts, len(records)]:
        part, start = records[start : start + size], start + size
        if not part:
            break
        result = stages.run(raw_batch(TP, part), account.state, seen, known)
        assert result.before == account.state
        account.state = result.state
        seen.held.update(result.seen)
        account.accepted += result.accepted.column("_offset").to_pylist()
        account.rejected |= {r.offset: r.stage.value for r in result.rejected}
        for late in result.late:
            missed = frozenset((m.aggregation, m.start, m.end) for m in late.missed)
            account.late.append(Late(late.offset, late.watermark, missed, late.partial))
        for row in result.late_windows.to_pylist() if result.late_windows is not None else ():
            window = (row["aggregation"], row["window_start"], row["window_end"])
            account.missing[window] = account.missing.get(window, 0) + row["missing"]
        for name, delta in result.deltas.items():
            account.deltas.setdefault(name, []).append(delta)
    return account


def results(plan: Plan, account: Account) -> dict[str, dict[Cell, dict[str, Any]]]:
    """Per aggregation the merged and finished results, by window, lane and group."""
    found: dict[str, dict[Cell, dict[str, Any]]] = {}
    con = connect()
    for aggregation in plan.aggregations:
        found[aggregation.name] = {}
        if aggregation.name not in account.deltas:
            continue
        merged = merge_partials(aggregation, account.deltas[aggregation.name], con)
        finished = finalize(aggregation, merged, con).to_pylist()
        for own, row in zip(merged.select(["lane", "records", "upto"]).to_pylist(), finished, strict=True):
            group = tuple(row[g.name] for g in aggregation.group)
            values = {m.name: row[m.name] for m in aggregation.measures}
            cell = (row["window_start"], row["window_end"], own["lane"], group)
            assert cell not in found[aggregation.name], "a window and group has one row"
            found[aggregation.name][cell] = values | {"records": own["records"], "upto": own["upto"]}
    con.close()
    return found
