"""Signing in and out, the theme, and the files beside the pages."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import StringConstraints

from dlq.console.desk import Desk
from dlq.console.gate import Gate, GuardedRoute, Refused
from dlq.console.render import THEME, page
from dlq.console.rights import Right, needs
from tidegate.errors import TidegateError

log = structlog.get_logger(__name__)
_TYPES = {"app.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"}
_YEAR = 31_536_000  # seconds
# A path of ours: what begins with two slashes (or a backslash) is another host to a browser.
_OURS = re.compile(r"/([^/\\\x00-\x20][^\\\x00-\x20]*)?")

router = APIRouter(route_class=GuardedRoute, include_in_schema=False)


@router.get("/login")
@needs(Right.PUBLIC)
def login(request: Request, next: Annotated[str, StringConstraints(max_length=4_000)] = "/") -> Response:
    """The page for it."""
    return page(request, "login.html", title="Sign in", next=next, error=None)


@router.post("/login")
@needs(Right.PUBLIC)
def sign_in(
    request: Request,
    token: Annotated[str, Form(max_length=1_000)],
    next: Annotated[str, Form(max_length=4_000)] = "/",
) -> Response:
    """With a token."""
    gate: Gate = request.app.state.gate
    try:
        principal, session = gate.sign_in(request, token.strip())
    except Refused as refused:
        _note(request, "" if request.client is None else request.client.host, "sign-in refused")
        status = refused.status
        error = {"error": refused.problem, "hint": refused.hint}
        answer = page(request, "login.html", status=status, title="Sign in", next=next, error=error)
        if refused.wait:
            answer.headers["retry-after"] = str(int(refused.wait) + 1)
        return answer
    _note(request, principal.name, "sign in")
    response = RedirectResponse(_ours(next), 303)
    gate.set_cookie(request, response, session)
    return response


@router.post("/logout")
@needs(Right.VIEW)
def sign_out(request: Request) -> Response:
    request.app.state.gate.sessions.sign_out(request.state.session)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(request.app.state.gate.cookie, path="/")
    return response


@router.post("/theme")
@needs(Right.VIEW)
def theme(
    request: Request,
    theme: Annotated[Literal["auto", "light", "dark"], Form()],
    next: Annotated[str, Form(max_length=4_000)] = "/",
) -> Response:
    """Remember it in this browser."""
    response = RedirectResponse(_ours(next), 303)
    if theme == "auto":
        response.delete_cookie(THEME, path="/")
    else:
        response.set_cookie(THEME, theme, max_age=_YEAR, httponly=True, samesite="strict", path="/")
    return response


@router.get("/static/{name}")
@needs(Right.PUBLIC)
def static(name: Literal["app.css", "app.js", "icon.svg"]) -> Response:
    """Ours, and nothing else."""
    content = files("dlq.console").joinpath("static", name).read_bytes()
    return Response(content, media_type=_TYPES[name], headers={"cache-control": "no-cache"})


def _ours(path: str) -> str:
    return path if _OURS.fullmatch(path) else "/"


def _note(request: Request, actor: str, action: str) -> None:
    """In the audit log, as far as there is one."""
    desk: Desk = request.app.state.desk
    try:
        desk.require_index()
        desk.index.lifecycle.note(actor, action)
    except TidegateError as error:
        log.warning("console.not_noted", actor=actor, action=action, error=str(error))
