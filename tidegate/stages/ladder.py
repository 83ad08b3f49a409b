"""Delayed retries: which refused records are deferred instead of being dead-lettered, and to which rung."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tidegate.config.errorhandling import RetryTopics
from tidegate.headers import REPLAY_OF, RETRY_ATTEMPT, RETRY_OF
from tidegate.stages.batch import Deferral, RawBatch, Rejection

_LARGEST = (
    900_000  # bytes of key, value and headers; a topic takes 1 048 588 by default, and the retry adds its headers
)


class Ladder:
    """Decides by the record's own headers, so that it depends on the log alone. A replay of a dead letter is not deferred:
    whoever sent it waits for the answer."""

    def __init__(self, config: RetryTopics) -> None:
        self._rungs, self._stages = len(config.delays), frozenset(config.stages)

    def split(self, refused: Sequence[Rejection], raw: RawBatch) -> tuple[list[Rejection], list[Deferral]]:
        """Those that stay refused, and those that are tried again later."""
        if not self._rungs or not refused:
            return list(refused), []
        stay, deferred = list[Rejection](), list[Deferral]()
        for rejection in refused:
            rung = self.rung(rejection, raw)
            if rung is None:
                stay.append(rejection)
            else:
                deferred.append(Deferral(rejection, rung, rung + 1))
        return stay, deferred

    def rung(self, rejection: Rejection, raw: RawBatch) -> int | None:
        """Which delay the record has to wait, from 0; None when it is a dead letter."""
        if rejection.stage.value not in self._stages:
            return None
        pairs, size = _headers_and_size(raw, rejection.offset)
        done = retries_done(pairs)
        return done if done is not None and done < self._rungs and size <= _LARGEST else None


def is_small_enough(raw: RawBatch, offset: int) -> bool:
    """Whether the record fits into a retry topic."""
    return _headers_and_size(raw, offset)[1] <= _LARGEST


def _headers_and_size(raw: RawBatch, offset: int) -> tuple[list[tuple[str, bytes | None]], int]:
    row = int(np.searchsorted(raw.records.column("offset").to_numpy(), offset))
    key, value, headers = (raw.records.column(name)[row].as_py() for name in ("key", "value", "headers"))
    pairs = [(header["key"], header["value"]) for header in headers or ()]
    return pairs, len(key or b"") + len(value or b"") + sum(len(name) + len(data or b"") for name, data in pairs)


def retries_done(headers: Iterable[tuple[str, bytes | None]]) -> int | None:
    """How many delayed retries a record has behind it; None for one that is not (or not readably) to be retried."""
    last = dict(headers)
    if REPLAY_OF in last:
        return None
    if RETRY_OF not in last:
        return 0
    written = last.get(RETRY_ATTEMPT) or b""
    return int(written) if written.isdigit() and len(written) < 10 else None
