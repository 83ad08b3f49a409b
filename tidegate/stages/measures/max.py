"""max: the largest value that is not null."""

from __future__ import annotations

from tidegate.stages.measures.extremes import Extreme


class Max(Extreme):
    kind = "max"
