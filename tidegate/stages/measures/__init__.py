"""The kinds of measure: one file per kind, one line in this table."""

from __future__ import annotations

from tidegate.stages.measures.approx_distinct import ApproxDistinct
from tidegate.stages.measures.avg import Avg
from tidegate.stages.measures.base import Measure
from tidegate.stages.measures.count import Count
from tidegate.stages.measures.first import First
from tidegate.stages.measures.last import Last
from tidegate.stages.measures.max import Max
from tidegate.stages.measures.min import Min
from tidegate.stages.measures.sum import Sum

MEASURES: dict[str, Measure] = {
    measure.kind: measure for measure in (Count(), Sum(), Avg(), Min(), Max(), ApproxDistinct(), First(), Last())
}

__all__ = ["MEASURES", "Measure"]
