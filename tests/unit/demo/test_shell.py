"""Commands as the demo shows them."""

from __future__ import annotations

import shlex

import pytest

from tidegate.demo.shell import typed


@pytest.mark.parametrize(
    "words",
    [
        ("tidegate", "dlq", "groups", "flights.yaml"),
        ("tidegate", "--set", "value.tailnum = 'N1TBA'"),
        ("tidegate", "--set", "value.tailnum = 'a $b \"c\"'"),
        ("tidegate", "--note", "two words", ""),
    ],
)
def test_what_is_shown_can_be_typed(words: tuple[str, ...]) -> None:
    """A shell reads the same words from it."""
    shown = typed(*words).plain
    assert shown.startswith("$ ")
    assert tuple(shlex.split(shown.removeprefix("$ "))) == words


def test_sql_is_shown_in_double_quotes() -> None:
    """Since it has single ones."""
    assert typed("--set", "value.tailnum = 'N1TBA'").plain == """$ --set "value.tailnum = 'N1TBA'\""""
