"""Pages out of templates. Everything is escaped, and what could turn the reading direction or steer a terminal is shown as an
escape, because every value goes through `_shown`."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from dlq.console.charts import chart
from dlq.console.gate import CSRF_FIELD
from dlq.console.rights import Right
from dlq.document import moment, one_line, printable
from dlq.encoding import parse_iso_utc
from tidegate.config.durations import format_duration

THEME = "tidegate_theme"
"""The cookie that remembers the theme: light, dark, or none of them."""
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A template as a page. Every template has a `title`; who is signed in, and the forms' token, come from the request."""
    state, app = request.state, request.app
    principal = getattr(state, "principal", None)
    theme = request.cookies.get(THEME)
    shared = {
        "request": request,
        "pipeline": app.state.pipeline,
        "who": principal,
        "may": {right.value: principal is not None and principal.may(right) for right in Right},
        "local": app.state.gate.sessions.local is not None,
        "csrf_token": getattr(state, "csrf", ""),
        "csrf_field": CSRF_FIELD,
        "theme": theme if theme in ("light", "dark") else "auto",
        "now": int(app.state.desk.now),
        "refresh": 0,
    }
    written = _environment().get_template(template).render({**shared, **values})
    return HTMLResponse(written, status)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dlq.console"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        number=_number, ago=_ago, at=_at, line=one_line, duration=format_duration, exact=_exact, query=_query
    )
    environment.globals.update(chart=chart, moment=moment)
    return environment


def _shown(value: Any) -> Any:
    """Every value of every page comes through here."""
    if value is None:
        return ""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _exact(value: str) -> Markup:
    """For what a form sends back: escaped, but not made readable."""
    return escape(str(value))


def _query(params: list[tuple[str, str]], **more: Any) -> str:
    """`?a=b&…`, without what is blank; `more` replaces."""
    kept = [(name, value) for name, value in params if name not in more]
    kept += [(name, str(value)) for name, value in more.items() if value not in (None, "")]
    return f"?{urlencode(kept)}" if kept else "?"


def _number(value: float) -> str:
    return f"{value:,}".replace(",", "\u202f")


def _at(iso: str | None) -> Markup:
    """A moment to the second, UTC."""
    if iso is None:
        return Markup('<span class="quiet">unknown</span>')
    return Markup('<time datetime="{}">{}</time>').format(iso, iso[:19].replace("T", " "))


def _ago(iso: str | None, now: int) -> Markup:
    """How long it was, or will be; the moment itself as its title."""
    ms = parse_iso_utc(iso)
    if ms is None or iso is None:
        return Markup('<span class="quiet">unknown</span>')
    seconds = (now - ms) / 1000
    far = abs(seconds)
    if far < 5:
        text = "now"
    else:
        text = (
            f"{far:.0f} s" if far < _MINUTE else f"{far / _MINUTE:.0f} min" if far < _HOUR
            else f"{far / _HOUR:.0f} h" if far < 2 * _DAY else f"{far / _DAY:.0f} days" if far < 90 * _DAY
            else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"
        )  # fmt: skip
        if far < 90 * _DAY:
            text = f"{text} ago" if seconds > 0 else f"in {text}"
    title = f"{iso[:19].replace('T', ' ')} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(iso, title, text)
