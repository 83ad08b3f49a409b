"""Bars of a chart, as numbers that a template draws as SVG: no script, and no style of its own."""

from __future__ import annotations

from typing import Any, NamedTuple


class Bar(NamedTuple):
    """In the chart's own units: `width` × `height`, from the top left."""

    x: float
    y: float
    width: float
    height: float
    letters: int
    at: str


class Chart(NamedTuple):
    bars: list[Bar]
    width: int
    height: int
    most: int
    total: int


def chart(rates: list[dict[str, Any]], *, width: int, height: int, gap: float = 1.0) -> Chart:
    """`rates`: what `Desk.bars` gives. A bar with a letter is at least one unit high: it must be seen."""
    most = max((rate["letters"] for rate in rates), default=0)
    step = width / max(1, len(rates))
    bars = []
    for number, rate in enumerate(rates):
        if rate["letters"]:
            high = max(1.5, rate["letters"] / most * height)
            bars.append(
                Bar(round(number * step, 2), round(height - high, 2), round(step - gap, 2), round(high, 2),
                    rate["letters"], rate["at"])
            )  # fmt: skip
    return Chart(bars, width, height, most, sum(rate["letters"] for rate in rates))
