"""All routes of the console, put together behind the gate."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response

from dlq.console.answers import add_error_answers
from dlq.console.api import acting, exports, reading
from dlq.console.desk import Desk
from dlq.console.gate import Gate, GuardedApp, GuardedRoute
from dlq.console.live import Live
from dlq.console.pages import acts, edit, looking, pipeline, record, replays, signing
from dlq.console.rights import Right, needs
from dlq.console.sessions import Sessions, WrongTokens
from dlq.service import DeadLetterIndex

_ABOUT = (
    "Dead letters: found, understood, mended, replayed. Send `Authorization: Bearer TOKEN`; where the console runs without "
    "tokens (on loopback), send JSON."
)
router = APIRouter(route_class=GuardedRoute, include_in_schema=False)


@router.get("/api/openapi.json")
@needs(Right.VIEW)
def openapi(request: Request) -> Response:
    """This API."""
    return Response(json.dumps(request.app.openapi()), media_type="application/json")


def create_app(index: DeadLetterIndex, local_user: str) -> FastAPI:
    """The console of one pipeline. `local_user`: who everybody is when there are no tokens.

    Every route is a GuardedRoute; FastAPI's own pages (which load scripts from elsewhere) are off.
    """
    from importlib.metadata import version

    app = GuardedApp(
        title="tidegate dead letters", version=version("tidegate"), description=_ABOUT, openapi_url=None, docs_url=None,
        redoc_url=None, redirect_slashes=False,
    )  # fmt: skip
    settings = index.pipeline.dead_letters.console
    app.state.gate = Gate(settings, Sessions(settings, local_user, index.clock), WrongTokens(index.clock))
    app.state.desk = Desk(index)
    app.state.live = Live(index.pipeline, index.clock)
    app.state.pipeline = index.pipeline.pipeline_id
    routers: list[APIRouter] = [
        router, reading.router, exports.router, acting.router, signing.router, looking.router, pipeline.router, record.router,
        edit.router, replays.router, acts.router,
    ]  # fmt: skip
    for one in routers:  # not include_router, which would hide them from whoever walks the routes
        app.router.routes.extend(one.routes)
    add_error_answers(app)
    _secure(app)
    return app


def _secure(app: FastAPI) -> None:
    """Say in the OpenAPI document how a token is sent."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        document = original()
        document.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to replace it
