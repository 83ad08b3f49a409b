"""Acknowledge, resolve, park: forms of the pages."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from dlq.console import queries as q
from dlq.console.desk import TheDesk, Who
from dlq.console.gate import GuardedRoute
from dlq.console.render import page
from dlq.console.rights import Right, needs
from dlq.index.tables import OPEN, PARKED

router = APIRouter(route_class=GuardedRoute, include_in_schema=False)


class _GroupForm(q.GroupNote):
    """`csrf` is the gate's."""

    csrf: str = ""


class _ParkForm(q.Filter):
    csrf: str = ""
    note: q.Note = ""
    act: Literal["park", "unpark"] = "park"


class _ParkPage(q.Filter):
    act: Literal["park", "unpark"] = "park"


@router.post("/group/acknowledge")
@needs(Right.ACT)
def acknowledge(desk: TheDesk, who: Who, form: Annotated[_GroupForm, Form()]) -> Response:
    """Somebody is looking at it."""
    desk.require_group(form.group)
    desk.index.lifecycle.acknowledge(form.group, actor=who.name, note=form.note)
    return _group(form.group)


@router.post("/group/resolve")
@needs(Right.ACT)
def resolve(desk: TheDesk, who: Who, form: Annotated[_GroupForm, Form()]) -> Response:
    """Close it by hand."""
    desk.require_group(form.group)
    desk.index.lifecycle.resolve(form.group, actor=who.name, note=form.note)
    return _group(form.group)


@router.get("/park")
@needs(Right.ACT)
def ask(request: Request, desk: TheDesk, query: Annotated[_ParkPage, Query()]) -> Response:
    """How many it would be, and the question."""
    wanted = query.letters(desk.index.clock)
    number = desk.count(wanted, OPEN if query.act == "park" else PARKED)
    title = "Set aside" if query.act == "park" else "Open again"
    return page(request, "park.html", title=title, params=query.params(), act=query.act, number=number)


@router.post("/park")
@needs(Right.ACT)
def park(desk: TheDesk, who: Who, form: Annotated[_ParkForm, Form()]) -> Response:
    """Set aside, or open again."""
    act = desk.index.lifecycle.park if form.act == "park" else desk.index.lifecycle.unpark
    act(form.letters(desk.index.clock), actor=who.name, note=form.note)
    return RedirectResponse(f"/search?{urlencode(form.params())}", 303)


def _group(fingerprint: str) -> Response:
    return RedirectResponse(f"/group?{urlencode({'group': fingerprint})}", 303)
