"""Whatever a dead letter holds, it is shown and never obeyed: on every page, in every answer of the API, in every export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import pytest

from dlq.index.filters import LetterFilter
from tests.console_scene import NOW, Scene, dead, scene

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": '" onmouseover="alert(1)" x="',
    "quote": "' autofocus onfocus='alert(1)",
    "markup": "</pre></td></table><img src=x onerror=alert(1)><style>*{display:none}</style>",
    "template": "{{ 7 * 7 }}{% raw %}${7*7}",
    "link": "javascript:alert(1)",
    "ansi": "\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b2J",
    "right to left": "user\u202egnp.exe\u2066\u2069\u200f",
    "formula": "=HYPERLINK(\"http://evil.example\")",
    "lines": "one\r\nset-cookie: a=b\r\n\r\n<b>",
    "separators": "a|b&c=d?e#f/../%00%2e%2e/\\",
    "huge": "x<" * 40_000,
    "surrogate": "\\ud800",
    "nul": "nul\x00byte",
    "emoji": "🏴‍☠️" * 50,
}  # fmt: skip
BYTES = {
    "binary": bytes(range(256)) * 4,
    "deep": b"[" * 30_000 + b"]" * 30_000,
    "rather deep": b'{"a":' * 900 + b"1" + b"}" * 900,
    "not utf-8": b"\xff\xfe<script>\xc3\x28",
    "big number": b"1" * 5_000,
    "empty": b"",
    "script in a field": json.dumps(
        {"<script>alert(1)</script>": {"</span><img src=x onerror=alert(1)>": "'\"><"}}
    ).encode(),
}


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.wrong: list[str] = []
        self.fields: dict[str, dict[str, str]] = {}
        self._form = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._form = given.get("action") or ""
            self.fields[self._form] = {}
        if tag == "input" and given.get("type") == "hidden":
            self.fields[self._form][given["name"] or ""] = given["value"] or ""
        if tag == "script":
            self.scripts.append(given)
        if tag in ("img", "style", "iframe", "object", "embed", "b"):
            self.wrong.append(tag)
        for name, value in attrs:
            if name.startswith("on") or name == "style":
                self.wrong.append(f"{tag} {name}")
            if name in ("href", "src", "action", "formaction") and not (value or "").startswith(("/", "#", "?")):
                self.wrong.append(f"{tag} {name}={value}")


@pytest.fixture(params=[*HOSTILE, *BYTES])
def attacked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A console whose only dead letter has the text (or the bytes) in every place that a record's writer can fill."""
    text = HOSTILE.get(request.param)
    with scene(tmp_path) as console:
        if text is None:
            data = BYTES[request.param]
            letter = dead(0, at=NOW, value=data, key=data[:400], headers=[("h", data[:400])])
        else:
            value = json.dumps({text: text, "list": [text]}).encode()
            key = text.encode()
            headers = [(text[:200], text.encode()), ("content-type", text.encode()[:500])]
            letter = dead(
                0, at=NOW, value=value, key=key, headers=headers, message=text, error=text[:300], rule=text[:100],
                topic=text[:200],
            )  # fmt: skip
        console.prepare().write(letter)
        group = console.index.reader.groups()[0]["fingerprint"]
        console.index.lifecycle.acknowledge(
            group, actor=(text or "ada")[:100], note=(text or "").replace("\x00", "")[:500]
        )
        yield console


def test_pages_show_it_as_text(attacked: Scene) -> None:
    """No page gets a tag, an attribute, a script or a link from it, nor a character that could turn or steer anything."""
    browser = attacked.browser()
    letter = attacked.index.reader.page(_all()).letters[0]
    record = urlencode({"id": letter["id"], "topic": letter["dlq_topic"]})
    group = urlencode({"group": letter["fingerprint"]})
    error = urlencode({"error": letter["error_type"][:300]})
    for path in (
        "/", "/groups", f"/groups?{error}", f"/group?{group}", "/search", f"/search?{group}&{error}", f"/record?{record}",
        f"/record?{record}&view=raw", f"/record?{record}&view=hex", "/audit", f"/replay?{record.split('&')[0]}",
        f"/park?{record.split('&')[0]}", f"/search?{urlencode({'text': letter['message'][:300]})}",
        f"/group?{urlencode({'group': letter['error_type'][:300]})}",
    ):  # fmt: skip
        page = browser.get(path)
        assert page.status_code in (200, 404), (path, page.text[:500])
        tags = Tags(page.text)
        assert tags.scripts == [{"src": "/static/app.js", "defer": None}], path
        assert tags.wrong == [], path
        assert CONTROL.search(shown(page.text)) is None, path
        assert "set-cookie: a=b" not in str(page.headers)


def test_forms_send_back_exactly_what_they_stand_for(attacked: Scene) -> None:
    """Whatever its name: the buttons of a page act on the group and the record that the page shows."""
    browser = attacked.browser()
    letter = attacked.index.reader.page(_all()).letters[0]
    page = browser.get("/replay", id=letter["id"], topic=letter["dlq_topic"]).text
    made = browser.client.post("/replay", data=Tags(page).fields["/replay"])
    assert made.status_code == 303, made.text
    assert attacked.index.jobs.newest()[0].total == 1
    page = browser.get("/group", group=letter["fingerprint"]).text
    resolved = browser.client.post("/group/resolve", data=Tags(page).fields["/group/resolve"])
    assert resolved.status_code == 303, resolved.text
    assert attacked.index.reader.groups()[0]["state"] == "resolved"


def test_what_is_revealed_is_text_too(attacked: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The raw record on its page, in every view, is shown and not obeyed; as a download it is a file of bytes."""
    letter = attacked.index.reader.page(_all()).letters[0]
    monkeypatch.setattr("dlq.service.read_one", lambda *place: attacked.written[0])
    browser, of = attacked.browser(), {"id": letter["id"], "topic": letter["dlq_topic"], "reason": "to look"}
    for view in ("pretty", "raw", "hex"):
        page = browser.post("/record/reveal", view=view, **of)
        assert page.status_code == 200
        tags = Tags(page.text)
        assert tags.wrong == []
        assert len(tags.scripts) == 1
        assert CONTROL.search(shown(page.text)) is None
    file = browser.post("/record/download", part="value", **of)
    assert file.content == (attacked.written[0].envelope.value or b"")
    assert file.headers["content-type"] == "application/octet-stream"
    assert re.fullmatch(r'attachment; filename="[A-Za-z0-9._-]+\.bin"', file.headers["content-disposition"])
    json.loads(attacked.client().post("/api/letters/reveal", json=of).text)
    assert [entry["action"] for entry in attacked.index.reader.history(limit=5)] == ["reveal"] * 5


def test_the_form_that_edits_it_holds_it_as_text(attacked: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the page where it is edited, and again when what was sent is refused: the form's own tags and nothing of the
    record's; what is sent back unchanged is known to be unchanged."""
    letter = attacked.index.reader.page(_all()).letters[0]
    monkeypatch.setattr("dlq.service.read_one", lambda *place: attacked.written[0])
    browser, of = attacked.browser(), {"id": letter["id"], "topic": letter["dlq_topic"]}
    for page, status in ((browser.get("/record/edit", **of), 200), (browser.post("/record/edit/check", **of), 400)):
        assert page.status_code == status, page.text[:500]
        tags = Tags(page.text)
        assert tags.wrong == []
        assert tags.scripts == [{"src": "/static/app.js", "defer": None}]
        assert CONTROL.search(re.sub(r"<textarea[^>]*>[^<]*</textarea>", "", shown(page.text))) is None
    answer = attacked.client().get("/api/letter/editable", params=of)
    assert answer.headers["content-type"] == "application/json"
    assert CONTROL.search(answer.text) is None


def test_the_api_and_exports_give_it_harmlessly(attacked: Scene) -> None:
    """Valid JSON of a type that no browser runs, without raw control characters; files are attachments."""
    client = attacked.client()
    letter = attacked.index.reader.page(_all()).letters[0]
    record = urlencode({"id": letter["id"]})
    group = urlencode({"group": letter["fingerprint"]})
    for path in ("overview", "groups", f"group?{group}", "letters", f"letter?{record}", "audit"):
        answer = client.get(f"/api/{path}")
        assert answer.status_code == 200, (path, answer.text[:300])
        assert answer.headers["content-type"] == "application/json"
        assert CONTROL.search(answer.text) is None, path
        json.loads(answer.text)
    for name in ("letters", "groups?state=all", "audit"):
        for form in ("csv", "json"):
            answer = client.get(f"/api/export/{name}{'&' if '?' in name else '?'}format={form}")
            assert answer.status_code == 200
            assert answer.headers["content-disposition"].startswith("attachment")
            assert CONTROL.search(answer.text) is None, (name, form)


def _all() -> LetterFilter:
    return LetterFilter()


def shown(page: str) -> str:
    """A page without the values of its fields and links, which are sent back as they are."""
    return re.sub(r'value="[^"]*"', "", page.replace("\r\n", "\n"))
