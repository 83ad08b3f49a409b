"""When it is time for a catch-up: the pipeline file's `fallback`, and what is looked at for it."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.config.durations import format_duration
from tidegate.config.fallback import Fallback


@dataclass(frozen=True, slots=True)
class Situation:
    """How a pipeline is doing. `lag`: offsets that are not applied; `oldest`: for how many seconds the oldest of their records
    has been there (None: not looked at, or there is none); `workers`: members of the group; `held_by`: who has a hold on it."""

    lag: int
    oldest: float | None = None
    workers: int = 0
    held_by: str | None = None


class Policy:
    """Asked again and again, since it measures for how long there have been no workers. Times in seconds."""

    def __init__(self, fallback: Fallback) -> None:
        self._fallback = fallback
        self._down_since: float | None = None

    def reason(self, situation: Situation, now: float) -> str | None:
        """Why it is time, in words; None: it is not. `now`: of a clock that does not go back."""
        if situation.workers:
            self._down_since = None
        elif self._down_since is None:
            self._down_since = now
        if situation.held_by is not None or not situation.lag:
            return None
        return self._lag(situation) or self._oldest(situation) or self._down(now)

    def _lag(self, situation: Situation) -> str | None:
        most = self._fallback.lag_records
        return (
            f"{situation.lag} offsets are not applied (lagRecords: {most})" if most and situation.lag >= most else None
        )

    def _oldest(self, situation: Situation) -> str | None:
        most, oldest = self._fallback.lag_seconds, situation.oldest
        if most is None or oldest is None or oldest < most:
            return None
        return f"the oldest record that is not applied came {oldest:.0f} s ago (lagSeconds: {most})"

    def _down(self, now: float) -> str | None:
        most, since = self._fallback.worker_down_for, self._down_since
        if most is None or since is None or now - since < most / 1000:
            return None
        return f"no worker has been there for {now - since:.0f} s (workerDownFor: {format_duration(most)})"
