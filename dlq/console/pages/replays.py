"""Preview and mend, replay; jobs, and one job."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Path, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BeforeValidator, Field, field_validator

from dlq.console import queries as q
from dlq.console.answers import error_document
from dlq.console.desk import TheDesk, Who
from dlq.console.gate import GuardedRoute
from dlq.console.render import page
from dlq.console.rights import Right, needs
from dlq.index.tables import OPEN
from dlq.replay.names import OUTCOMES
from dlq.replay.request import MAX_FAILURES
from dlq.replay.targets import allowed
from tidegate.errors import TidegateError

router = APIRouter(route_class=GuardedRoute, include_in_schema=False)
JobPath = Annotated[q.JobId, Path()]
_AT_WORK = ("running", "cancelling")
_MOST_LINES = 100  # of assignments
_REFRESH = 2  # seconds, of a page that shows a job at work


class ReplayForm(q.Filter):
    """The filter and the request of a form. `set`: assignments, one a line."""

    csrf: str = ""
    to: q.Text = ""
    set: q.Text = ""
    canary: str = ""
    rate: Annotated[int | None, BeforeValidator(lambda given: given or None)] = Field(default=None, ge=1, le=1_000_000)
    max_failures: float = Field(default=MAX_FAILURES, ge=0, le=1)

    @field_validator("set")
    @classmethod
    def _not_endless(cls, given: str) -> str:
        if len(given.splitlines()) > _MOST_LINES:
            raise ValueError(f"at most {_MOST_LINES} lines")
        return given

    def body(self) -> q.ReplayBody:
        """As the API takes it."""
        given: dict[str, Any] = {name: getattr(self, name) for name in q.Filter.model_fields}
        return q.ReplayBody(
            filter=q.Filter(**given), to=self.to or None, set=self.set.splitlines(), canary=bool(self.canary),
            rate=self.rate, max_failures=self.max_failures,
        )  # fmt: skip


class _ReplayPage(q.Filter):
    set: q.Text = ""
    to: q.Text = ""


@router.get("/replay")
@needs(Right.ACT)
def replay(request: Request, desk: TheDesk, query: Annotated[_ReplayPage, Query()]) -> Response:
    """Which letters, mended how, to where: the form."""
    form = ReplayForm(**query.model_dump(), canary="yes")
    return _form(request, desk, form)


@router.post("/replay/preview")
@needs(Right.ACT)
def preview(request: Request, desk: TheDesk, form: Annotated[ReplayForm, Form()]) -> Response:
    """The form, and what it would come to."""
    try:
        found = desk.index.preview(form.body().request(desk.index.clock)).document()
    except TidegateError as error:
        return _form(request, desk, form, status=400, error=error_document(error))
    return _form(request, desk, form, preview=found)


@router.post("/replay")
@needs(Right.ACT)
def start(request: Request, desk: TheDesk, who: Who, form: Annotated[ReplayForm, Form()]) -> Response:
    """Make the job, and show it."""
    try:
        job = desk.index.replay(form.body().request(desk.index.clock), actor=who.name)
    except TidegateError as error:
        return _form(request, desk, form, status=400, error=error_document(error))
    return RedirectResponse(f"/jobs/{job.id}", 303)


@router.get("/jobs")
@needs(Right.VIEW)
def jobs(request: Request, desk: TheDesk, query: Annotated[q.JobsQuery, Query()]) -> Response:
    """Replays, the newest first."""
    found = desk.jobs(query)
    at_work = any(job["state"] in _AT_WORK for job in found["jobs"])
    params = [("state", state) for state in query.states()]
    return page(
        request, "jobs.html", title="Jobs", found=found, query=query, params=params, refresh=_REFRESH if at_work else 0
    )


@router.get("/jobs/{job}")
@needs(Right.VIEW)
def job(request: Request, desk: TheDesk, job: JobPath, query: Annotated[q.ResultsQuery, Query()]) -> Response:
    """One replay, live, and what became of each letter."""
    found = desk.job(job)
    params = [("outcome", query.outcome)] if query.outcome else []
    at_work = found["state"] in _AT_WORK or found["followed"] > 0
    return page(
        request, "job.html", title=f"Job {job}", found=found, results=desk.results(job, query), query=query,
        params=params, outcomes=OUTCOMES, refresh=_REFRESH if at_work else 0,
    )  # fmt: skip


@router.post("/jobs/{job}/{act}")
@needs(Right.ACT)
def turn(desk: TheDesk, who: Who, job: JobPath, act: Literal["pause", "resume", "cancel"]) -> Response:
    """Send no more for now, go on, or give up what has not been sent."""
    desk.require_job(job)
    jobs = desk.index.jobs
    {"pause": jobs.pause, "resume": jobs.resume, "cancel": jobs.cancel}[act](job, actor=who.name)
    return RedirectResponse(f"/jobs/{job}", 303)


def _form(
    request: Request,
    desk: TheDesk,
    form: ReplayForm,
    *,
    status: int = 200,
    preview: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
) -> Response:
    pipeline = desk.index.pipeline
    columns = [column.name for column in pipeline.schema_]
    open_ = desk.count(form.letters(desk.index.clock), OPEN)
    return page(
        request, "replay.html", status=status, title="Preview and replay", form=form, params=form.params(), open=open_,
        preview=preview, error=error, targets=list(allowed(pipeline)), columns=columns,
    )  # fmt: skip
