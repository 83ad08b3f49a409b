"""Dead letters are shown safely."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlq.document import full_document, moment, one_line, printable, readable
from dlq.reader import DeadLetter
from tests.unit.dlq.dead_letters import NOW_MS, envelope


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
    """The document is JSON, whatever bytes the record had."""
    found = DeadLetter(envelope(1, value=value, headers=(("a", value),)), "dlq", 0, 1, NOW_MS)
    assert json.loads(json.dumps(full_document(found)))["headers"][0]["name"] == "a"
