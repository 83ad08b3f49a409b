"""GET /api/…: what there is."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from dlq.console import queries as q
from dlq.console.answers import Json
from dlq.console.api import live_shapes, shapes
from dlq.console.desk import TheDesk, Who
from dlq.console.editing import Editing
from dlq.console.gate import GuardedRoute
from dlq.console.live import TheLive
from dlq.console.rights import Right, needs

Responses = dict[int | str, dict[str, Any]]
PROBLEMS: Responses = {status: {"model": shapes.Problem} for status in (400, 401, 403, 421, 422, 429, 503)}
MISSING: Responses = {404: {"model": shapes.Problem}}

router = APIRouter(route_class=GuardedRoute, prefix="/api", responses=PROBLEMS)
JobPath = Annotated[q.JobId, Path()]


@router.get("/me", response_model=shapes.Me)
@needs(Right.VIEW)
def me(who: Who) -> Json:
    """Who you are, and your role."""
    return Json({"name": who.name, "role": who.role})


@router.get("/overview", response_model=live_shapes.Overview)
@needs(Right.VIEW)
def overview(desk: TheDesk, live: TheLive, period: q.Period = "24h") -> Json:
    """Totals, rates, the groups with most open letters, what expires, whether an agent and workers are at work."""
    return Json({**desk.overview(period), "workers": live.workers()})


@router.get("/pipeline", response_model=live_shapes.PipelineLive)
@needs(Right.VIEW)
def pipeline(live: TheLive) -> Json:
    """What each stage does, how far each partition is, and who works on it. What is away is said in `problems`."""
    return Json(live.document())


@router.get("/groups", response_model=shapes.GroupPage)
@needs(Right.VIEW)
def groups(desk: TheDesk, query: Annotated[q.GroupsQuery, Query()]) -> Json:
    """Failures by their kind, a page of them, with their rates of the last 24 hours."""
    return Json(desk.groups(query))


@router.get("/group", response_model=shapes.GroupDetail, responses=MISSING)
@needs(Right.VIEW)
def group(desk: TheDesk, query: Annotated[q.GroupQuery, Query()]) -> Json:
    """One kind of failure, with its newest letter and its history."""
    return Json(desk.group(query.group))


@router.get("/letters", response_model=shapes.LetterPage)
@needs(Right.VIEW)
def letters(desk: TheDesk, query: Annotated[q.LettersQuery, Query()]) -> Json:
    """Dead letters, newest first, a page of them, and how many there are."""
    return Json(desk.letters(query))


@router.get("/letter", response_model=shapes.LetterDetail, responses=MISSING)
@needs(Right.VIEW)
def letter(desk: TheDesk, query: Annotated[q.LetterQuery, Query()]) -> Json:
    """Everything about one dead letter, masked."""
    return Json(desk.letter(query))


@router.get("/letter/editable", response_model=shapes.Editable, responses=MISSING)
@needs(Right.ACT)
def editable(desk: TheDesk, query: Annotated[q.LetterQuery, Query()]) -> Json:
    """An open letter's key and value from its topic, masked, to be edited; and what the schema says."""
    return Json(Editing(desk, query).document())


@router.get("/jobs", response_model=shapes.JobPage, responses=MISSING)
@needs(Right.VIEW)
def jobs(desk: TheDesk, query: Annotated[q.JobsQuery, Query()]) -> Json:
    """Replay jobs, newest first, a page of them."""
    return Json(desk.jobs(query))


@router.get("/jobs/{job}", response_model=shapes.JobDetail, responses=MISSING)
@needs(Right.VIEW)
def job(desk: TheDesk, job: JobPath) -> Json:
    """One replay job, with its history."""
    return Json(desk.job(job))


@router.get("/jobs/{job}/letters", response_model=shapes.ResultPage, responses=MISSING)
@needs(Right.VIEW)
def results(desk: TheDesk, job: JobPath, query: Annotated[q.ResultsQuery, Query()]) -> Json:
    """What became of each letter of a job, a page of them."""
    return Json(desk.results(job, query))


@router.get("/audit", response_model=shapes.EntryPage)
@needs(Right.AUDIT)
def audit(desk: TheDesk, query: Annotated[q.AuditQuery, Query()]) -> Json:
    """Who did what to which groups and letters, newest first, a page of it."""
    return Json(desk.audit(query))
