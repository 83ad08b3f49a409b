"""Dead letters are listed and shown safely, in memory that does not grow with the topic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlq import listing, reader
from dlq.document import document, full_document, moment, one_line, printable, readable
from dlq.listing import Groups, Wanted, newest, without_payload
from dlq.reader import DeadLetter, distinct
from tests.unit.dlq.dead_letters import NOW_MS, envelope, rejection


def letter(offset: int, *, now_ms: int = NOW_MS, message: str = "bad") -> DeadLetter:
    return DeadLetter(envelope(offset, now_ms=now_ms, failed=rejection(offset, message)), "dlq", 0, offset, now_ms)


def test_newest_first() -> None:
    """The newest are those that failed last, whatever their order in the topic."""
    letters = [letter(o, now_ms=NOW_MS + when) for o, when in enumerate([5, 9, 1, 7])]
    assert [found.offset for found in newest(letters, 3)] == [1, 3, 0]


def test_groups() -> None:
    """Dead letters are counted by fingerprint, with the newest message and the times of the first and the last."""
    groups = Groups()
    times = [30, 10, 20]
    passed = list(groups.counting(letter(o, now_ms=t, message=f"bad {t}") for o, t in enumerate(times)))
    assert len(passed) == groups.total == 3
    (group,) = groups.largest(5)
    assert (group.count, group.first, group.last, group.message) == (3, 10, 30, "bad 30")


def test_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of kinds, dead letters of further kinds are counted together: none is left out."""
    monkeypatch.setattr(listing, "_MOST_GROUPS", 2)
    groups = Groups()
    list(groups.counting(letter(o, message=word) for o, word in enumerate(["a", "b", "c", "a", "d"])))
    assert (groups.total, groups.others, sum(g.count for g in groups.largest(9))) == (5, 2, 3)


def test_repeats_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeat is recognised among the ids that are remembered, and only so many are."""
    monkeypatch.setattr(reader, "_REMEMBERED_IDS", 2)
    offsets = [1, 1, 2, 1, 3, 3, 1]
    assert [found.offset for found in distinct(map(letter, offsets))] == [1, 2, 3, 1]


def test_nothing_is_read_ahead() -> None:
    """Listing takes dead letters one at a time: the first is shown before the second is read."""

    def endless() -> Iterator[DeadLetter]:
        yield from (letter(o) for o in range(10))
        raise AssertionError("read ahead")

    stream = filter(Wanted().takes, Groups().counting(distinct(endless())))
    assert [found.offset for found in islice(stream, 10)] == list(range(10))


def test_table_rows_hold_no_payload() -> None:
    """What waits to be drawn in a table holds neither value nor key nor headers nor stack."""
    (slim,) = without_payload([letter(1)])
    assert (slim.envelope.value, slim.envelope.key, slim.envelope.headers, slim.envelope.stack) == (
        None,
        None,
        (),
        None,
    )
    assert slim.envelope.id == "flights-1-1"


@settings(deadline=None)
@given(text=st.text())
def test_terminal_is_safe(text: str) -> None:
    """Whatever a payload holds, no control character and no change of reading direction reaches the terminal."""
    shown = one_line(text, 80)
    assert len(shown) <= 80
    for forbidden in "\x00\x07\x08\x1b\r\n\t\x7f\x9b\u202e\u2066\u2028":
        assert forbidden not in shown
        assert forbidden in "\n\t\u2028" or forbidden not in printable(text)


def test_readable_values() -> None:
    """JSON is indented, text is text, bytes are escapes, null is marked; hostile nesting is no error."""
    assert readable(b'{"a":[1]}') == '{\n  "a": [\n    1\n  ]\n}'
    assert readable("grün".encode()) == "grün"
    assert readable(b"\xff\x1b[0m") == "\\xff\\x1b[0m"
    assert readable(None) == "∅"
    assert readable(b"[" * 100_000).startswith("[[[")


@pytest.mark.parametrize(("ms", "shown"), [(0, "1970-01-01T00:00:00.000Z"), (-1, None), (2**62, None)])
def test_moments(ms: int, shown: str | None) -> None:
    """A time that Kafka does not know, or no calendar has, is shown as none."""
    assert moment(ms) == shown


@settings(deadline=None)
@given(value=st.none() | st.binary(max_size=50))
def test_documents_are_json(value: bytes | None) -> None:
    """Both documents are JSON, whatever bytes the record had."""
    found = letter(1)._replace(envelope=envelope(1, value=value, headers=(("a", value),)))
    assert json.loads(json.dumps(document(found))) == document(found)
    assert json.loads(json.dumps(full_document(found)))["headers"][0]["name"] == "a"
