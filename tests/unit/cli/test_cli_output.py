"""What commands print."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tidegate.cli.output import print_json, show, table

ROWS = [{"topic": "orders", "lag": 1_234_567, "idle": True, "note": None}, {"topic": "[red]", "lag": 5}]


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints one JSON document with all fields, and dates as text."""
    show(ROWS, ["topic"], as_json=True)
    assert json.loads(capsys.readouterr().out) == ROWS
    print_json({"at": datetime(2013, 1, 1, tzinfo=UTC)})
    assert json.loads(capsys.readouterr().out) == {"at": "2013-01-01 00:00:00+00:00"}


def test_table_shows_the_columns_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """People get the chosen columns with headings, grouped digits and dashes; text is not markup."""
    show(ROWS, {"topic": "Topic", "lag": "Lag", "note": "Note"}, as_json=False, title="Partitions")
    shown = capsys.readouterr().out
    for text in ("Partitions", "Topic", "1 234 567", "–", "[red]"):
        assert text in shown
    assert "idle" not in shown


def test_numbers_are_right_aligned() -> None:
    """A column with numbers is right-aligned, one with text left."""
    drawn = table(ROWS, ["topic", "lag"])
    assert [column.justify for column in drawn.columns] == ["left", "right"]
