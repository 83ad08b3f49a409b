"""The one place that lets a request in. Every route is a `GuardedRoute`, and no route is made without saying what it needs.

1. the Host header is one of ours        (DNS rebinding)
2. no other site sends it, but by a link to a page; what changes something has a known, small size
3. a token, a session, or (without any tokens, on loopback) the local user
4. that somebody's role has the right which the route needs
5. what changes something in a browser's session carries the session's CSRF token

What it finds stands in `request.state`: `principal`, `session` (the browser's), `fresh` (whether that has to be set).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Scope, Send

from dlq.console.rights import Principal, Right, least_role
from dlq.console.sessions import Sessions, WrongTokens
from tidegate.config.console import Console

CSRF_HEADER, CSRF_FIELD = "x-csrf-token", "csrf"
API = "/api/"
_SAFE = ("GET", "HEAD")
_MOST_BYTES = 1_048_576  # of a request's body
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Refused(Exception):
    """A request that is not let in: HTTP status, what is wrong, and the way out."""

    def __init__(self, status: int, problem: str, hint: str, *, wait: float = 0.0) -> None:
        super().__init__(problem)
        self.status, self.problem, self.hint, self.wait = status, problem, hint, wait


class Gate:
    """`port`: where the server listens, once it does."""

    def __init__(self, settings: Console, sessions: Sessions, wrong: WrongTokens) -> None:
        self.sessions, self.wrong = sessions, wrong
        self._settings = settings
        self.listens_on(settings.port)

    def listens_on(self, port: int) -> None:
        own = {*_LOOPBACK, self._settings.host.lower()} - {"0.0.0.0", "::", "[::]"}
        self._hosts = {f"{f'[{name}]' if name.count(':') > 1 and name[0] != '[' else name}:{port}" for name in own}
        self._hosts |= set(self._settings.allowed_hosts)
        self.cookie = f"tidegate_{port}"  # cookies know no ports: two consoles of one machine would sign each other out

    async def admit(self, request: Request, right: Right) -> None:
        """Raises Refused."""
        changes = request.method not in _SAFE
        self._check_host(request)
        self._check_origin(request, changes)
        if changes:
            _check_size(request)
        state = request.state
        given = request.cookies.get(self.cookie, "")
        state.session, state.fresh = (given, False) if given else (self.sessions.new_id(), True)
        bearer = _bearer(request)
        principal = self.sessions.of_session(state.session) if bearer is None else self._of_token(request, bearer)
        state.principal, state.csrf = principal, self.sessions.csrf_token(state.session)
        if right is not Right.PUBLIC:
            _check_right(principal, right)
        if changes and bearer is None:
            await self._check_csrf(request)

    def sign_in(self, request: Request, token: str) -> tuple[Principal, str]:
        """Who that is, and the new session's id. Raises Refused."""
        principal = self._of_token(request, token)
        return principal, self.sessions.sign_in(principal)

    def set_cookie(self, request: Request, response: Response, session: str) -> None:
        secure = request.headers.get("origin", "").startswith("https:")  # a proxy before us speaks TLS
        response.set_cookie(self.cookie, session, httponly=True, samesite="strict", secure=secure, path="/")

    def _check_host(self, request: Request) -> None:
        host = request.headers.get("host", "").lower()
        if host not in self._hosts:
            hint = "if that is the console's name, deadLetters.console.allowedHosts has to say so"
            raise Refused(421, f"this is not the host {host[:200]!r}", hint)

    def _check_origin(self, request: Request, changes: bool) -> None:
        """Another site may link to a page, and nothing else: neither send a form nor embed anything."""
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        foreign |= request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        if foreign and (changes or request.headers.get("sec-fetch-mode") != "navigate"):
            raise Refused(403, "another site has sent this request", "open the console itself, and do it there")

    def _of_token(self, request: Request, token: str) -> Principal:
        address = "" if request.client is None else request.client.host
        if (wait := self.wrong.wait(address)) > 0:
            raise Refused(429, "too many wrong tokens from this address", f"try again in {wait:.0f} s", wait=wait)
        principal = self.sessions.of_token(token)
        if principal is None:
            self.wrong.add(address)
            raise Refused(401, "this token is not known", "deadLetters.console.tokens in the pipeline file has them")
        return principal

    async def _check_csrf(self, request: Request) -> None:
        given = request.headers.get(CSRF_HEADER)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given is None and kind in ("application/x-www-form-urlencoded", "multipart/form-data"):
            given = str((await request.form()).get(CSRF_FIELD, ""))
        if given is None and request.state.fresh and kind == "application/json":
            return  # no browser: it has no session, and no other site's page may send this type to us
        if given is None or not self.sessions.is_csrf_token(request.state.session, given):
            raise Refused(
                403, "the page was too old, or the request is not its own", "load the page again, and try again"
            )


class GuardedRoute(APIRoute):
    """A route that asks the gate before anything of the request is looked at."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        right: Right = self.endpoint.needs  # type: ignore[attr-defined]  # an endpoint that says nothing is a mistake, found when the route is made

        async def guarded(request: Request) -> Response:
            gate: Gate = request.app.state.gate
            await gate.admit(request, right)
            response = await handle(request)
            if request.state.fresh and response.headers.get("content-type", "").startswith("text/html"):
                gate.set_cookie(request, response, request.state.session)
            return response

        return guarded


class GuardedApp(FastAPI):
    """Puts its headers on every answer, also on those of errors, of mistakes of ours, and of what does not exist."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                added = [(n.encode(), v.encode()) for n, v in _HEADERS.items() if n.encode() not in own]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await super().__call__(scope, receive, with_headers)


def _check_right(principal: Principal | None, right: Right) -> None:
    if principal is None:
        raise Refused(401, "nobody is signed in", "sign in, or send `Authorization: Bearer TOKEN`")
    if not principal.may(right):
        hint = f"the role {least_role(right)} may; {principal.name} is {principal.role}"
        raise Refused(403, f"this needs the right to {right}", hint)


def _check_size(request: Request) -> None:
    size = request.headers.get("content-length", "")
    if not (size.isascii() and size.isdigit()):
        raise Refused(411, "the request does not say how long it is", "send Content-Length")
    if len(size) > 12 or int(size) > _MOST_BYTES:
        raise Refused(413, "the request is too long", f"at most {_MOST_BYTES} bytes")


def _bearer(request: Request) -> str | None:
    """What the request gives as its token, "" for another kind of authorisation; None: it gives none."""
    given = request.headers.get("authorization")
    if given is None:
        return None
    kind, _, token = given.partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""
