"""GET /api/export/…: every list, all of what its filter takes, as CSV or as a JSON object per line. Masked; in the audit log."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from dlq.console import queries as q
from dlq.console.api.reading import MISSING, PROBLEMS, JobPath, Responses
from dlq.console.desk import Desk, TheDesk, Who
from dlq.console.gate import GuardedRoute
from dlq.console.rights import Principal, Right, needs
from dlq.document import safe_json
from dlq.export import (
    ENTRY_COLUMNS,
    GROUP_COLUMNS,
    JOB_COLUMNS,
    LETTER_COLUMNS,
    RESULT_COLUMNS,
    entry_document,
    exported,
    group_document,
    job_document,
    write_csv,
)
from dlq.index.filters import LetterFilter
from dlq.index.groups import GroupCursor

_FILES: Responses = {200: {"content": {"text/csv": {}, "application/x-ndjson": {}}, "description": "The file."}}
_CHUNK = 500  # documents in a piece of the answer

router = APIRouter(
    route_class=GuardedRoute,
    prefix="/api/export",
    responses=PROBLEMS | _FILES,
    default_response_class=StreamingResponse,
)


class _Letters(q.Filter):
    format: q.Format = "csv"


class _Groups(q.GroupsFilter):
    format: q.Format = "csv"


class _Jobs(q.JobsFilter):
    format: q.Format = "csv"


class _Results(q.ResultsFilter):
    format: q.Format = "csv"


class _Audit(q.AuditFilter):
    format: q.Format = "csv"


@router.get("/letters", response_model=None)
@needs(Right.VIEW)
def letters(desk: TheDesk, who: Who, query: Annotated[_Letters, Query()]) -> StreamingResponse:
    """All dead letters that the filter takes."""
    found = desk.index.reader.every(query.letters(desk.index.clock))
    return _file(desk, who, "letters", query.params(), query.format, map(exported, found), LETTER_COLUMNS)


@router.get("/groups", response_model=None)
@needs(Right.VIEW)
def groups(desk: TheDesk, who: Who, query: Annotated[_Groups, Query()]) -> StreamingResponse:
    """All groups that the filter takes."""
    return _file(
        desk,
        who,
        "groups",
        query.params(),
        query.format,
        _every_group(desk, query, query.letters(desk.index.clock)),
        GROUP_COLUMNS,
    )


@router.get("/jobs", response_model=None)
@needs(Right.VIEW)
def jobs(desk: TheDesk, who: Who, query: Annotated[_Jobs, Query()]) -> StreamingResponse:
    """All replay jobs."""
    params = [("state", state) for state in query.states()]
    return _file(desk, who, "jobs", params, query.format, _every_job(desk, query), JOB_COLUMNS)


@router.get("/jobs/{job}", response_model=None, responses=MISSING)
@needs(Right.VIEW)
def results(desk: TheDesk, who: Who, job: JobPath, query: Annotated[_Results, Query()]) -> StreamingResponse:
    """What became of all of a job's letters."""
    desk.require_job(job)
    found = desk.every_result(job, query.outcome or None)
    params = [("job", job), *([("outcome", query.outcome)] if query.outcome else [])]
    return _file(desk, who, f"job-{job}", params, query.format, found, RESULT_COLUMNS)


@router.get("/audit", response_model=None)
@needs(Right.AUDIT)
def audit(desk: TheDesk, who: Who, query: Annotated[_Audit, Query()]) -> StreamingResponse:
    """All of the audit log that the filter takes."""
    found = map(entry_document, desk.index.reader.every_entry(query.entries()))
    return _file(desk, who, "audit", query.params(), query.format, found, ENTRY_COLUMNS)


def _file(
    desk: Desk,
    who: Principal,
    name: str,
    params: list[tuple[str, str]],
    format: q.Format,
    documents: Iterable[dict[str, Any]],
    columns: Sequence[str],
) -> StreamingResponse:
    desk.index.lifecycle.note(who.name, "export", note=name, detail={"filter": params, "format": format})
    kind, ending = ("text/csv", "csv") if format == "csv" else ("application/x-ndjson", "jsonl")
    return StreamingResponse(
        _pieces(documents, columns if format == "csv" else None),
        media_type=f"{kind}; charset=utf-8",
        headers={"content-disposition": f'attachment; filename="{desk.index.pipeline.pipeline_id}-{name}.{ending}"'},
    )


def _pieces(documents: Iterable[dict[str, Any]], columns: Sequence[str] | None) -> Iterator[str]:
    """`columns` None: JSON."""
    chunk: list[dict[str, Any]] = []
    first = True
    for document in documents:
        chunk.append(document)
        if len(chunk) == _CHUNK:
            yield _written(chunk, columns, heading=first)
            chunk, first = [], False
    if chunk or first:
        yield _written(chunk, columns, heading=first)


def _written(chunk: list[dict[str, Any]], columns: Sequence[str] | None, *, heading: bool) -> str:
    if columns is None:
        return "".join(safe_json(document) + "\n" for document in chunk)
    target = io.StringIO(newline="")
    write_csv(chunk, columns, target, heading=heading)
    return target.getvalue()


def _every_group(desk: Desk, query: q.GroupsFilter, wanted: LetterFilter) -> Iterator[dict[str, Any]]:
    after: GroupCursor | None = None
    while True:
        page = desk.index.reader.group_page(wanted, state=query.states(), order=query.order, after=after, limit=500)
        yield from map(group_document, page.groups)
        after = page.next
        if after is None:
            return


def _every_job(desk: Desk, query: q.JobsFilter) -> Iterator[dict[str, Any]]:
    before: str | None = None
    while page := desk.index.jobs.newest(500, state=query.states(), before=before):
        for job in page:
            yield job_document(job, desk.index.jobs.outcomes(job.id))
        before = page[-1].id
