"""Durations: what is read, what is refused, and that the written form reads back."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.config.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("500 ms", 500),
        ("1 second", 1000),
        ("10 minutes", 600_000),
        ("1 hour 30 minutes", 5_400_000),
        ("2h", 7_200_000),
        ("1.5 seconds", 1500),
        ("1.001 s", 1001),
        ("0 s", 0),
        ("1 week", 604_800_000),
        ("PT10M", 600_000),
        ("P1DT2H", 93_600_000),
        ("pt0.5s", 500),
    ],
)
def test_written_forms(text: str, milliseconds: int) -> None:
    """Spark's form and ISO 8601, exactly."""
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    "value", ["", " ", "10", "10 mintes", "-5 s", "s", "P", "PT", "1.0001 ms", True, 1.5, None, [], "٣ s"]
)
def test_refused(value: object) -> None:
    """What is no duration is refused with the forms that are."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


@given(st.integers(min_value=0, max_value=10**15))
def test_written_form_reads_back(milliseconds: int) -> None:
    """Every number of milliseconds has a written form that reads back as itself."""
    assert parse_duration(format_duration(milliseconds)) == milliseconds


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text does anything but give whole milliseconds or raise ValueError."""
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= 0
