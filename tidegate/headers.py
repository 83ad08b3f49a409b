"""Header names that the stages themselves read. All that a dead letter carries is in dlq/headers.py."""

from __future__ import annotations

REPLAY_OF = "tidegate.replay.of"
"""Id of the dead letter that this record is a replay of: the record is never late and never moves the high water."""

REPLAY_JOB = "tidegate.replay.job"
"""JOB/POSITION: which replay job sent it, and as which of its letters. The stages take only ids as tidegate makes them."""

REPLAY_TO = "tidegate.replay.to"
"""TOPIC/PARTITION/CRC32: where the job sent it, and what (tidegate/stages/repeats.py). Whoever copies it to another record
makes no replay of that. A dead letter does not carry it: another tool may send that back."""

RETRY_OF = "tidegate.retry.of"
"""Id of the record that this one is a delayed retry of: the same exemption from lateness."""

RETRY_ATTEMPT = "tidegate.retry.attempt"
"""The how manieth delayed retry this is, from 1."""

RETRY_FROM = "tidegate.retry.from"
"""The offset at which the record was put away before this attempt: how it is found in its key's line (`keepOrder`)."""

RETRY_BEHIND = "tidegate.retry.behind"
"""Of a record that waited for its turn: the offset at which the first of its line had been put away then."""
