"""last: the value with the largest event time, then the largest offset."""

from __future__ import annotations

from tidegate.stages.measures.ends import End


class Last(End):
    kind = "last"
    chooser = "max"
