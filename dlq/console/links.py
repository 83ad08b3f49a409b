"""Addresses of other tools that show the record's trace and the record in its topic."""

from __future__ import annotations

import re
from urllib.parse import quote

from tidegate.config.console import ConsoleLinks

# W3C Trace Context, level 1, §3.2: version, trace id, parent's span id, flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}")


def trace_link(links: ConsoleLinks, traceparent: str | None) -> str | None:
    """None without a template, or when the record has no trace (what stands in the header is anybody's)."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    return links.trace.format(traceId=found["trace"], spanId=found["span"]) if links.trace and found else None


def origin_link(links: ConsoleLinks, topic: str, partition: int, offset: int) -> str | None:
    """None without a template."""
    if links.origin is None:
        return None
    return links.origin.format(topic=quote(topic, safe=""), partition=partition, offset=offset)
