"""Other tools read tidegate's dead letters, and tidegate reads theirs."""

from __future__ import annotations

import pytest

from dlq import headers as h
from dlq.dialects import READERS
from tests.unit.dlq.dead_letters import letter, read_back, rejection
from tests.unit.dlq.dead_letters import written as as_written

FAILED = rejection(42, "bad", stack="Traceback")


def written(dialect: str) -> dict[str, bytes | None]:
    """The headers besides tidegate's own."""
    record = as_written(letter(42, timestamp_type="CreateTime", failed=FAILED), dialect=dialect)
    return {name: value for name, value in record.headers if not name.startswith(h.DLQ_PREFIX)}


def test_connect() -> None:
    """The connect dialect writes Kafka Connect's names, all as text."""
    assert written("connect") == {
        "__connect.errors.topic": b"flights",
        "__connect.errors.partition": b"1",
        "__connect.errors.offset": b"42",
        "__connect.errors.connector.name": b"flights",
        "__connect.errors.task.id": b"1",
        "__connect.errors.stage": b"decode",
        "__connect.errors.exception.class.name": b"WrongType",
        "__connect.errors.exception.message": b"bad",
        "__connect.errors.exception.stacktrace": b"Traceback",
    }


def test_spring() -> None:
    """The spring dialect writes Spring's names, numbers as big-endian binary of Spring's lengths."""
    assert written("spring") == {
        "kafka_dlt-original-topic": b"flights",
        "kafka_dlt-original-partition": b"\x00\x00\x00\x01",
        "kafka_dlt-original-offset": b"\x00\x00\x00\x00\x00\x00\x00\x2a",
        "kafka_dlt-original-timestamp": b"\x00\x00\x00\x00\x00\x00\x00\x05",
        "kafka_dlt-original-timestamp-type": b"CreateTime",
        "kafka_dlt-original-consumer-group": b"flights",
        "kafka_dlt-exception-fqcn": b"WrongType",
        "kafka_dlt-exception-message": b"bad",
        "kafka_dlt-exception-stacktrace": b"Traceback",
    }


def test_streams() -> None:
    """The streams dialect writes the names of KIP-1034, the exception as Java's toString gives it."""
    assert written("streams") == {
        "__streams.errors.topic": b"flights",
        "__streams.errors.partition": b"1",
        "__streams.errors.offset": b"42",
        "__streams.errors.exception": b"WrongType: bad",
        "__streams.errors.message": b"bad",
        "__streams.errors.stacktrace": b"Traceback",
    }


def test_none() -> None:
    """The dialect none writes nothing besides tidegate's own headers."""
    assert written("none") == {}


@pytest.mark.parametrize("dialect", ["connect", "spring", "streams"])
def test_foreign_dead_letters_are_read(dialect: str) -> None:
    """A dead letter that only carries another tool's headers shows its origin, error, message and stack."""
    back = read_back((b"k", b"v", [("own", b"1"), *written(dialect).items()]), timestamp=77)
    assert back.id == "flights-1-42"
    assert (back.error_type, back.message, back.stack) == ("WrongType", "bad", "Traceback")
    assert (back.first_failure, back.last_failure, back.attempt, back.replays) == (77, 77, 1, 0)
    assert back.headers == (("own", b"1"),)


@pytest.mark.parametrize("dialect", ["connect", "spring", "streams"])
def test_the_last_header_counts(dialect: str) -> None:
    """Where a header is repeated, as tools append them, the last one is read."""
    newer = as_written(letter(43, failed=rejection(43, "worse")), dialect=dialect).headers
    newer = [header for header in newer if not header[0].startswith(h.DLQ_PREFIX)]
    back = read_back((None, None, [*written(dialect).items(), *newer]))
    assert (back.id, back.message) == ("flights-1-43", "worse")


@pytest.mark.parametrize("dialect", ["connect", "spring", "streams"])
@pytest.mark.parametrize("part", ["topic", "partition", "offset"])
def test_half_an_origin_is_none(dialect: str, part: str) -> None:
    """Headers without a whole, readable origin tell no origin: the place in the dead-letter topic stands in."""
    headers = {name: value for name, value in written(dialect).items() if not name.endswith(part)}
    assert read_back((None, None, list(headers.items()))).id == "dlq-0-7"
    if part != "topic":
        broken = {**headers, next(name for name in written(dialect) if name.endswith(part)): b"?"}
        assert read_back((None, None, list(broken.items()))).id == "dlq-0-7"


def test_names_do_not_overlap() -> None:
    """No dialect takes another one's headers for its own."""
    prefixes = [prefix for reader in READERS for prefix in reader.prefixes]
    for dialect in ("connect", "spring", "streams"):
        assert len({prefix for prefix in prefixes for name in written(dialect) if name.startswith(prefix)}) == 1
