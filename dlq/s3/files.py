"""Dead letters as the bytes of a file, Parquet or JSON lines, and back.

A row has what the envelope says, for queries, and the record as it stands in the topic (key, value and all headers, byte for
byte): from that everything can be read again as if it came from the topic.
"""

from __future__ import annotations

import io
import json
from base64 import b64decode
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from dlq.document import encoded, full_document, safe_json
from dlq.envelope import Envelope
from dlq.original import Original
from dlq.reader import DeadLetter
from dlq.s3.naming import SUFFIXES
from tidegate.errors import ConfigError
from tidegate.headers import Headers
from tidegate.record import TopicPartition

CONTENT_TYPES = {"parquet": "application/vnd.apache.parquet", "json": "application/x-ndjson"}
_MOST = 2**63 - 1
_MOMENT = pa.timestamp("ms", "UTC")
_HEADERS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))
_REASON = [(name, pa.string()) for name in ("error_type", "message", "rule", "field", "found")]
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("pipeline", pa.string()),
        ("stage", pa.string()),
        ("error_type", pa.string()),
        ("message", pa.string()),
        ("stack", pa.string()),
        ("reasons", pa.list_(pa.struct(_REASON))),
        ("attempt", pa.int64()),
        ("first_failure", _MOMENT),
        ("last_failure", _MOMENT),
        ("origin_topic", pa.string()),
        ("origin_partition", pa.int64()),
        ("origin_offset", pa.int64()),
        ("origin_timestamp", _MOMENT),
        ("origin_timestamp_type", pa.string()),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("headers", _HEADERS),  # the record's own
        ("schema", pa.string()),
        ("fingerprint", pa.string()),
        ("replays", pa.int64()),
        ("context", pa.string()),  # JSON
        ("traceparent", pa.string()),
        ("truncated", pa.list_(pa.string())),
        ("value_size", pa.int64()),
        ("value_sha256", pa.string()),
        ("dlq_topic", pa.string()),
        ("dlq_partition", pa.int32()),
        ("dlq_offset", pa.int64()),
        ("dlq_timestamp", _MOMENT),
        ("dlq_headers", _HEADERS),  # all that the record has in the topic
    ]
)
_NEEDED = ("key", "value", "dlq_topic", "dlq_partition", "dlq_offset", "dlq_timestamp", "dlq_headers")


class Kept(NamedTuple):
    """A record of a dead-letter topic, as it stands there. `timestamp`: ms."""

    tp: TopicPartition
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def envelope(self) -> Envelope:
        return Envelope.from_record(
            self.key, self.value, self.headers, tp=self.tp, offset=self.offset, timestamp=self.timestamp
        )

    @property
    def original(self) -> Original:
        return Original.of(self.key, self.value, self.headers, tp=self.tp, offset=self.offset, timestamp=self.timestamp)

    @property
    def letter(self) -> DeadLetter:
        return DeadLetter(self.envelope, self.tp.topic, self.tp.partition, self.offset, self.timestamp)


def encode(records: Sequence[tuple[Kept, Envelope]], form: str) -> bytes:
    """The file. The same records give the same bytes. `form`: parquet or json."""
    if form == "json":
        return "".join(safe_json(_document(kept, envelope)) + "\n" for kept, envelope in records).encode()
    columns = zip(*(_row(kept, envelope) for kept, envelope in records), strict=True)
    table = pa.Table.from_arrays(
        [pa.array(values, f.type) for values, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def decode(data: bytes, name: str) -> Iterator[Kept]:
    """The records of a file. Raises ConfigError that names it, for one that was not written by `encode`."""
    try:
        yield from _from_json(data) if name.endswith(SUFFIXES["json"]) else _from_parquet(data)
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        problem = f"not a file of dead letters as tidegate writes them: {type(error).__name__}: {error}"
        raise ConfigError(problem, file=name) from error


def _row(kept: Kept, envelope: Envelope) -> tuple[Any, ...]:
    """The columns of SCHEMA, in their order."""
    origin = envelope.origin
    return (
        envelope.id,
        envelope.pipeline,
        envelope.stage,
        envelope.error_type,
        envelope.message,
        envelope.stack,
        [tuple(getattr(reason, name) for name, _ in _REASON) for reason in envelope.reasons],
        _number(envelope.attempt),
        _number(envelope.first_failure),
        _number(envelope.last_failure),
        origin.topic,
        _number(origin.partition),
        _number(origin.offset),
        None if origin.timestamp is None else _number(origin.timestamp),
        origin.timestamp_type,
        kept.key,
        kept.value,
        envelope.headers,
        envelope.schema,
        envelope.fingerprint,
        _number(envelope.replays),
        None if envelope.context is None else msgspec.json.encode(envelope.context).decode(),
        envelope.traceparent,
        envelope.truncated,
        None if envelope.value_size is None else _number(envelope.value_size),
        envelope.value_sha256,
        kept.tp.topic,
        kept.tp.partition,
        kept.offset,
        kept.timestamp,
        kept.headers,
    )


def _document(kept: Kept, envelope: Envelope) -> dict[str, Any]:
    """The document of a dead letter (dlq/document.py), and the headers as they stand in the topic."""
    document = full_document(DeadLetter(envelope, kept.tp.topic, kept.tp.partition, kept.offset, kept.timestamp))
    headers = [{"name": name, **encoded("value", value)} for name, value in kept.headers]
    return {**document, "deadLetter": {**document["deadLetter"], "headers": headers}}


def _from_parquet(data: bytes) -> Iterator[Kept]:
    table = pq.read_table(io.BytesIO(data), columns=list(_NEEDED))
    moments = table["dlq_timestamp"].cast(pa.int64())
    columns = [table[name] if name != "dlq_timestamp" else moments for name in _NEEDED]
    for key, value, topic, partition, offset, timestamp, headers in zip(
        *(column.to_pylist() for column in columns), strict=True
    ):
        pairs = [(header["name"], header["value"]) for header in headers]
        yield Kept(TopicPartition(topic, partition), offset, timestamp, key, value, pairs)


def _from_json(data: bytes) -> Iterator[Kept]:
    for line in data.decode().split("\n"):  # a value may have other characters that end a line for Python
        if line:
            document = json.loads(line)
            place = document["deadLetter"]
            headers = [(str(header["name"]), _bytes(header, "value")) for header in place["headers"]]
            tp = TopicPartition(place["topic"], place["partition"])
            key, value = _bytes(document, "key"), _bytes(document, "value")
            yield Kept(tp, place["offset"], place["timestamp"], key, value, headers)


def _bytes(document: dict[str, Any], name: str) -> bytes | None:
    text = document[name]
    if text is None:
        return None
    return b64decode(text) if document[f"{name}Encoding"] == "base64" else str(text).encode()


def _number(value: int) -> int:
    """What a column holds: anybody can write any number into a header."""
    return max(-_MOST, min(_MOST, value))
