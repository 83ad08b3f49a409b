"""Every header name of dead letters and late records, once. All values are UTF-8 text.

`tidegate.replay.of`, `.job` and `.to`, `tidegate.retry.of` and `tidegate.retry.attempt` are in tidegate/headers.py, because the
stages read them.
"""

from __future__ import annotations

DLQ_PREFIX = "tidegate.dlq."

ID = (
    "tidegate.dlq.id"  # topic-partition-offset[-stage] of the record that failed: the same whenever it is written again
)
VERSION = "tidegate.dlq.version"  # of this set of headers
PIPELINE = "tidegate.dlq.pipeline"
STAGE = "tidegate.dlq.stage"
ERROR_TYPE = "tidegate.dlq.error.type"
ERROR_MESSAGE = "tidegate.dlq.error.message"
STACK = "tidegate.dlq.stack"
REASONS = "tidegate.dlq.reasons"  # JSON list of {errorType, message, rule?, field?, found?}
ATTEMPT = "tidegate.dlq.attempt"  # calls made before giving up, the first one included; each delayed retry counts
FAILED_FIRST = "tidegate.dlq.failed.first"  # ISO 8601, UTC, milliseconds
FAILED_LAST = "tidegate.dlq.failed.last"
ORIGIN_TOPIC = "tidegate.dlq.origin.topic"  # the origin is where the record was when it failed for the first time
ORIGIN_PARTITION = "tidegate.dlq.origin.partition"
ORIGIN_OFFSET = "tidegate.dlq.origin.offset"
ORIGIN_TIMESTAMP = "tidegate.dlq.origin.timestamp"  # Kafka's record timestamp, ms since the epoch
ORIGIN_TIMESTAMP_TYPE = "tidegate.dlq.origin.timestamp.type"  # CreateTime or LogAppendTime
SCHEMA = "tidegate.dlq.schema"  # pipeline id @ digest of its schema
FINGERPRINT = "tidegate.dlq.fingerprint"
REPLAYS = "tidegate.dlq.replays"  # how often the record was replayed before this failure; a replay carries it
CONTEXT = "tidegate.dlq.context"  # JSON object
TRACE = "tidegate.dlq.trace"  # the record's W3C traceparent
TRUNCATED = "tidegate.dlq.truncated"  # comma-separated: value, key, headers, reasons
VALUE_SIZE = "tidegate.dlq.value.size"  # bytes, of the value before it was cut
VALUE_SHA256 = "tidegate.dlq.value.sha256"  # hex, of the value before it was cut

REPLAY_PREFIX = "tidegate.replay."

REPLAY_EDITED = "tidegate.replay.edited"  # comma-separated: key, value; only on a record that was mended

RETRY_PREFIX = "tidegate.retry."

RETRY_DUE = "tidegate.retry.due"  # ms since the epoch: when it goes back
RETRY_TOPIC = "tidegate.retry.topic"  # where it goes back to
RETRY_PARTITION = "tidegate.retry.partition"

LATE_PREFIX = "tidegate.late."

LATE_ID = "tidegate.late.id"
LATE_EVENT_TIME = "tidegate.late.event-time"  # ms since the epoch
LATE_WATERMARK = "tidegate.late.watermark"  # ms since the epoch, as it stood before the record
LATE_WINDOWS = (
    "tidegate.late.windows"  # JSON list of {aggregation, start, end}: the windows that miss the record (the first 32)
)
LATE_WINDOWS_COUNT = "tidegate.late.windows.count"  # how many miss it
LATE_PARTIAL = "tidegate.late.partial"  # true: the record still counted for other windows
LATE_TIMESTAMP = "tidegate.late.timestamp"  # Kafka's record timestamp in the source topic, ms since the epoch

TRACEPARENT = "traceparent"
