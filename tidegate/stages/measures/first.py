"""first: the value with the smallest event time, then the smallest offset."""

from __future__ import annotations

from tidegate.stages.measures.ends import End


class First(End):
    kind = "first"
    chooser = "min"
