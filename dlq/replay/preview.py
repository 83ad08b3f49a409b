"""The preview of a replay: how many letters, to where, how many would pass now, and why the others would not.

Every chosen letter goes the way that it would go: its raw record is read, mended, placed, and taken through the pipeline's
decode, rules, event time and expressions as they are now, and through the handlers that say `preview: true`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dlq.fingerprint import normalise
from dlq.index.database import IndexDatabase
from dlq.index.masking import Masker
from dlq.replay.choice import choose, count_busy
from dlq.replay.diff import Diff, diff_of, masked_message
from dlq.replay.dry import DryRun, Verdict
from dlq.replay.mend import Mend
from dlq.replay.outgoing import ByHand, Outgoing, Preparer
from dlq.replay.raw import Chosen, RawReader
from dlq.replay.request import Request
from dlq.replay.targets import Targets
from dlq.s3.archive import Archive
from tidegate.clock import Clock, SystemClock
from tidegate.config.pipeline import Pipeline
from tidegate.errors import TidegateError
from tidegate.record import TopicPartition
from tidegate.store.progress import read_progress
from tidegate.store.reading import TopicReader

_EXAMPLES = 3
_DIFFS = 5


@dataclass(slots=True)
class Why:
    """One reason for which letters would fail again, or are not sent. `examples`: ids."""

    name: str
    stage: str | None
    message: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, id: str) -> None:
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(id)


@dataclass(slots=True)
class Preview:
    """`chosen` = `passing` + `failing` + `unsent`. `unchecked`: of those that pass, how many go to topics that this pipeline
    does not read, of which nothing can be said. `busy`: open, but in another job that is not finished.
    """

    chosen: int = 0
    busy: int = 0
    passing: int = 0
    failing: int = 0
    unsent: int = 0
    unchecked: int = 0
    edited: int = 0
    stops_before: str | None = None
    targets: Counter[str] = field(default_factory=Counter)
    whys: dict[tuple[str, str], Why] = field(default_factory=dict)
    not_sent: dict[str, Why] = field(default_factory=dict)
    diffs: list[Diff] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "chosen": self.chosen, "busy": self.busy, "pass": self.passing, "fail": self.failing, "unsent": self.unsent,
            "unchecked": self.unchecked, "edited": self.edited, "stopsBefore": self.stops_before,
            "targets": dict(self.targets),
            "reasons": [_why(why) for why in self.reasons()],
            "notSent": [_why(why) for why in sorted(self.not_sent.values(), key=lambda why: -why.count)],
            "diffs": [diff.document() for diff in self.diffs],
        }  # fmt: skip

    def reasons(self) -> list[Why]:
        """Why letters would fail again, the most frequent first."""
        return sorted(self.whys.values(), key=lambda why: -why.count)


def preview(
    pipeline: Pipeline,
    database: IndexDatabase,
    request: Request,
    *,
    by_hand: ByHand | None = None,
    clock: Clock | None = None,
) -> Preview:
    """Nothing is written or sent. Raises ConfigError, BrokerUnavailable, StoreUnavailable, DependencyError."""
    result = Preview(busy=count_busy(request.wanted, database))
    targets = Targets(pipeline, request.to)
    targets.require_there()
    mend = Mend(pipeline, request.assignments) if request.assignments else None
    preparer = Preparer(targets, pipeline.dead_letters.max_replays, job="preview", mend=mend, by_hand=by_hand)
    masker, reader = Masker(pipeline.dead_letters.masking), RawReader(pipeline.kafka, Archive(pipeline, database))
    dry = DryRun(pipeline, _high_waters(pipeline), clock or SystemClock()) if pipeline.source is not None else None
    result.stops_before = None if dry is None else dry.stops_before
    sources = () if pipeline.source is None else pipeline.source.topics
    try:
        for chunk in choose(request.wanted, database):
            rest: Sequence[Chosen] = chunk
            while rest:
                letters = reader.fetch(rest)
                outgoing, unsent = preparer.prepare(rest[: len(letters)], letters)
                checked = [record for record in outgoing if record.target.topic in sources]
                verdicts = dry.check(checked) if dry is not None and checked else []
                result.unchecked += len(outgoing) - len(checked)
                _count(result, outgoing, verdicts, masker)
                for one, outcome, detail in unsent:
                    why = Why(outcome, None, detail)
                    result.not_sent.setdefault(_kind(outcome, detail), why).add(one.id)
                result.unsent += len(unsent)
                result.chosen += len(letters)
                rest = rest[len(letters) :]
    finally:
        reader.close()
        if dry is not None:
            dry.close()
        if mend is not None:
            mend.close()
    return result


def _count(result: Preview, outgoing: Sequence[Outgoing], verdicts: Sequence[Verdict], masker: Masker) -> None:
    result.targets.update(record.target.topic for record in outgoing)
    result.passing += len(outgoing) - len(verdicts)
    result.failing += len(verdicts)
    for record, rejection in verdicts:
        first = rejection.reasons[0]
        name = first.rule or ": ".join(part for part in (first.error_type, first.field) if part)
        why = result.whys.get((rejection.stage, name))
        if why is None:
            message = masked_message(record, first.message, masker)
            why = result.whys[rejection.stage, name] = Why(name, rejection.stage, message)
        why.add(record.chosen.id)
    for record in outgoing:
        if record.changed:
            result.edited += 1
            if len(result.diffs) < _DIFFS:
                result.diffs.append(diff_of(record, masker))


def _kind(outcome: str, detail: str) -> str:
    """The same reason for many letters, which differ in numbers only."""
    return f"{outcome} {normalise(detail)}"


def _high_waters(pipeline: Pipeline) -> dict[TopicPartition, int | None]:
    """How far the pipeline's partitions are; empty for one that has never run."""
    try:
        with TopicReader(pipeline.kafka, pipeline.pipeline_id) as reader:
            return {row.tp: row.state.high_water for row in read_progress(pipeline, reader).rows}
    except TidegateError:  # no tables yet, or the database is away: windows are then taken as open
        return {}


def _why(why: Why) -> dict[str, Any]:
    named = {"name": why.name, "stage": why.stage, "message": why.message, "count": why.count, "examples": why.examples}
    return {name: value for name, value in named.items() if value is not None}
