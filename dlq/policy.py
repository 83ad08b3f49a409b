"""The flood guard: when most of a topic fails, the pipeline is wrong and not the records. It stops before it empties
the topic into the dead letters (as Arroyo's DlqLimit means to).

The window lives in memory. A restarted worker, or the next owner of a partition, starts with an empty one at the offset
where the last stopped, so a poisoned topic trips the guard again; the batch in which it trips is never written. Until
`window` records are read the ratio says nothing: with batches smaller than the window, each restart can dead-letter up
to `window` − 1 records. `maxConsecutive` has no such run-up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dlq.letter import Letter
from dlq.limits import cut_text
from tidegate.config.errorhandling import FloodGuard as FloodGuardConfig
from tidegate.errors import FloodGuardTripped
from tidegate.record import TopicPartition
from tidegate.stages.batch import BatchResult

_TOP_REASONS = 5
_SHOWN_MESSAGE_BYTES = 300

Ordinals = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Failed:
    """What the guard says of a failure."""

    fingerprint: str
    error_type: str
    message: str


@dataclass(frozen=True, slots=True)
class Failures:
    """What the guard is told of a batch: its first and last offset, how many records it has, and which of them failed
    (`numbers`: ascending, counted from 0 among the batch's records, since offsets have gaps)."""

    tp: TopicPartition
    first: int
    last: int
    read: int
    numbers: Ordinals
    failed: tuple[Failed, ...]

    @classmethod
    def of(cls, result: BatchResult, letters: Sequence[Letter]) -> Failures:
        """`letters`: those of `result.rejected`, in that order."""
        raw = result.raw
        rejected = np.array([rejection.offset for rejection in result.rejected], dtype=np.int64)
        order = np.argsort(rejected)
        numbers = np.searchsorted(raw.records.column("offset").to_numpy(), rejected[order])
        told = {
            kind: Failed(kind.fingerprint, kind.error_type, cut_text(kind.message, _SHOWN_MESSAGE_BYTES))
            for kind in {letter.kind for letter in letters}
        }
        failed = tuple([told[letters[number].kind] for number in order.tolist()])
        first, last = (raw.first, raw.last) if len(raw) else (-1, -1)
        return cls(raw.tp, first, last, len(raw), numbers, failed)

    @classmethod
    def joined(cls, parts: Sequence[Failures]) -> Failures:
        """Those of consecutive batches of one partition, as of one."""
        before = np.cumsum([0, *(part.read for part in parts)])
        return cls(
            parts[0].tp,
            parts[0].first,
            parts[-1].last,
            int(before[-1]),
            np.concatenate([part.numbers + at for part, at in zip(parts, before, strict=False)]),
            tuple(failed for part in parts for failed in part.failed),
        )


@dataclass(frozen=True, slots=True)
class _Window:
    """What is remembered of one partition. Records are numbered as they are read (offsets have gaps): `read` is how
    many, `failed` the numbers of those that failed, as far back as a check can reach, `failures` what they were."""

    last_offset: int = -1
    read: int = 0
    failed: Ordinals = field(default_factory=lambda: np.empty(0, np.int64))
    failures: tuple[Failed, ...] = ()


class _Watched(NamedTuple):
    """The last batch of a partition: its first offset, and the window without and with it."""

    first_offset: int
    before: _Window
    after: _Window


class FloodGuard:
    """Watches the share of failed records in every run of `window` records of a partition, and the runs of failures.

    Exact whatever the batch sizes: it trips in the batch in which a guard that looks at every record would trip.
    Late records are no failures: a backfill may send many.
    """

    def __init__(self, config: FloodGuardConfig) -> None:
        self._config = config
        self._allowed = int(config.max_ratio * config.window + 1e-9)  # failures in a window; 0.29 * 100 is 28.99…
        self._reach = max(config.window, (config.max_consecutive or 0) + 1)
        self._windows: dict[TopicPartition, _Watched] = {}

    def observe(self, batch: Failures) -> None:
        """Take a batch into account before anything of it is written.

        The last batch may be given again, when it is done again after an outage or with rows that a sink refused: the
        new account of it replaces the old. A batch that begins anywhere else behind the last starts a new window.

        Raises FloodGuardTripped, with the share, the counts and the most frequent reasons. Nothing is remembered of the
        batch then.
        """
        if not self._config.enabled or batch.read == 0:
            return
        before = self._before(batch)
        window = _extended(before, batch)
        if len(window.failed):
            self._check_ratio(batch.tp, window)
            self._check_consecutive(batch.tp, window)
        self._windows[batch.tp] = _Watched(batch.first, before, _shortened(window, self._reach))

    def forget(self, tp: TopicPartition) -> None:
        """The partition has moved to another worker."""
        self._windows.pop(tp, None)

    def _before(self, batch: Failures) -> _Window:
        """What was seen before this batch."""
        watched = self._windows.get(batch.tp)
        if watched is None:
            return _Window()
        if batch.first > watched.after.last_offset:
            return watched.after
        return watched.before if batch.first == watched.first_offset else _Window()

    def _check_ratio(self, tp: TopicPartition, window: _Window) -> None:
        size, allowed, failed = self._config.window, self._allowed, window.failed
        if window.read < size or len(failed) <= allowed:
            return
        # Some run of `size` records holds more than `allowed` failures iff two failures, `allowed` apart in their own
        # count, are less than `size` records apart.
        crowded = np.flatnonzero(failed[allowed:] - failed[: len(failed) - allowed] < size)
        if len(crowded) == 0:
            return
        start = max(0, min(int(failed[crowded[0]]), window.read - size))
        inside = (failed >= start) & (failed < start + size)
        count = int(inside.sum())
        raise FloodGuardTripped(
            f"flood guard: {count} of {size} records of {tp} failed ({count / size:.1%}); "
            f"errorHandling.floodGuard.maxRatio allows {self._config.max_ratio:.1%} of {size}.\n"
            + _explained(window, inside)
        )

    def _check_consecutive(self, tp: TopicPartition, window: _Window) -> None:
        allowed, failed = self._config.max_consecutive, window.failed
        if allowed is None or len(failed) <= allowed:
            return
        runs = np.flatnonzero(failed[allowed:] - failed[: len(failed) - allowed] == allowed)
        if len(runs) == 0:
            return
        first = int(runs[0])
        inside = np.zeros(len(failed), dtype=bool)
        inside[first:] = failed[first:] - failed[first] == np.arange(len(failed) - first)
        raise FloodGuardTripped(
            f"flood guard: {int(inside.sum())} records of {tp} in a row failed; "
            f"errorHandling.floodGuard.maxConsecutive allows {allowed}.\n" + _explained(window, inside)
        )


def _extended(before: _Window, batch: Failures) -> _Window:
    """The window with the batch's records."""
    return _Window(
        last_offset=batch.last,
        read=before.read + batch.read,
        failed=np.concatenate([before.failed, batch.numbers + before.read]),
        failures=(*before.failures, *batch.failed),
    )


def _shortened(window: _Window, reach: int) -> _Window:
    """The window without what no later check can reach. Nothing goes before the first full window."""
    if window.read < reach or len(window.failed) == 0:
        return window
    at = int(np.searchsorted(window.failed, window.read - reach, side="right"))
    return _Window(window.last_offset, window.read, window.failed[at:], window.failures[at:])


def _explained(window: _Window, inside: npt.NDArray[np.bool_]) -> str:
    """The most frequent reasons and the way out."""
    chosen = [window.failures[i] for i in np.flatnonzero(inside)]
    counts = Counter(failure.fingerprint for failure in chosen)
    examples = {failure.fingerprint: failure for failure in chosen}
    lines = [
        f"  {count:>6} × {fingerprint} {examples[fingerprint].error_type}: {examples[fingerprint].message}"
        for fingerprint, count in counts.most_common(_TOP_REASONS)
    ]
    if len(counts) > _TOP_REASONS:
        lines.append(f"  and {len(counts) - _TOP_REASONS} more kinds of failure")
    lines.append(
        "  Nothing of this batch was written, no offset moved. Mend the pipeline or the producer, or raise the limit."
    )
    return "\n".join(lines)
