"""Strategies: logs of one partition with everything that can be wrong with a record, and pipelines to read them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tests.reference import Record, as_replay

# Around the epoch, so that event times are on both sides of it; kept small, so that windows fill and records collide.
_TIMES = st.integers(-3_000, 9_000)

_FIELDS = {
    "id": st.sampled_from(["a", "b", "c", "d", "e", None]),
    "user": st.sampled_from(["ann", "bob", "zoë", None]),
    "amount": st.one_of(st.integers(-5, 120), st.just(2**31 - 1), st.none()),
    "total": st.one_of(st.integers(-(2**63), 2**63 - 1), st.none()),
    "price": st.one_of(st.sampled_from([0.5, -1.25, 1e9, 3]), st.none()),
    "at": st.one_of(_TIMES, _TIMES, _TIMES, _TIMES, st.none()),
}
_BROKEN = st.sampled_from(
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b'{"amount": "12"}',
        b'{"at": 1500.5}',
        b'{"at": -0.25}',
        b'{"amount": 3000000000}',
        None,
    ]
)
_JOBS = st.sampled_from(
    ["0123456789abcdef", "0123456789ABCDEF", "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "bbbb", "no hex digits!!!"]
)
_PLACES = st.sampled_from(["flights/0", "flights/0", "flights/0", "flights/0", "flights/1", "flights", "flights/00"])
_MORE = st.sampled_from(["", "", "", "tidegate.replay.of", "tidegate.replay.job", "tidegate.replay.to", "traceparent"])

PIPELINE: dict[str, Any] = {
    "pipelineId": "model",
    "source": {"topics": ["flights"]},
    "schema": [
        {"name": "id", "type": "string"},
        {"name": "user", "type": "string"},
        {"name": "amount", "type": "int"},
        {"name": "total", "type": "bigint"},
        {"name": "price", "type": "double"},
        {"name": "at", "type": "timestamp", "unit": "ms"},
    ],
    "eventTime": {
        "column": "at",
        "delay": "700 ms",
        "allowedLateness": "300 ms",
        "maxFutureSkew": "2 seconds",
        "retention": "2 seconds",
    },
    "rules": [
        {"type": "range", "column": "amount", "min": 0, "max": 2**31 - 1},
        {"type": "regex", "column": "id", "pattern": "[a-d]"},
    ],
    "dedupe": {"key": "id", "horizon": "1500 ms"},
    "aggregations": [
        {
            "name": "by_user",
            "window": {"size": "1 second"},
            "groupBy": ["user"],
            "measures": {
                "n": "count",
                "priced": {"type": "count", "of": "price"},
                "sum_total": {"type": "sum", "of": "total"},
                "sum_price": {"type": "sum", "of": "price"},
                "mean": {"type": "avg", "of": "amount"},
                "low": {"type": "min", "of": "user"},
                "high": {"type": "max", "of": "price"},
                "ids": {"type": "approxDistinct", "of": "id"},
                "opening": {"type": "first", "of": "amount"},
                "closing": {"type": "last", "of": "amount"},
            },
        },
        {
            "name": "hopping",
            "window": {"type": "hopping", "size": "2500 ms", "hop": "700 ms"},
            "measures": {"n": "count", "sum_amount": {"type": "sum", "of": "amount"}},
        },
    ],
}


def _without(*parts: str) -> str:
    return json.dumps({name: part for name, part in PIPELINE.items() if name not in parts})


PIPELINES = (json.dumps(PIPELINE), _without("dedupe"), _without("dedupe", "rules", "aggregations"))


@st.composite
def _sent(draw: st.DrawFn, record: Record, before: list[Record]) -> Record:
    """A replay of some job; often one that was sent before, or a record that was made of it and has all its headers."""
    earlier = [one for one in before if any(name == "tidegate.replay.to" for name, _ in one.headers)]
    if earlier and draw(st.booleans()):
        again = draw(st.sampled_from(earlier))
        return record._replace(headers=again.headers, value=again.value if draw(st.booleans()) else record.value)
    position = draw(st.one_of(st.integers(1, 9), st.sampled_from(["", "x", "-1", "²", "1" * 19])))
    sent = as_replay(record, draw(_JOBS), position, draw(_PLACES))
    more = draw(_MORE)
    return sent._replace(headers=(*sent.headers, (more, b"1"))) if more else sent


@st.composite
def logs(draw: st.DrawFn, max_size: int = 40) -> list[Record]:
    """Records with rising offsets, some with gaps between them."""
    records, offset = [], draw(st.integers(0, 3))
    for _ in range(draw(st.integers(0, max_size))):
        kind = draw(st.integers(0, 19))
        if kind == 0:  # noqa: SIM108  a ternary would be longer than a line
            value = draw(_BROKEN)
        else:
            value = json.dumps({name: draw(values) for name, values in _FIELDS.items()}).encode()
        record = Record(offset, draw(st.integers(0, 8_000)), value)
        if kind == 1:
            record = record._replace(headers=(("tidegate.retry.of", b"flights-0-2"),))
        elif kind == 2:
            record = as_replay(record)
        elif kind in (3, 4, 5):
            record = draw(_sent(record, records))
        records.append(record)
        offset += draw(st.sampled_from([1, 1, 1, 1, 2, 7]))
    return records
