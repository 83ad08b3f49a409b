"""Dead letters as other tools write them, byte for byte as their documentation says, are read right."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from dlq.dialects import Origin
from tests.unit.dlq.dead_letters import read_back
from tidegate.headers import Headers


class Fixture(NamedTuple):
    """Headers, and what they say: id, pipeline, stage, error type, message, stack, attempt; the origin."""

    headers: Headers
    says: tuple[Any, ...]
    origin: Origin


FIXTURES = {
    # ByteBuffer.allocate(Integer.BYTES).putInt(…), Long.BYTES: big-endian (DeadLetterPublishingRecoverer).
    "spring": Fixture(
        [
            ("kafka_dlt-original-topic", b"orders"),
            ("kafka_dlt-original-partition", b"\x00\x00\x00\x03"),
            ("kafka_dlt-original-offset", b"\x00\x00\x00\x01\x00\x00\x00\x02"),
            ("kafka_dlt-original-timestamp", b"\x00\x00\x01\x8b\xcf\xe5\x68\x00"),
            ("kafka_dlt-original-timestamp-type", b"CreateTime"),
            ("kafka_dlt-original-consumer-group", b"billing"),
            ("kafka_dlt-exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
            ("kafka_dlt-exception-cause-fqcn", b"java.lang.IllegalArgumentException"),
            ("kafka_dlt-exception-message", b"Listener failed; nested exception is amount < 0"),
            ("kafka_dlt-exception-stacktrace", b"java.lang.IllegalArgumentException: amount < 0\n\tat a.B.c(B.java:1)"),
        ],
        (
            "orders-3-4294967298", "billing", "unknown", "java.lang.IllegalArgumentException",
            "Listener failed; nested exception is amount < 0",
            "java.lang.IllegalArgumentException: amount < 0\n\tat a.B.c(B.java:1)", 1,
        ),
        Origin("orders", 3, 4294967298, 1_700_000_000_000, "CreateTime"),
    ),
    "spring key": Fixture(
        [
            ("kafka_dlt-original-topic", b"orders"),
            ("kafka_dlt-original-partition", b"\x00\x00\x00\x00"),
            ("kafka_dlt-original-offset", b"\x00\x00\x00\x00\x00\x00\x00\x07"),
            ("kafka_dlt-key-exception-fqcn", b"org.apache.kafka.common.errors.SerializationException"),
            ("kafka_dlt-key-exception-message", b"Size of data received by IntegerDeserializer is not 4"),
        ],
        (
            "orders-0-7", "unknown", "unknown", "org.apache.kafka.common.errors.SerializationException",
            "Size of data received by IntegerDeserializer is not 4", None, 1,
        ),
        Origin("orders", 0, 7),
    ),
    "spring retry topic": Fixture(
        [
            ("kafka_original-topic", b"orders"),
            ("kafka_original-partition", b"\x00\x00\x00\x01"),
            ("kafka_original-offset", b"\x00\x00\x00\x00\x00\x00\x00\x2a"),
            ("kafka_exception-fqcn", b"java.io.IOException"),
            ("kafka_exception-message", b"away"),
            ("retry_topic-attempts", b"\x00\x00\x00\x03"),
            ("retry_topic-original-timestamp", b"\x01\x8b\xcf\xe5\x68\x00"),
            ("retry_topic-backoff-timestamp", b"\x01\x8b\xcf\xe5\x6b\xe8"),
        ],
        ("orders-1-42", "unknown", "unknown", "java.io.IOException", "away", None, 3),
        Origin("orders", 1, 42),
    ),
    "spring retry topic, older": Fixture(
        [
            ("kafka_original-topic", b"orders"),
            ("kafka_original-partition", b"\x00\x00\x00\x01"),
            ("kafka_original-offset", b"\x00\x00\x00\x00\x00\x00\x00\x2b"),
            ("retry_topic-attempts", b"\x02"),
        ],
        ("orders-1-43", "unknown", "unknown", "unknown", "", None, 2),
        Origin("orders", 1, 43),
    ),
    "connect": Fixture(
        [
            ("__connect.errors.topic", b"orders"),
            ("__connect.errors.partition", b"5"),
            ("__connect.errors.offset", b"1205"),
            ("__connect.errors.connector.name", b"s3-sink"),
            ("__connect.errors.task.id", b"0"),
            ("__connect.errors.stage", b"VALUE_CONVERTER"),
            ("__connect.errors.class.name", b"org.apache.kafka.connect.json.JsonConverter"),
            ("__connect.errors.exception.class.name", b"org.apache.kafka.connect.errors.DataException"),
            ("__connect.errors.exception.message", b"Converting byte[] to Kafka Connect data failed"),
            ("__connect.errors.exception.stacktrace", b"org.apache.kafka.connect.errors.DataException: \xe2\x80\xa6"),
        ],
        (
            "orders-5-1205", "s3-sink", "VALUE_CONVERTER", "org.apache.kafka.connect.errors.DataException",
            "Converting byte[] to Kafka Connect data failed", "org.apache.kafka.connect.errors.DataException: …", 1,
        ),
        Origin("orders", 5, 1205),
    ),
    "streams": Fixture(
        [
            ("__streams.errors.exception", b"java.lang.NullPointerException: amount"),
            ("__streams.errors.message", b"amount"),
            ("__streams.errors.stacktrace", b"java.lang.NullPointerException: amount\n\tat a.B"),
            ("__streams.errors.topic", b"orders"),
            ("__streams.errors.partition", b"2"),
            ("__streams.errors.offset", b"9"),
        ],
        (
            "orders-2-9", "unknown", "unknown", "java.lang.NullPointerException", "amount",
            "java.lang.NullPointerException: amount\n\tat a.B", 1,
        ),
        Origin("orders", 2, 9),
    ),
    "share group": Fixture(
        [
            ("__dlq.errors.topic", b"orders"),
            ("__dlq.errors.partition", b"2"),
            ("__dlq.errors.offset", b"77"),
            ("__dlq.errors.group", b"share-billing"),
            ("__dlq.errors.delivery.count", b"5"),
            ("__dlq.errors.message", b"delivery count limit reached"),
        ],
        ("orders-2-77", "share-billing", "unknown", "unknown", "delivery count limit reached", None, 5),
        Origin("orders", 2, 77),
    ),
    "smallrye": Fixture(
        [
            ("dead-letter-topic", b"orders"),
            ("dead-letter-partition", b"1"),
            ("dead-letter-offset", b"13"),
            ("dead-letter-exception-class-name", b"jakarta.ejb.EJBException"),
            ("dead-letter-reason", b"failed"),
            ("dead-letter-cause", b"no such customer"),
            ("dead-letter-cause-class-name", b"a.b.NoSuchCustomer"),
        ],
        ("orders-1-13", "unknown", "unknown", "a.b.NoSuchCustomer", "no such customer", None, 1),
        Origin("orders", 1, 13),
    ),
    # Neither the topic nor the error: the place in the dead-letter topic is the id.
    "arroyo": Fixture(
        [("original_partition", b"4"), ("original_offset", b"31")],
        ("dlq-0-7", "unknown", "unknown", "unknown", "", None, 1),
        Origin("unknown", 4, 31),
    ),
    "no headers": Fixture([], ("dlq-0-7", "unknown", "unknown", "unknown", "", None, 1), Origin("dlq", 0, 7)),
}  # fmt: skip


@pytest.mark.parametrize("tool", FIXTURES)
def test_read(tool: str) -> None:
    """Origin, pipeline, stage, error and attempts are those of the tool's headers; the record's own headers stay."""
    fixture = FIXTURES[tool]
    back = read_back((b"k", b"\xff\x00", [("own", b"1"), *fixture.headers]), timestamp=77)
    found = (back.id, back.pipeline, back.stage, back.error_type, back.message, back.stack, back.attempt)
    assert found == fixture.says
    assert back.origin == fixture.origin
    assert (back.key, back.value, back.headers) == (b"k", b"\xff\x00", (("own", b"1"),))
    assert (back.first_failure, back.last_failure) == (77, 77)


def test_one_failure_has_one_fingerprint_whatever_the_record() -> None:
    """Letters of another tool with the same error and other values in the message fall into one group."""
    texts = (b"customer 17 is unknown", b"customer 4711 is unknown")
    letters = [
        read_back((None, None, [*FIXTURES["share group"].headers, ("__dlq.errors.message", text)])) for text in texts
    ]
    assert letters[0].fingerprint == letters[1].fingerprint
