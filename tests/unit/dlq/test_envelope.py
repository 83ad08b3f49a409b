"""An envelope keeps a failed record as it was, with everything needed to understand, mend and replay it."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dlq import headers as h
from dlq.dialects import DIALECTS
from dlq.earlier import is_failure_header
from dlq.kind import Kinds
from dlq.letter import Letter
from dlq.limits import MAX_HEADERS_BYTES
from tests.unit.dlq.dead_letters import (
    NOW_MS,
    SOURCE,
    envelope,
    letter,
    read_back,
    record,
    rejection,
    told,
    written,
)
from tidegate.record import Stage, TopicPartition
from tidegate.stages.batch import Reason, Rejection

ORIGINAL_HEADER = st.tuples(
    st.text(st.characters(codec="utf-8"), max_size=20).filter(
        lambda name: not is_failure_header(name) and name != h.TRACEPARENT
    ),
    st.none() | st.binary(max_size=30),
)
WORD = st.text(st.characters(codec="utf-8"), max_size=40)
REASON = st.builds(
    Reason,
    error_type=WORD.filter(bool),
    message=WORD,
    rule=st.none() | WORD,
    field=st.none() | WORD,
    found=st.none() | WORD,
)


@pytest.mark.slow
@settings(deadline=None)  # the first example pays for imports
@given(
    key=st.none() | st.binary(max_size=50),
    value=st.none() | st.binary(max_size=200),
    headers=st.lists(ORIGINAL_HEADER, max_size=4).map(tuple),
    reasons=st.lists(REASON, min_size=1, max_size=4).map(tuple),
    stack=st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=100),
    stage=st.sampled_from(Stage),
    attempt=st.integers(1, 99),
    offset=st.integers(0, 2**62),
    now_ms=st.integers(0, 4_000_000_000_000),
    timestamp_type=st.none() | st.sampled_from(["CreateTime", "LogAppendTime"]),
    has_timestamp=st.booleans(),
    dialect=st.sampled_from(sorted(DIALECTS)),
)
def test_round_trip(
    key: bytes | None,
    value: bytes | None,
    headers: tuple[tuple[str, bytes | None], ...],
    reasons: tuple[Reason, ...],
    stack: str | None,
    stage: Stage,
    attempt: int,
    offset: int,
    now_ms: int,
    timestamp_type: str | None,
    has_timestamp: bool,
    dialect: Literal["connect", "spring", "streams", "none"],
) -> None:
    """An envelope written to Kafka and read again is the same envelope, in every dialect."""
    made = Letter.of(
        Rejection(offset, stage, reasons, stack, attempt),
        record(offset, key=key, value=value, headers=headers, timestamp_type=timestamp_type),
        Kinds(pipeline="flights", schema="flights@0", now_ms=now_ms, context={"engine": "stream"}),
    )
    made = made if has_timestamp else replace(made, timestamp=None)
    assert read_back(written(made, dialect=dialect)) == told(made)


def test_bytes_are_kept() -> None:
    """Key, value and the record's own headers are the original bytes, in their order, repeated and null ones too."""
    own = (("a", b"\xff\x00"), ("a", None), ("ü", b"2"))
    key, value, headers = written(letter(key=b"\x00\xff", value=b"\xfe not utf-8", headers=own))
    assert (key, value) == (b"\x00\xff", b"\xfe not utf-8")
    assert tuple(headers[:3]) == own


def test_id_is_the_place_of_the_record() -> None:
    """The same rejection found again, later, has the same id and the same fingerprint."""
    first, again = envelope(42), envelope(42, now_ms=NOW_MS + 60_000)
    assert first.id == again.id == "flights-1-42"
    assert first.fingerprint == again.fingerprint


def test_a_replay_that_fails_again() -> None:
    """A replay that fails again keeps its first origin, first failure and replay count, and no old header."""
    replayed = [*written(letter(42)).headers, (h.REPLAYS, b"2"), ("tidegate.replay.of", b"flights-1-42")]
    replayed.append(
        ("tidegate.replay.to", b"flights/1/00000000")
    )  # else a tool that sends the dead letter back makes a repeat
    again = letter(
        99, now_ms=NOW_MS + 1000, headers=tuple(replayed), failed=rejection(99, "another", stage=Stage.VALIDATE)
    )
    assert again.id == "flights-1-99"
    assert told(again).origin == envelope(42).origin
    assert (again.kind.first_failure, again.kind.last_failure, again.kind.replays) == (NOW_MS, NOW_MS + 1000, 2)
    assert again.headers == (("tidegate.replay.of", b"flights-1-42"),)
    names = [name for name, _ in written(again).headers]
    assert len(names) == len(set(names))
    assert read_back(written(again)) == told(again)


@pytest.mark.parametrize("dialect", ["connect", "spring", "streams"])
def test_failing_again_in_another_tool(dialect: Literal["connect", "spring", "streams"]) -> None:
    """A record that another tool had dead-lettered before keeps the origin which that tool wrote."""
    theirs = written(letter(42, timestamp_type="CreateTime"), dialect=dialect).headers
    foreign = tuple(header for header in theirs if not header[0].startswith(h.DLQ_PREFIX))
    again = envelope(7, tp=TopicPartition("elsewhere", 0), headers=foreign)
    assert again.origin[:3] == ("flights", 1, 42)
    assert again.headers == ()


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@pytest.mark.parametrize(
    ("name", "lie"),
    [
        (h.ORIGIN_PARTITION, b"%d" % 2**31),
        (h.ORIGIN_OFFSET, b"%d" % 2**63),
        (h.ORIGIN_TIMESTAMP, b"%d" % (-(2**63) - 1)),
        (h.FAILED_FIRST, b"0001-01-01T00:00:00+23:59"),
        (h.FAILED_FIRST, b"9999-12-31T23:59:59-23:59"),
    ],
)
def test_what_no_failure_could_have_written_stops_nothing(
    name: str, lie: bytes, dialect: Literal["connect", "spring", "streams", "none"]
) -> None:
    """Anybody can put headers on a record. One with a number or a time that fits nowhere gets its letter in every dialect."""
    before = {h.ORIGIN_TOPIC: b"other", h.ORIGIN_PARTITION: b"3", h.ORIGIN_OFFSET: b"7", h.ORIGIN_TIMESTAMP: b"9"}
    again = letter(99, headers=tuple({**before, name: lie}.items()))
    assert read_back(written(again, dialect=dialect)) == told(again)
    assert again.kind.first_failure == NOW_MS


def test_headers_do_not_grow() -> None:
    """Failing a hundred times gives as many headers as failing once."""
    once = current = letter(42)
    for offset in range(100):
        current = letter(offset, headers=tuple(written(current).headers))
    assert len(written(current).headers) == len(written(once).headers)


def test_a_value_that_is_too_large() -> None:
    """A value over maxValueBytes keeps its beginning, says so, and tells the size and SHA-256 of the whole."""
    whole = bytes(range(256)) * 8
    _, value, headers = written(letter(value=whole), max_value_bytes=1000)
    values = dict(headers)
    assert value == whole[:1000]
    assert (values[h.TRUNCATED], values[h.VALUE_SIZE]) == (b"value", b"2048")
    assert values[h.VALUE_SHA256] == sha256(whole).hexdigest().encode()
    assert (values[h.ORIGIN_TOPIC], values[h.ORIGIN_PARTITION], values[h.ORIGIN_OFFSET]) == (b"flights", b"1", b"42")


def test_what_was_cut_stays_known() -> None:
    """A dead letter that was cut and fails again still tells the size and digest of the whole value."""
    key, value, headers = written(letter(value=b"x" * 500), max_value_bytes=100)
    again = letter(7, key=key, value=value, headers=tuple(headers))
    assert (again.truncated, again.value_size) == (("value",), 500)
    smaller = read_back(written(again, max_value_bytes=50))
    assert (smaller.value, smaller.value_size) == (b"x" * 50, 500)
    assert smaller.value_sha256 == sha256(b"x" * 500).hexdigest()


def test_the_largest_record_still_fits() -> None:
    """With everything at its limit a dead letter stays under the megabyte that a broker takes by default."""
    reasons = tuple(Reason("R", "m" * 5000, rule="r" * 50, field="f" * 5000, found="x" * 5000) for _ in range(200))
    own = (*((f"h{i}", b"x" * 40) for i in range(500)), ("long", b"y" * 500_000), ("last", b"z"))
    large = letter(
        key=b"k" * 1_000_000,
        value=b"v" * 5_000_000,
        headers=own,
        failed=Rejection(42, Stage.HANDLE, reasons, stack="é" * 100_000),
    )
    key, value, headers = written(large)
    size = len(key or b"") + len(value or b"") + sum(len(n.encode()) + len(v or b"") + 10 for n, v in headers)
    assert size < 1_048_588 - 1024
    assert dict(headers)[h.TRUNCATED] == b"headers,key,reasons,value"
    assert dict(headers)["long"] == b"y" * 256
    assert dict(headers)["last"] == b"z"
    back = read_back((key, value, headers))
    assert back.truncated == ("headers", "key", "reasons", "value")
    assert back.reasons[0].message == "m" * 1024


@pytest.mark.parametrize(
    "name",
    [h.TRACEPARENT, h.ORIGIN_TOPIC, h.ORIGIN_TIMESTAMP_TYPE, h.TRUNCATED, h.VALUE_SHA256, "__connect.errors.topic"],
)
def test_no_letter_repeats_a_long_header(name: str) -> None:
    """What a letter takes over from its record's headers is short. Else a record that its topic took would have a letter that
    the dead-letter topic does not take, for ever."""
    before = {h.ORIGIN_PARTITION: b"3", h.ORIGIN_OFFSET: b"7", h.VALUE_SIZE: b"9", h.VALUE_SHA256: b"00"}
    before |= {"__connect.errors.partition": b"3", "__connect.errors.offset": b"7"}
    topic = {} if name.startswith("__") else {h.ORIGIN_TOPIC: b"other"}
    one = letter(value=b"v" * 800_000, headers=tuple({**before, **topic, name: b"\xff" * 200_000}.items()))
    _, value, headers = written(one)
    assert len(value or b"") == 800_000
    assert sum(len(n) + len(v or b"") + 10 for n, v in headers) < MAX_HEADERS_BYTES + 4096


def test_many_small_headers() -> None:
    """Of more headers than fit, the first ones are kept, in their order."""
    own = tuple((f"header-{i:06}", b"x" * 20) for i in range(5000))
    kept = read_back(written(letter(headers=own))).headers
    assert kept == own[: len(kept)]
    assert MAX_HEADERS_BYTES // 2 < sum(len(n) + len(v or b"") for n, v in kept) <= MAX_HEADERS_BYTES


@settings(deadline=None)  # the first example pays for imports
@given(stack=st.text(st.characters(codec="utf-8"), max_size=400), limit=st.integers(1, 200))
def test_the_stack_is_cut_in_front(stack: str, limit: int) -> None:
    """A long stack keeps its end, where the error is, in at most maxStackBytes and in whole characters."""
    failed = Rejection(42, Stage.HANDLE, (Reason("E", "m"),), stack=stack)
    headers = dict(written(letter(failed=failed), max_stack_bytes=limit).headers)
    kept = headers[h.STACK]
    assert kept is not None
    assert len(kept) <= limit
    text = kept.decode()
    assert text == stack or stack.endswith(text.removeprefix("…\n"))


def test_broken_text_is_written() -> None:
    """A message with lone surrogates, as broken input gives them, is written escaped and does not stop the pipeline."""
    failed = Rejection(42, Stage.HANDLE, (Reason("E", "bad \udcff", found="\ud800"),), stack="at \udcff")
    back = read_back(written(letter(failed=failed)))
    assert (back.message, back.stack, back.reasons[0].found) == ("bad \\udcff", "at \\udcff", "\\ud800")


def test_trace_is_kept() -> None:
    """The record's traceparent is told by the envelope and stays among the record's own headers."""
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    back = read_back(written(letter(headers=(("traceparent", trace),))))
    assert back.traceparent == trace.decode()
    assert back.headers == (("traceparent", trace),)


@settings(deadline=None)  # the first example pays for imports
@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([value for name, value in vars(h).items() if name.isupper()]),
            st.none() | st.binary(max_size=12),
        ),
        max_size=30,
    )
)
def test_anything_in_the_topic_can_be_read(headers: list[tuple[str, bytes | None]]) -> None:
    """Whatever another program put into the headers, the dead letter is read and has an id."""
    back = read_back((None, None, headers))
    assert back.id
    assert back.reasons


@pytest.mark.parametrize("data", [b'{"a":' + b"[" * 100_000, b'[{"x":' + b"[" * 100_000, b"[1]", b"{}"])
def test_hostile_json_in_headers(data: bytes) -> None:
    """JSON made to exhaust the stack, or of another shape, in reasons or context is left out and stops nothing."""
    back = read_back((None, None, [(h.ERROR_TYPE, b"E"), (h.CONTEXT, data), (h.REASONS, data)]))
    assert back.reasons == (Reason("E", ""),)
    assert not back.context


def test_a_record_without_any_headers() -> None:
    """A record that nobody marked is shown with its place in the dead-letter topic and an unknown error."""
    back = read_back((b"k", b"v", []), timestamp=5)
    assert (back.id, back.stage, back.error_type) == ("dlq-0-7", "unknown", "unknown")
    assert (back.origin[:3], back.first_failure, back.last_failure) == (("dlq", 0, 7), 5, 5)


def test_all_reasons_are_kept() -> None:
    """A record that failed three rules tells all three; the first one names it."""
    reasons = tuple(Reason("RuleViolation", f"rule {n} failed", rule=n) for n in ("a", "b", "c"))
    back = read_back(written(letter(failed=Rejection(42, Stage.VALIDATE, reasons))))
    assert back.reasons == reasons
    assert back.message == "rule a failed"


def test_source_is_not_changed_by_truncation() -> None:
    """Writing a letter does not change it: the same one can be written to a second place."""
    original = letter(value=b"x" * 500)
    copy = replace(original)
    written(original, max_value_bytes=10)
    assert original == copy
    assert original.kind.topic == SOURCE.topic
