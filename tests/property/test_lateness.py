"""Lateness against its definition, taken word by word over all earlier records."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.cutting import run, stages_of
from tests.reference import Record

pytestmark = pytest.mark.slow

_DELAY, _ALLOWED, _SIZE, _HOP = 300, 200, 1000, 400
_DOCUMENT = json.dumps(
    {
        "pipelineId": "lateness",
        "source": {"topics": ["flights"]},
        "schema": [{"name": "at", "type": "timestamp", "unit": "ms"}],
        "eventTime": {"column": "at", "delay": f"{_DELAY} ms", "allowedLateness": f"{_ALLOWED} ms"},
        "aggregations": [
            {
                "name": "hops",
                "window": {"type": "hopping", "size": f"{_SIZE} ms", "hop": f"{_HOP} ms"},
                "measures": {"n": "count"},
            }
        ],
    }
)


def late_by_definition(times: list[tuple[int, bool]], index: int) -> set[int]:
    """The starts of the windows for which the record is late: end ≤ watermark − allowedLateness, over all before it."""
    at, replayed = times[index]
    earlier = [time for time, second_way in times[:index] if not second_way]
    if replayed or not earlier:
        return set()
    watermark = max(earlier) - _DELAY
    starts = [n * _HOP for n in range(-60, 60) if n * _HOP <= at < n * _HOP + _SIZE]
    return {start for start in starts if start + _SIZE <= watermark - _ALLOWED}


@given(
    times=st.lists(st.tuples(st.integers(-5_000, 5_000), st.integers(0, 9).map(lambda n: n == 0)), max_size=30),
    cuts=st.lists(st.integers(1, 9), max_size=12),
)
@settings(max_examples=200, deadline=None)
def test_lateness_equals_its_definition(times: list[tuple[int, bool]], cuts: list[int]) -> None:
    """A record is late for exactly the windows that end at or before the watermark less the allowed lateness."""
    replay = (("tidegate.replay.of", b"flights-0-1"),)
    records = [
        Record(offset, 0, json.dumps({"at": at}).encode(), replay if replayed else ())
        for offset, (at, replayed) in enumerate(times)
    ]
    account = run(stages_of(_DOCUMENT)[1], records, cuts)
    found = {late.offset: {start for _, start, _ in late.missed} for late in account.late}
    expected = {index: late_by_definition(times, index) for index in range(len(times))}
    assert found == {index: missed for index, missed in expected.items() if missed}
