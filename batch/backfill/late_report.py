"""What `backfill --late` has done, for people and for machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dlq.late_reading import LateSource
from tidegate.record import TopicPartition, record_id
from tidegate.stages.amend import Amended
from tidegate.store.base import LateAccount
from tidegate.store.late import LateWindow, late_window

_SAMPLES: Final = 10  # refused records that are shown


@dataclass(slots=True)
class PartitionAmended:
    """`source`: where its late records were found (late, source); None: it had none, or `problem` says why not."""

    source: str | None = None
    added: int = 0
    filtered: int = 0
    refused: int = 0
    problem: str | None = None


@dataclass(slots=True)
class LateReport:
    """`missing`: records that windows miss, before and after, once per window; a worker may have added some meanwhile.
    `expired`: of windows that have timed out; they are given up."""

    pipeline: str
    missing: int = 0
    missing_after: int | None = None
    partitions: dict[TopicPartition, PartitionAmended] = field(default_factory=dict)
    expired: int = 0
    windows: set[LateWindow] = field(default_factory=set)
    refused: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def begin(self, accounts: Iterable[LateAccount]) -> None:
        for account in accounts:
            self.partitions[account.tp] = PartitionAmended()
            self.missing += account.total.missing

    def add(self, partition: PartitionAmended, records: Sequence[LateSource], amended: Amended) -> None:
        """One stretch, as it was written."""
        partition.added += amended.rows.num_rows
        partition.refused += len(amended.rejected)
        partition.filtered += len(records) - amended.rows.num_rows - len(amended.rejected)
        counted = amended.offsets
        self.windows |= {
            late_window(m.aggregation, m.start, m.end) for one in records if one.offset in counted for m in one.missed
        }
        for rejection in amended.rejected[: max(0, _SAMPLES - len(self.refused))]:
            reason = rejection.reasons[0]
            self.refused.append(
                {
                    "id": record_id(records[0].tp, rejection.offset),
                    "stage": rejection.stage.value,
                    "errorType": reason.error_type,
                    "message": reason.message,
                }
            )

    def end(self, accounts: Iterable[LateAccount]) -> None:
        totals = [account.total for account in accounts]
        self.missing_after = sum(total.missing for total in totals)
        self.expired = sum(total.expired for total in totals)
        if self.expired:
            self.notes.append(
                f"{self.expired} records are of windows that have left the database for good (eventTime.stateTimeout): "
                "they are not brought in"
            )

    @property
    def complete(self) -> bool:
        """Whether every record that was missing when it began is in the results now."""
        return not any(one.refused or one.problem for one in self.partitions.values())

    def rows(self) -> list[dict[str, Any]]:
        """A row per source partition."""
        return [
            {"topic": tp.topic, "partition": tp.partition, "source": one.source, "added": one.added}
            | {"filtered": one.filtered, "refused": one.refused, "problem": one.problem}
            for tp, one in sorted(self.partitions.items())
        ]

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "pipelineId": self.pipeline,
            "complete": self.complete,
            "windowsAmended": len(self.windows),
            "recordsAdded": sum(one.added for one in self.partitions.values()),
            "recordsFiltered": sum(one.filtered for one in self.partitions.values()),
            "recordsRefused": sum(one.refused for one in self.partitions.values()),
            "missingBefore": self.missing,
            "missingAfter": self.missing_after,
            "expired": self.expired,
            "refused": self.refused,
            "notes": self.notes,
            "partitions": self.rows(),
        }
