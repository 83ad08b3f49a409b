"""POST /api/…: what is done. Every act is the service's own, and in the history with the name of who did it."""

from __future__ import annotations

from fastapi import APIRouter

from dlq.console import queries as q
from dlq.console.answers import Json
from dlq.console.api import shapes
from dlq.console.api.reading import MISSING, PROBLEMS, JobPath, Responses
from dlq.console.desk import NotFound, TheDesk, Who
from dlq.console.editing import Editing
from dlq.console.gate import GuardedRoute
from dlq.console.rights import Right, needs
from dlq.document import full_document
from dlq.export import job_document
from dlq.replay.jobs import Job

_MORE: Responses = {status: {"model": shapes.Problem} for status in (411, 413)}
router = APIRouter(route_class=GuardedRoute, prefix="/api", responses=PROBLEMS | _MORE)


@router.post("/groups/acknowledge", response_model=shapes.GroupDetail, responses=MISSING)
@needs(Right.ACT)
def acknowledge(desk: TheDesk, who: Who, body: q.GroupNote) -> Json:
    """Say that somebody is looking at a group."""
    desk.require_group(body.group)
    desk.index.lifecycle.acknowledge(body.group, actor=who.name, note=body.note)
    return Json(desk.group(body.group))


@router.post("/groups/resolve", response_model=shapes.Done, responses=MISSING)
@needs(Right.ACT)
def resolve(desk: TheDesk, who: Who, body: q.GroupNote) -> Json:
    """Close a group and its open letters by hand. It opens again by itself when it fails again."""
    desk.require_group(body.group)
    return Json({"letters": desk.index.lifecycle.resolve(body.group, actor=who.name, note=body.note)})


@router.post("/letters/park", response_model=shapes.Done)
@needs(Right.ACT)
def park(desk: TheDesk, who: Who, body: q.LettersNote) -> Json:
    """Set open letters aside: they are not replayed."""
    wanted = body.filter.letters(desk.index.clock)
    return Json({"letters": desk.index.lifecycle.park(wanted, actor=who.name, note=body.note)})


@router.post("/letters/unpark", response_model=shapes.Done)
@needs(Right.ACT)
def unpark(desk: TheDesk, who: Who, body: q.LettersNote) -> Json:
    """Open parked letters again; their replays count anew."""
    wanted = body.filter.letters(desk.index.clock)
    return Json({"letters": desk.index.lifecycle.unpark(wanted, actor=who.name, note=body.note)})


@router.post("/letters/reveal", response_model=shapes.Revealed, responses=MISSING)
@needs(Right.REVEAL)
def reveal(desk: TheDesk, who: Who, body: q.Reveal) -> Json:
    """The raw record of one letter, from its topic. Who asked, and why, stands in the audit log before it is read."""
    found = desk.index.reveal(desk.row(body), actor=who.name, reason=body.reason)
    if found is None:
        raise NotFound(
            "its record is not in the topic any more", field="id", value=body.id, hint="retention deleted it"
        )
    document = full_document(found)
    names = ("id", "key", "keyEncoding", "value", "valueEncoding", "headers")
    return Json({name: document[name] for name in names})


@router.post("/letters/edit/preview", response_model=shapes.Preview, responses=MISSING)
@needs(Right.ACT)
def preview_edit(desk: TheDesk, body: q.EditBody) -> Json:
    """What the pipeline would say of one letter with this value and key, and what is changed. Nothing is sent."""
    return Json(Editing(desk, q.LetterQuery(id=body.id, topic=body.topic)).preview(body).document())


@router.post("/letters/edit", response_model=shapes.Job, status_code=201, responses=MISSING)
@needs(Right.ACT)
def edit(desk: TheDesk, who: Who, body: q.EditBody) -> Json:
    """Send one letter with this value and key, if it passes the pipeline's rules as they are now."""
    return _job(desk, Editing(desk, q.LetterQuery(id=body.id, topic=body.topic)).send(body, who), 201)


@router.post("/preview", response_model=shapes.Preview)
@needs(Right.ACT)
def preview(desk: TheDesk, body: q.ReplayBody) -> Json:
    """What a replay would do: how many letters, to where, how many would pass now, what mending changes. Nothing is sent."""
    return Json(desk.index.preview(body.request(desk.index.clock)).document())


@router.post("/jobs", response_model=shapes.Job, status_code=201)
@needs(Right.ACT)
def replay(desk: TheDesk, who: Who, body: q.ReplayBody) -> Json:
    """Make a replay job of all open letters that the filter takes. An agent carries it out."""
    job = desk.index.replay(body.request(desk.index.clock), actor=who.name)
    return Json(job_document(job, {}), 201)


@router.post("/jobs/{job}/pause", response_model=shapes.Job, responses=MISSING)
@needs(Right.ACT)
def pause(desk: TheDesk, who: Who, job: JobPath) -> Json:
    """Send no more for now. What was sent is still followed."""
    desk.require_job(job)
    return _job(desk, desk.index.jobs.pause(job, actor=who.name))


@router.post("/jobs/{job}/resume", response_model=shapes.Job, responses=MISSING)
@needs(Right.ACT)
def resume(desk: TheDesk, who: Who, job: JobPath) -> Json:
    """Go on, also with a job that has stopped because too much failed: then whatever fails."""
    desk.require_job(job)
    return _job(desk, desk.index.jobs.resume(job, actor=who.name))


@router.post("/jobs/{job}/cancel", response_model=shapes.Job, responses=MISSING)
@needs(Right.ACT)
def cancel(desk: TheDesk, who: Who, job: JobPath) -> Json:
    """Give up what has not been sent yet; those letters stay open."""
    desk.require_job(job)
    return _job(desk, desk.index.jobs.cancel(job, actor=who.name))


def _job(desk: TheDesk, job: Job, status: int = 200) -> Json:
    return Json(job_document(job, desk.index.jobs.outcomes(job.id)), status)
