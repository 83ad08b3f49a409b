"""How documents and errors are answered: JSON under /api, a page everywhere else."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from dlq.console.desk import NoIndex, NotFound
from dlq.console.gate import API, Refused
from dlq.console.render import page
from dlq.document import safe_json
from tidegate.errors import ConfigError, DependencyError, TidegateError

_TITLES = {
    400: "That cannot be done", 401: "Sign in", 403: "Not allowed", 404: "Not found", 405: "Not possible here",
    411: "Too long", 413: "Too long", 421: "Another host", 422: "That cannot be done", 429: "Too often",
    503: "Something is away",
}  # fmt: skip


class Json(Response):
    """JSON that is harmless in a terminal, too."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return safe_json(content).encode()


def add_error_answers(app: FastAPI) -> None:
    """Whatever is raised in a route is answered here."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        if error.status == 401 and not _is_api(request):
            wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            after = f"?next={quote(wanted, safe='')}" if request.method == "GET" and wanted != "/" else ""
            return RedirectResponse(f"/login{after}", 303)
        answer = _answer(request, error.status, {"error": error.problem, "hint": error.hint})
        if error.wait:
            answer.headers["retry-after"] = str(int(error.wait) + 1)
        if error.status == 401:
            answer.headers["www-authenticate"] = "Bearer"
        return answer

    @app.exception_handler(NoIndex)
    async def no_index(request: Request, error: NoIndex) -> Response:
        if _is_api(request):
            return Json(_document(error), 503)
        return page(request, "first_run.html", title="Welcome")

    @app.exception_handler(TidegateError)
    async def known(request: Request, error: TidegateError) -> Response:
        if isinstance(error, NotFound):
            return _answer(request, 404, _document(error))
        if isinstance(error, DependencyError):
            return _answer(request, 503, _document(error))
        return _answer(request, 400, _document(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return _answer(request, 422, _first(error))

    @app.exception_handler(Exception)
    async def mistake(request: Request, error: Exception) -> Response:  # the server logs it, with its traceback
        return _answer(request, 500, {"error": "this is a mistake of the console", "hint": "its log says more"})

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        answer = _answer(request, error.status_code, {"error": str(error.detail)})
        answer.headers.update(error.headers or {})
        return answer


def error_document(error: TidegateError) -> dict[str, Any]:
    """What a page or an answer says of an error."""
    return _document(error)


def _document(error: TidegateError) -> dict[str, Any]:
    if not isinstance(error, ConfigError):
        return {"error": str(error)}
    parts = {
        "error": error.problem,
        "field": None if error.field is None else error.field.lstrip("-"),
        "value": None if error.value is None else str(error.value)[:500],
        "expected": error.expected,
        "hint": error.hint,
    }
    return {name: value for name, value in parts.items() if value is not None}


def _first(error: RequestValidationError) -> dict[str, Any]:
    """The first thing that is wrong; a value is shown as it was given."""
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"][1:]) or str(problem["loc"][0])
    found = problem.get("input")
    shown = {} if found is None or isinstance(found, dict | list) else {"value": str(found)[:500]}
    hint = {"hint": "see /api/openapi.json"} if problem["type"] == "extra_forbidden" else {}
    return {"error": problem["msg"], "field": field, **shown, **hint}


def _answer(request: Request, status: int, document: dict[str, Any]) -> Response:
    if _is_api(request):
        return Json(document, status)
    title = _TITLES.get(status, "Something went wrong")
    return page(request, "error.html", status=status, title=title, error=document)


def _is_api(request: Request) -> bool:
    return request.url.path.startswith(API)
