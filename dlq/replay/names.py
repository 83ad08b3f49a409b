"""What may become of a job, and of a letter in one, by name (docs/dead-letters.md says what each means)."""

from __future__ import annotations

from typing import Literal, get_args

JobState = Literal["running", "paused", "stopped", "cancelling", "cancelled", "done"]
JOB_STATES: tuple[str, ...] = get_args(JobState)

OK, FAILED_AGAIN, LOOP, SENT = "ok", "failed_again", "loop", "sent"
FAILED = (FAILED_AGAIN, LOOP)
"""Of a letter that was sent and is a dead letter again."""
PARKED, INVALID, GONE, CANCELLED = "parked", "invalid", "gone", "cancelled"
"""Of a letter that is not sent; `gone` also of one that was, to a topic that was deleted before it was read there."""

OUTCOMES = (OK, FAILED_AGAIN, LOOP, SENT, PARKED, INVALID, GONE, CANCELLED)
