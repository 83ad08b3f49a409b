"""From a record to the tools that show its trace and its source."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from dlq.console.links import origin_link, trace_link
from tests.console_scene import NOW, Scene, dead, scene
from tidegate.config.console import ConsoleLinks

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LINKS = {
    "trace": "https://tempo.example.org/{traceId}?span={spanId}",
    "origin": "https://ui.example.org/{topic}/{partition}/{offset}",
}


def page(console: Scene) -> str:
    console.prepare().write(dead(0, at=NOW, headers=[("traceparent", TRACE.encode())]))
    text: str = console.browser().get("/record", id=console.written[0].envelope.id).text
    return text


def test_a_record_leads_to_its_trace_and_to_its_source(tmp_path: Path) -> None:
    """Both are links when the file says where."""
    with scene(tmp_path, console={"links": LINKS}) as console:
        text = page(console)
    assert "https://tempo.example.org/4bf92f3577b34da6a3ce929d0e0e4736?span=00f067aa0ba902b7" in text
    assert 'href="https://ui.example.org/flights/' in text


def test_without_addresses_both_are_text(tmp_path: Path) -> None:
    """Nobody is sent to a tool that is not there."""
    with scene(tmp_path) as console:
        text = page(console)
    assert TRACE in text
    assert "example.org" not in text


@pytest.mark.parametrize("trace", [None, "", "javascript:alert(1)", TRACE + "/../x", TRACE.upper()])
def test_what_is_no_trace_leads_nowhere(trace: str | None) -> None:
    """The header is whatever somebody wrote."""
    assert trace_link(ConsoleLinks(**LINKS), trace) is None


def test_names_of_topics_are_escaped() -> None:
    """They may have come from a foreign header."""
    assert origin_link(ConsoleLinks(**LINKS), "a/b?c#d", 1, 2) == "https://ui.example.org/a%2Fb%3Fc%23d/1/2"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("javascript:alert({traceId})", "not an address"),
        ("https://x.example.org/{trace}", "there is no {trace} to put in"),
        ("https://x.example.org/", "the same page"),
        ("https://x.example.org/{traceId", "not a template"),
    ],
)
def test_a_template_that_cannot_be_is_refused(template: str, said: str) -> None:
    """With what may stand in braces."""
    with pytest.raises(ValidationError, match=said):
        ConsoleLinks(trace=template)
