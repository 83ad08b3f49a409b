"""What may become of a letter in a job, by name (docs/dead-letters.md says what each means)."""

from __future__ import annotations

OK, FAILED_AGAIN, SENT = "ok", "failed_again", "sent"
PARKED, INVALID, GONE, CANCELLED = "parked", "invalid", "gone", "cancelled"
"""Of a letter that is not sent."""

OUTCOMES = (OK, FAILED_AGAIN, SENT, PARKED, INVALID, GONE, CANCELLED)
