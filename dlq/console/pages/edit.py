"""One record edited by hand: the form, what it would come to, and sending it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import field_validator

from dlq.console import queries as q
from dlq.console.answers import error_document
from dlq.console.desk import TheDesk, Who
from dlq.console.editing import Editing
from dlq.console.gate import GuardedRoute
from dlq.console.render import page
from dlq.console.rights import Right, needs
from tidegate.errors import ConfigError

router = APIRouter(route_class=GuardedRoute, include_in_schema=False)


class _EditForm(q.EditBody):
    """`csrf` is the gate's."""

    csrf: str = ""

    @field_validator("value", "key")
    @classmethod
    def _one_kind_of_line_end(cls, given: str | None) -> str | None:
        return None if given is None else given.replace("\r\n", "\n")  # as forms send them


@router.get("/record/edit")
@needs(Right.ACT)
def edit(request: Request, desk: TheDesk, query: Annotated[q.LetterQuery, Query()]) -> Response:
    """Value and key to be edited, masked, beside what the schema says."""
    return _page(request, Editing(desk, query), None)


@router.post("/record/edit/check")
@needs(Right.ACT)
def check(request: Request, desk: TheDesk, form: Annotated[_EditForm, Form()]) -> Response:
    """The form, and what the pipeline would say of the record now."""
    editing = Editing(desk, q.LetterQuery(id=form.id, topic=form.topic))
    try:
        found = editing.preview(form, indented=True).document()
    except ConfigError as error:
        return _page(request, editing, form, status=400, error=error_document(error))
    return _page(request, editing, form, preview=found)


@router.post("/record/edit")
@needs(Right.ACT)
def send(request: Request, desk: TheDesk, who: Who, form: Annotated[_EditForm, Form()]) -> Response:
    """Check it once more, send it, and show its job."""
    editing = Editing(desk, q.LetterQuery(id=form.id, topic=form.topic))
    try:
        job = editing.send(form, who, indented=True)
    except ConfigError as error:
        return _page(request, editing, form, status=400, error=error_document(error))
    return RedirectResponse(f"/jobs/{job.id}", 303)


def _page(
    request: Request,
    editing: Editing,
    form: _EditForm | None,
    *,
    status: int = 200,
    preview: Any = None,
    error: Any = None,
) -> Response:
    found = editing.document()
    return page(
        request, "edit.html", status=status, title=f"Edit {found['id']}", found=found, preview=preview, error=error,
        value=found["value"] if form is None else form.value, key=found["key"] if form is None else form.key,
        to=None if form is None else form.to, params=[("id", found["id"]), ("topic", found["topic"])],
    )  # fmt: skip
