"""Payloads for people."""

from __future__ import annotations

from dlq.console import payload


def test_json_is_indented_and_coloured() -> None:
    """Keys, strings, numbers and words each in their colour; whatever they hold is text."""
    shown = payload.pretty({"a<b": "<i>\"'&", "n": -1.5e3, "w": [None, True]}).text
    assert '<span class="json-key">&#34;a&lt;b&#34;</span>:' in shown
    assert '<span class="json-string">&#34;&lt;i&gt;\\&#34;&#39;&amp;&#34;</span>' in shown
    assert '<span class="json-number">-1500.0</span>' in shown
    assert shown.count("json-word") == 2
    assert shown.striptags().count("\n") == 0 or "<i>" not in shown


def test_what_is_cut_is_still_escaped_and_said() -> None:
    """In the middle of a string, too, where the rest looks like anything but a string."""
    for text in ("<b>" * 100_000, *("x" * pad + '"<b>' * 100_000 for pad in range(5))):
        shown = payload.pretty({"a": text, "b": text})
        assert shown.cut.startswith("the first 200000 of ")
        assert "<b>" not in shown.text
        assert len(shown.text) < 3_000_000
    assert payload.raw("x" * 200_001).cut == "the first 200000 of 200001 characters"


def test_bytes_are_shown_as_what_they_are() -> None:
    """JSON indented, text as text, anything else as escapes; null is said."""
    assert "\n" in payload.pretty_bytes(b'{"a":1}').text
    assert payload.pretty_bytes(b"no <json>").text == "no &lt;json&gt;"
    assert payload.pretty_bytes(b"\xff\x1b").text == "\\xff\\x1b"
    assert payload.pretty_bytes(None) == ("∅", "null: there is no value")
    deep = b"[" * 5_000 + b"]" * 5_000
    assert payload.pretty_bytes(deep).text == deep.decode()


def test_what_is_too_deep_is_said() -> None:
    """Deeper than can be written: no error, and no endless page."""
    value: list[object] = []
    for _ in range(20_000):
        value = [value]
    assert payload.pretty(value).text == "(nested too deeply to be shown)"


def test_hex_has_offsets_and_ascii() -> None:
    """Sixteen bytes a line, as `hexdump -C` writes them; 16 KiB at most."""
    lines = payload.hexadecimal(b"GET <\x00\xff" + b"a" * 12).text.splitlines()
    assert lines[0] == "00000000  47 45 54 20 3c 00 ff 61  61 61 61 61 61 61 61 61  GET &lt;··aaaaaaaaa"
    assert lines[1].startswith("00000010  61 61 61")
    assert payload.hexadecimal(bytes(20_000)).cut == "the first 16384 of 20000 bytes"
