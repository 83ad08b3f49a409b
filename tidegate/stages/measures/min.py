"""min: the smallest value that is not null."""

from __future__ import annotations

from tidegate.stages.measures.extremes import Extreme


class Min(Extreme):
    kind = "min"
