"""Header names that the stages themselves read. All that a dead letter carries is in dlq/headers.py."""

from __future__ import annotations

REPLAY_OF = "tidegate.replay.of"
"""Id of the dead letter that this record is a replay of: the record is never late and never moves the high water."""

RETRY_OF = "tidegate.retry.of"
"""Id of the record that this one is a delayed retry of: the same exemption from lateness."""

RETRY_ATTEMPT = "tidegate.retry.attempt"
"""The how manieth delayed retry this is, from 1."""
