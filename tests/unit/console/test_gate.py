"""The gate: every route of the console, walked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRouter
from fastapi.testclient import TestClient

from dlq.console.gate import GuardedRoute
from dlq.console.rights import Principal, Right
from tests.console_scene import HOST, TOKENS, Scene, scene
from tidegate.clock import ManualClock
from tidegate.config.pipeline import Pipeline

ROLES = tuple(TOKENS)


def routes(console: Scene) -> Iterator[tuple[str, str, Right]]:
    """Method, path and right of every route."""
    for route in console.app.routes:
        assert isinstance(route, GuardedRoute), f"{route} is not guarded"
        path = route.path.replace("{job}", "ab12cd34").replace("{name}", "app.css").replace("{act}", "pause")
        for method in route.methods:
            yield method, path, route.endpoint.needs  # type: ignore[attr-defined]  # set by @needs; a function has no such declared attribute


def ask(client: TestClient, method: str, path: str, **headers: str) -> Any:
    body: dict[str, Any] = {} if method == "GET" else {"json": {}} if path.startswith("/api") else {"data": {"a": "b"}}
    return client.request(method, path, headers=headers, **body)


def test_there_are_routes_of_every_right(guarded: Scene) -> None:
    """The walk below sees all of the console: pages, API, and each right at least once."""
    found = list(routes(guarded))
    assert len(found) > 50
    assert {right for _, _, right in found} == set(Right)
    assert {path for _, path, right in found if right is Right.PUBLIC} == {"/login", "/static/app.css"}
    assert all(
        right not in (Right.PUBLIC, Right.VIEW) for method, path, right in found if method == "POST" and "/api/" in path
    )


def test_without_a_token_nobody_comes_in(guarded: Scene) -> None:
    """Every route but signing in answers 401 (API) or shows the way to the sign-in (pages)."""
    client = guarded.client()
    for method, path, right in routes(guarded):
        if right is not Right.PUBLIC:
            answer = ask(client, method, path)
            if path.startswith("/api/"):
                assert answer.status_code == 401, (method, path)
                assert answer.json()["error"] == "nobody is signed in"
            else:
                assert answer.status_code == 303, (method, path)
                assert answer.headers["location"].startswith("/login")


@pytest.mark.slow
def test_a_wrong_role_is_refused_on_every_route(guarded: Scene) -> None:
    """What a role has no right to answers 403 and says who may; what it has a right to, does not."""
    for role in ROLES:
        client, principal = guarded.client(TOKENS[role]), Principal(role, role)
        for method, path, right in routes(guarded):
            answer = ask(client, method, path)
            if right is Right.PUBLIC:
                continue
            if principal.may(right):
                assert answer.status_code not in (401, 403), (role, method, path, answer.text)
            else:
                assert answer.status_code == 403, (role, method, path)
                assert f"{role} is {role}" in answer.text


def test_another_site_cannot_send_anything(console: Scene) -> None:
    """With a foreign Origin, or sent by another site's page, no POST is answered; also not where nobody signs in."""
    browser = console.browser()
    token = browser.csrf()
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
                    {"origin": f"http://{HOST}", "sec-fetch-site": "same-site"}):  # fmt: skip
        for method, path, _ in routes(console):
            if method == "POST":
                answer = ask(browser.client, method, path, **headers, **{"x-csrf-token": token})
                assert answer.status_code == 403, (path, headers)
                assert "another site" in answer.text


def test_another_site_may_link_to_a_page_and_embed_nothing(console: Scene) -> None:
    """A link from elsewhere opens the page; an image, a frame or a fetch of another site's page gets nothing."""
    for path, mode, status in (("/groups", "navigate", 200), ("/groups", "no-cors", 403), ("/api/export/letters", "no-cors", 403),
                               ("/api/letters", "cors", 403)):  # fmt: skip
        headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": mode}
        assert console.client().get(path, headers=headers).status_code == status, (path, mode)


def test_a_mistake_of_ours_is_said_and_nothing_of_it_shown(console: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw: 500, an answer of the right kind with the policy, and no trace of it."""

    def broken(*_: object) -> None:
        raise RuntimeError("secret-of-the-inside")

    monkeypatch.setattr("dlq.console.desk.Desk.overview", broken)
    client = TestClient(console.app, base_url=f"http://{HOST}", raise_server_exceptions=False)
    for path in ("/", "/api/overview"):
        answer = client.get(path)
        assert answer.status_code == 500
        assert "a mistake of the console" in answer.text
        assert "secret-of-the-inside" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.slow
def test_a_foreign_host_is_refused_on_every_route(console: Scene) -> None:
    """A name that is not the console's, as DNS rebinding would send it, is answered with 421 and the setting to change."""
    client = console.client()
    for method, path, _ in routes(console):
        for host in ("evil.example", "evil.example:6062", "127.0.0.1:80", ""):
            answer = ask(client, method, path, host=host)
            assert answer.status_code == 421, (method, path, host)
            assert "allowedHosts" in answer.text


def test_hosts_and_origins_that_are_nearly_ours(console: Scene) -> None:
    """A name that only contains ours is not ours."""
    for host in (f"{HOST}.evil.example", f"evil.example@{HOST}", HOST.replace("6062", "60621"), f"x{HOST}"):
        assert console.client().get("/", headers={"host": host}).status_code == 421
        answer = console.browser().client.post("/theme", data={}, headers={"origin": f"http://{host}"})
        assert answer.status_code == 403


def test_forms_need_the_token_of_their_page(console: Scene) -> None:
    """A POST of a browser's session without the CSRF token, or with that of another session, changes nothing."""
    browser, other = console.browser(), console.browser()
    browser.get("/")
    for token in ("", "0" * 64, other.csrf()):
        for method, path, _ in routes(console):
            if method == "POST":
                answer = browser.client.post(path, data={"csrf": token, "group": console.group})
                assert answer.status_code == 403, (path, token)
    assert browser.client.post("/api/groups/acknowledge", json={"group": console.group}).status_code == 403
    assert browser.post("/group/acknowledge", group=console.group).status_code == 303


def test_scripts_without_a_session_send_json(console: Scene) -> None:
    """On loopback without tokens a program is let in by its content type, which no other site's page can send."""
    for kind, status in (("application/json", 200), ("text/plain", 403), ("application/x-www-form-urlencoded", 403)):
        body = f'{{"group": "{console.group}"}}'
        answer = console.client().post("/api/groups/acknowledge", content=body, headers={"content-type": kind})
        assert answer.status_code == status, kind


def test_a_request_says_how_long_it_is(console: Scene) -> None:
    """Without a length, or beyond 1 MiB, nothing of it is read."""
    client = console.client()
    assert client.post("/api/preview", content=iter([b"{}"])).status_code == 411
    assert client.post("/api/preview", content=b"x" * 1_048_577).status_code == 413


def test_every_answer_is_strict(console: Scene) -> None:
    """Pages, API, errors and what does not exist carry the policy: nothing inline, nothing from elsewhere, no framing."""
    client = console.client()
    for path in ("/", "/api/groups", "/nothing", "/jobs/ffff", "/static/app.js", "/search?since=nonsense"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert headers["cache-control"] == ("no-cache" if "static" in path else "no-store")
        assert "<script>" not in client.get(path).text
        assert " style=" not in client.get(path).text


def test_signing_in_and_out(guarded: Scene) -> None:
    """A token gives a new session in a cookie that no script reads; signing out ends it on the server."""
    browser = guarded.browser()
    before = browser.get("/login").cookies
    answer = browser.post("/login", on="/login", token=f" {TOKENS['operator']} ", next="/groups?state=all")
    assert answer.headers["location"] == "/groups?state=all"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie
    assert before["tidegate_6062"] != answer.cookies["tidegate_6062"]
    assert "operator" in browser.get("/").text
    stolen = dict(browser.client.cookies)
    assert browser.post("/logout").status_code == 303
    browser.client.cookies.update(stolen)
    assert browser.get("/").status_code == 303


def test_behind_a_proxy_the_cookie_is_secure(tmp_path: Path) -> None:
    """Under a host that the pipeline file allows, with TLS before us, the cookie goes over TLS only."""
    with scene(tmp_path, tokens=True, console={"allowedHosts": ["dlq.example.org"]}) as console:
        client = TestClient(console.app, base_url="https://dlq.example.org", follow_redirects=False)
        page = client.get("/login").text
        token = page.split('name="csrf" value="')[1][:64]
        sent = {"csrf": token, "token": TOKENS["admin"]}
        answer = client.post("/login", data=sent, headers={"origin": "https://dlq.example.org"})
        assert answer.status_code == 303
        assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "elsewhere", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_signing_in_leads_to_our_own_pages_only(guarded: Scene, elsewhere: str) -> None:
    """What `next` says is a path of ours, or the overview."""
    answer = guarded.browser().post("/login", on="/login", token=TOKENS["viewer"], next=elsewhere)
    assert answer.headers["location"] == "/"


def test_guessing_tokens_is_slow(tmp_path: Path) -> None:
    """After five wrong tokens from one address even right ones wait five minutes, by form and by API together."""
    clock = ManualClock(1_700_000_000.0)
    with scene(tmp_path, tokens=True, clock=clock) as console:
        console.prepare()
        browser = console.browser()
        for _ in range(3):
            assert browser.post("/login", on="/login", token="no").status_code == 401
        for _ in range(2):
            assert console.client("no").get("/api/me").status_code == 401
        for answer in (browser.post("/login", on="/login", token=TOKENS["admin"]),
                       console.client(TOKENS["admin"]).get("/api/me")):  # fmt: skip
            assert answer.status_code == 429
            assert 290 < int(answer.headers["retry-after"]) <= 301
        clock.advance(301)
        assert console.client(TOKENS["admin"]).get("/api/me").json() == {"name": "admin", "role": "admin"}
        refused = [entry["action"] for entry in console.index.reader.history()]
        assert refused == ["sign-in refused"] * 4


def test_a_session_ends(tmp_path: Path) -> None:
    """After `console.session` a browser has to sign in again."""
    clock = ManualClock(1_700_000_000.0)
    with scene(tmp_path, tokens=True, clock=clock, console={"session": 3_600_000}) as console:
        browser = console.prepare().browser(TOKENS["viewer"])
        clock.advance(3_599)
        assert browser.get("/").status_code == 200
        clock.advance(2)
        assert browser.get("/").status_code == 303


def test_a_route_that_says_nothing_of_rights_is_not_made() -> None:
    """Whoever forgets `@needs` finds out when the module is imported."""
    router = APIRouter(route_class=GuardedRoute)
    with pytest.raises(AttributeError, match="needs"):
        router.get("/open")(lambda: None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "console.example.org"])
def test_elsewhere_than_on_loopback_tokens_are_required(host: str) -> None:
    """A pipeline file whose console everybody could use is refused, with the way out."""
    with pytest.raises(ValueError, match="at least one token"):
        Pipeline.model_validate({"pipelineId": "p", "deadLetters": {"console": {"host": host}}})
    token = {"name": "ada", "token": "x" * 20}
    Pipeline.model_validate({"pipelineId": "p", "deadLetters": {"console": {"host": host, "tokens": [token]}}})


def test_tokens_are_long_and_different() -> None:
    """A short token and two of the same are refused; none of them is printed."""
    for tokens, problem in (
        ([{"name": "a", "token": "a-brief-one"}], "too short"),
        ([{"name": n, "token": "t" * 20} for n in "ab"], "same token"),
        ([{"name": "a", "token": t * 20} for t in "ab"], "same name"),
    ):
        with pytest.raises(ValueError, match=problem) as raised:
            Pipeline.model_validate({"pipelineId": "p", "deadLetters": {"console": {"tokens": tokens}}})
        assert not any(token["token"] in str(raised.value) for token in tokens)
