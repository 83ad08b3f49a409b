"""The pipeline: its plan with its live counters."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from dlq.console.gate import GuardedRoute
from dlq.console.live import TheLive
from dlq.console.render import page
from dlq.console.rights import Right, needs

router = APIRouter(route_class=GuardedRoute, include_in_schema=False)
_REFRESH = 5  # seconds


@router.get("/pipeline")
@needs(Right.VIEW)
def pipeline(request: Request, live: TheLive) -> Response:
    """What each stage does, how far each partition is, and who works on it. It needs no index."""
    found = live.document()
    rows = found["partitions"]
    known = {name: [row[name] for row in rows if row[name] is not None] for name in ("lag", "lateMissing")}
    totals = {
        "lag": sum(known["lag"]) if known["lag"] else None,
        "watermark": min((row["watermark"] for row in rows if row["watermark"] and not row["note"]), default=None),
        "lateMissing": sum(known["lateMissing"]) if known["lateMissing"] else None,
    }
    return page(
        request, "pipeline.html", title="Pipeline", found=found, totals=totals, refresh=0 if found["missing"] else _REFRESH
    )  # fmt: skip
