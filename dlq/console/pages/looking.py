"""Overview, groups, one group, search, audit."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from dlq.console import queries as q
from dlq.console.desk import PERIODS, TheDesk
from dlq.console.gate import GuardedRoute
from dlq.console.live import TheLive
from dlq.console.render import page
from dlq.console.rights import Right, needs
from dlq.index.filters import STATES
from tidegate.record import Stage

router = APIRouter(route_class=GuardedRoute, include_in_schema=False)


class _GroupPage(q.GroupQuery):
    period: q.Period = "24h"


class _GroupsPage(q.GroupsQuery):
    period: q.Period = "24h"


@router.get("/")
@needs(Right.VIEW)
def overview(request: Request, desk: TheDesk, live: TheLive, period: q.Period = "24h") -> Response:
    """Where things stand."""
    found = desk.overview(period)
    return page(
        request, "overview.html", title="Overview", found=found, workers=live.workers(),
        runs=not live.pipeline.missing_to_run, period=period, periods=list(PERIODS),
    )  # fmt: skip


@router.get("/groups")
@needs(Right.VIEW)
def groups(request: Request, desk: TheDesk, query: Annotated[_GroupsPage, Query()]) -> Response:
    """Failures by their kind."""
    found = desk.groups(query, query.period)
    return page(
        request, "groups.html", title="Groups", found=found, query=query, params=query.params(),
        stages=[str(stage) for stage in Stage], topics=sorted(desk.index.reader.topics()),
    )  # fmt: skip


@router.get("/group")
@needs(Right.VIEW)
def group(request: Request, desk: TheDesk, query: Annotated[_GroupPage, Query()]) -> Response:
    """One kind of failure, and what can be done about it."""
    found = desk.group(query.group)
    newest = desk.letters(q.LettersQuery(group=[query.group], limit=10))
    expiring = [entry for entry in desk.index.expiring() if entry["fingerprint"] == query.group]
    return page(
        request, "group.html", title=f"{found['errorType']} · {query.group}", found=found, newest=newest,
        rates=desk.bars(query.period, query.group), period=query.period, periods=list(PERIODS), expiring=expiring,
        params=[("group", query.group)],
    )  # fmt: skip


@router.get("/search")
@needs(Right.VIEW)
def search(request: Request, desk: TheDesk, query: Annotated[q.LettersQuery, Query()]) -> Response:
    """Dead letters, found."""
    return page(
        request, "search.html", title="Search", found=desk.letters(query), query=query, params=query.params(),
        states=STATES, stages=[str(stage) for stage in Stage], topics=sorted(desk.index.reader.topics()),
    )  # fmt: skip


@router.get("/audit")
@needs(Right.AUDIT)
def audit(request: Request, desk: TheDesk, query: Annotated[q.AuditQuery, Query()]) -> Response:
    """Who did what."""
    found = desk.audit(query)
    return page(request, "audit.html", title="Audit", found=found, query=query, params=query.params())
