"""What somebody wants replayed: which letters, to where, mended how, how fast, and when to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dlq.index.filters import LetterFilter
from dlq.index.tables import OPEN
from tidegate.errors import ConfigError

MAX_FAILURES = 0.1
"""The share of replays that may fail again before a job stops, unless the request says otherwise."""


@dataclass(frozen=True, slots=True)
class Request:
    """`wanted`: open letters only are replayed. `to`: a topic of the allow-list; None: each to its own.

    `assignments`: `value.path = SQL` (dlq/replay/mend.py). `by_hand`: value and key were given as they are, and are in the
    memory of the process that sends them, not in the index. `rate`: letters a second, None: as fast as it goes.
    """

    wanted: LetterFilter
    to: str | None = None
    assignments: tuple[str, ...] = ()
    by_hand: bool = False
    canary: bool = True
    rate: int | None = None
    max_failures: float = MAX_FAILURES

    def __post_init__(self) -> None:
        if set(self.wanted.state) - {OPEN}:
            raise ConfigError(
                "only open dead letters are replayed",
                field="--state",
                value=", ".join(self.wanted.state),
                expected="no --state, or open",
                hint="`tidegate dlq park --undo` opens parked ones again",
            )
        if not 0 <= self.max_failures <= 1:
            raise ConfigError("not a share", field="--max-failures", value=self.max_failures, expected="0 to 1")
        if self.rate is not None and self.rate < 1:
            raise ConfigError("too slow", field="--rate", value=self.rate, expected="at least 1 a second")

    def to_json(self) -> dict[str, Any]:
        return {
            "filter": [list(pair) for pair in self.wanted.to_params()],
            "to": self.to,
            "set": list(self.assignments),
            "byHand": self.by_hand,
            "canary": self.canary,
            "rate": self.rate,
            "maxFailures": self.max_failures,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Request:
        params: dict[str, list[str]] = {}
        for name, value in document["filter"]:
            params.setdefault(name, []).append(value)
        return cls(
            LetterFilter.from_params(params),
            document["to"],
            tuple(document["set"]),
            document["byHand"],
            document["canary"],
            document["rate"],
            document["maxFailures"],
        )
