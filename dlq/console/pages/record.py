"""One record: masked; raw, where nothing is masked or somebody with the right to it says why."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request, Response

from dlq.console import payload
from dlq.console import queries as q
from dlq.console.desk import Desk, Json, NotFound, TheDesk, Who
from dlq.console.gate import GuardedRoute
from dlq.console.links import origin_link, trace_link
from dlq.console.render import page
from dlq.console.rights import Principal, Right, needs
from dlq.reader import DeadLetter

View = Literal["pretty", "raw", "hex"]
_NAME = re.compile(r"[^A-Za-z0-9._-]+")

router = APIRouter(route_class=GuardedRoute, include_in_schema=False)


class _RecordPage(q.LetterQuery):
    view: View = "pretty"


class _RevealForm(q.Reveal):
    """`csrf` is the gate's."""

    csrf: str = ""
    view: View = "pretty"


class _DownloadForm(q.Reveal):
    csrf: str = ""
    part: Literal["key", "value"] = "value"


@router.get("/record")
@needs(Right.VIEW)
def record(request: Request, desk: TheDesk, query: Annotated[_RecordPage, Query()]) -> Response:
    """Everything about it, masked as the index is."""
    found = desk.letter(query)
    return _page(request, found, query.view, shown=_masked(found, query.view), revealed=None)


@router.post("/record/reveal")
@needs(Right.REVEAL)
def reveal(request: Request, desk: TheDesk, who: Who, form: Annotated[_RevealForm, Form()]) -> Response:
    """The raw record; who asked, and why, stands in the audit log before it is read."""
    raw = _raw(desk, who, form)
    value = raw.envelope.value
    shown = {
        "pretty": lambda: payload.pretty_bytes(value),
        "raw": lambda: payload.raw((value or b"").decode("utf-8", "backslashreplace")),
        "hex": lambda: payload.hexadecimal(value),
    }[form.view]()
    headers = [
        [name, None if data is None else data.decode("utf-8", "backslashreplace")]
        for name, data in raw.envelope.headers
    ]
    key = raw.envelope.key
    found: Json = desk.letter(q.LetterQuery(id=form.id, topic=form.topic))
    found |= {"headers": headers, "key": None if key is None else key.decode("utf-8", "backslashreplace")}
    return _page(request, found, form.view, shown=shown, revealed=form.reason)


@router.post("/record/download")
@needs(Right.REVEAL)
def download(desk: TheDesk, who: Who, form: Annotated[_DownloadForm, Form()]) -> Response:
    """Its raw bytes as a file."""
    raw = _raw(desk, who, form)
    data = raw.envelope.key if form.part == "key" else raw.envelope.value
    name = _NAME.sub("-", form.id)[:100]
    disposition = f'attachment; filename="{name}-{form.part}.bin"'
    return Response(data or b"", media_type="application/octet-stream", headers={"content-disposition": disposition})


def _raw(desk: Desk, who: Principal, form: q.Reveal) -> DeadLetter:
    """Raises NotFound, BrokerUnavailable."""
    raw = desk.index.reveal(desk.row(form), actor=who.name, reason=form.reason)
    if raw is None:
        hint = "the topic's retention has deleted it; the index keeps what is shown masked"
        raise NotFound("its record is not in the topic any more", field="id", value=form.id, hint=hint)
    return raw


def _masked(found: Json, view: View) -> payload.Shown | None:
    """What the index has of the value; None: nothing."""
    value: Any = found["value"]
    if value is None:
        return None
    text = value if isinstance(value, str) else payload.compact(value)
    if view == "hex":
        return payload.hexadecimal(text.encode("utf-8", "surrogatepass"))
    return payload.raw(text) if view == "raw" else payload.pretty(value)


def _context(found: Json) -> payload.Shown | None:
    context = found["detail"].get("context")
    return None if context is None else payload.pretty(context)


def _page(request: Request, found: Json, view: View, *, shown: payload.Shown | None, revealed: str | None) -> Response:
    settings = request.app.state.desk.index.pipeline.dead_letters
    masks, links = settings.masking, settings.console.links
    return page(
        request, "record.html", title=f"Record {found['id']}", found=found, view=view, shown=shown,
        context=_context(found), revealed=revealed, masked=bool(masks),
        trace=trace_link(links, found["detail"].get("trace")),
        origin=origin_link(links, found["source"], found["partition"], found["offset"]),
        params=[("id", found["id"]), ("topic", found["deadLetterTopic"])],
    )  # fmt: skip
