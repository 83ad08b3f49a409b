"""A consumer whose first question for its group's offsets is not answered in time."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer


def unanswered_once() -> Any:
    """A class in the place of confluent_kafka's Consumer. `asked`: how often the group's offsets were asked for."""

    class Unanswered(Consumer):
        asked = 0

        def committed(self, *partitions: Any, timeout: float) -> Any:
            Unanswered.asked += 1
            # What the client itself raises is another thing than an exception that a test would make.
            return super().committed(*partitions, timeout=0.0 if Unanswered.asked == 1 else timeout)

    return Unanswered
