"""The pages, as a browser without JavaScript sees them."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from dlq.index.filters import LetterFilter
from dlq.replay.request import Request
from tests.console_scene import NOW, TOKENS, Scene, dead, scene, some_failures
from tidegate.clock import ManualClock

PAGES = (
    "/",
    "/groups",
    "/groups?state=all&order=newest",
    "/search",
    "/jobs",
    "/audit",
    "/replay",
    "/park",
    "/park?act=unpark",
)


def test_every_page_of_an_empty_index_says_what_to_expect(tmp_path: Path) -> None:
    """Nothing has failed yet: no page is an empty table."""
    with scene(tmp_path) as console:
        browser = console.prepare().browser()
        for path in PAGES:
            page = browser.get(path)
            assert page.status_code == 200, path
            assert "<tbody>\n  </tbody>" not in page.text
        assert "Nothing has failed" in browser.get("/").text
        assert "No replays yet" in browser.get("/jobs").text


def test_without_an_index_there_is_a_first_page(tmp_path: Path) -> None:
    """Before any agent has run, every page says how to start one; the API answers 503; and it works once the index is there."""
    with scene(tmp_path) as console:
        browser = console.browser()
        for path in PAGES:
            assert "tidegate dlq agent" in browser.get(path).text
        assert console.client().get("/api/groups").status_code == 503
        console.prepare()
        assert "Nothing has failed" in browser.get("/").text


def test_no_agent_at_work_is_said(tmp_path: Path) -> None:
    """When nobody has looked at the topics for two minutes, the overview warns."""
    clock = ManualClock(NOW)
    with scene(tmp_path, clock=clock) as console:
        browser = console.prepare().browser()
        assert "No agent is at work" not in browser.get("/").text
        clock.advance(120)
        assert "No agent is at work" in browser.get("/").text


def test_the_overview_says_whether_workers_are_at_work(console: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Kafka's group coordinator knows them; a Kafka that does not answer holds up neither the page nor the API."""
    said: list[dict[str, Any]] = [
        {"state": "stable", "members": [{"client": "w-1", "host": "10.0.0.1", "partitions": 3}]}
    ]
    monkeypatch.setattr("dlq.console.live.Live._group", lambda live, problems: said[-1])
    browser, live = console.browser(), console.app.state.live
    assert "<strong>1 at work</strong><span>workers</span>" in browser.get("/").text
    assert browser.get("/api/overview").json()["workers"] == said[0]
    said.append({"state": "empty", "members": []})
    live.clock.advance(5)
    live.workers()
    live._looking.join(10)
    assert "nobody reads the source" in browser.get("/").text
    answer = threading.Event()
    monkeypatch.setattr("dlq.console.live.Live._group", lambda live, problems: answer.wait(20) and said[0])
    live._workers = None
    live.clock.advance(5)
    assert "Kafka has not said yet" in browser.get("/").text
    assert browser.get("/api/overview").json()["workers"] is None
    answer.set()
    live._looking.join(10)
    assert "<strong>1 at work</strong><span>workers</span>" in browser.get("/").text


def test_overview_and_group_lead_from_impact_to_record(console: Scene) -> None:
    """The group with most open letters comes first; its page has its facets, its chart, and its newest letters."""
    overview = console.browser().get("/").text
    assert re.search(r"<strong>60</strong>\s*<span>open dead letters", overview)
    assert overview.index("WrongType") < overview.index("RuleViolation")
    group = console.browser().get("/group", group=console.group).text
    assert "flights@1 <small>38</small>" in group
    assert len(re.findall(r"<rect ", group)) > 10
    assert "/record?id=flights-2-59" in group


def test_a_filter_stands_in_the_url(console: Scene) -> None:
    """A search is a URL: what was asked for stands in the form again, and in the links to export and replay."""
    page = console.browser().get("/search?text=carrier&stage=handle&since=2+days").text
    assert "7 dead letters" in page
    assert 'value="carrier"' in page
    assert '<option value="handle" selected>' in page
    assert "/replay?stage=handle&amp;since=2+days&amp;text=carrier" in page
    assert "/api/export/letters?stage=handle&amp;since=2+days&amp;text=carrier&amp;format=csv" in page


def test_pages_follow_each_other_without_gaps(console: Scene) -> None:
    """By "Next page" everything is seen once: letters, groups, jobs and the audit log."""
    for n in range(12):
        job = console.index.jobs.create(_request(f"flights-{n % 3}-{n}"), actor="ada")
        console.index.lifecycle.note("ada", "seen", note=job.id)
    for path, link, number in (
        ("/search?limit=7", r'"/record\?id=([^"&]+)', 60),
        ("/groups?limit=1", r'"/group\?group=([^"&]+)', 4),
        ("/jobs?limit=5", r'<a href="/jobs/([0-9a-f]+)"><code>', 12),
        ("/audit?limit=5", r'(?:/jobs/|data-label="Note">)([0-9a-f]{8})', 24),
    ):
        seen: list[str] = []
        url: str | None = path
        while url:
            page = console.browser().get(url).text
            seen += re.findall(link, page)
            following = re.search(r'rel="next" href="([^"]+)"', page)
            url = following and f"{following[1].replace('&amp;', '&')}&{path.partition('?')[2]}"
        assert len(seen) == number, path
        assert len(set(seen)) == min(number, 12) or "audit" not in path


def test_acknowledge_and_resolve(console: Scene) -> None:
    """Both are a button with a note; the group's page shows who did what, and the state."""
    browser, group = console.browser(), console.group
    browser.post("/group/acknowledge", group=group, note="looking <b>")
    page = browser.get("/group", group=group).text
    assert "badge acknowledged" in page
    assert "looking &lt;b&gt;" in page
    browser.post("/group/resolve", group=group, note="mended in 1.4")
    page = browser.get("/group", group=group).text
    assert "badge resolved" in page
    assert "mended in 1.4" in page
    assert (entry := console.index.reader.history()[0])["actor"] == "ada"
    assert entry["detail"] == {"letters": 38}


def test_set_aside_and_open_again(console: Scene) -> None:
    """Parking says first how many it would be, and can be undone."""
    browser = console.browser()
    assert "<strong>7</strong> open dead letters are set aside" in browser.get("/park?stage=handle").text
    browser.post("/park", stage="handle", note="tests")
    assert console.index.reader.count(LetterFilter(state=("parked",))).number == 7
    assert "<strong>7</strong> dead letters are opened again" in browser.get("/park?stage=handle&act=unpark").text
    browser.post("/park", stage="handle", act="unpark")
    assert console.index.reader.count(LetterFilter(state=("open",))).number == 60


def test_replay_from_a_form(console: Scene) -> None:
    """The form makes a job with all that it says, and shows it; pause, resume and cancel are buttons there."""
    browser = console.browser()
    answer = browser.post(
        "/replay", stage="handle", set="value.distance = abs(distance)\n\n", to="flights", canary="yes", rate="50",
        max_failures="0.5",
    )  # fmt: skip
    assert answer.status_code == 303, answer.text
    job = console.index.jobs.newest()[0]
    assert answer.headers["location"] == f"/jobs/{job.id}"
    assert (job.total, job.actor, job.request.assignments) == (7, "ada", ("value.distance = abs(distance)",))
    assert (job.request.to, job.request.rate, job.request.canary, job.request.max_failures) == (
        "flights",
        50,
        True,
        0.5,
    )
    page = browser.get(f"/jobs/{job.id}").text
    assert "No agent has taken it yet" in page
    assert 'http-equiv="refresh"' in page
    for act, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        assert browser.post(f"/jobs/{job.id}/{act}").status_code == 303
        assert f"badge {state}" in browser.get(f"/jobs/{job.id}").text
    assert 'http-equiv="refresh"' not in browser.get(f"/jobs/{job.id}").text
    actions = [entry["action"] for entry in console.index.reader.history()]
    assert actions[:4] == ["replay cancelling", "replay running", "replay paused", "replay"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"set": "value.distance = now()"}, "set value.distance"),
        ({"set": "distance"}, "not an assignment"),
        ({"to": "elsewhere"}, "may not be replayed to this topic"),
        ({"stage": "sink"}, "no dead letter is chosen"),
        ({"state": "resolved"}, "only open dead letters are replayed"),
        ({"since": "yesterday-ish"}, "not a time"),
        ({"rate": "fast"}, "rate"),
    ],
)  # fmt: skip
def test_what_cannot_be_replayed_is_said_beside_the_form(console: Scene, given: dict[str, str], said: str) -> None:
    """A mistake names the field and the way out; what was typed is still there; no job is made."""
    page = console.browser().post("/replay", **given)
    assert page.status_code in (400, 422)
    assert said in page.text
    assert console.index.jobs.newest() == []
    for name, value in given.items():
        if name in ("set", "to"):
            assert value in page.text


def test_what_does_not_exist_is_said(console: Scene) -> None:
    """An unknown group, record or job, an unknown page and a misspelt filter: an error page with the way out."""
    browser = console.browser()
    for path, status in (
        ("/group?group=nope", 404), ("/record?id=nope", 404), ("/jobs/ffff", 404), ("/nothing", 404),
        ("/search?grupo=x", 422), ("/search?state=broken", 422), ("/search?after=zzz", 400), ("/groups?after=zzz", 400),
        ("/search?since=never", 400), ("/search?text=%00", 422), ("/jobs?before=ffff", 404),
    ):  # fmt: skip
        page = browser.get(path)
        assert page.status_code == status, (path, page.text)
        assert 'role="alert"' in page.text


def test_a_database_that_is_away_is_said(console: Scene) -> None:
    """The page says that something is away, not that the console is broken."""
    console.browser().get("/")
    for file in Path(str(console.index.database.file)).parent.glob("index.sqlite*"):
        file.write_bytes(b"this is no database")
    page = console.browser().get("/groups")
    assert page.status_code in (400, 503)
    assert 'role="alert"' in page.text


def test_what_a_role_may_not_do_is_not_offered(guarded: Scene) -> None:
    """A viewer's pages have no buttons that would be refused; an operator's none for what is masked."""
    group = guarded.group
    viewer, operator, admin = (guarded.browser(TOKENS[role]) for role in ("viewer", "operator", "admin"))
    assert "Acknowledge" not in viewer.get("/group", group=group).text
    assert "Preview and replay" not in viewer.get("/search").text
    assert "Acknowledge" in operator.get("/group", group=group).text
    assert "/record/reveal" not in operator.get("/record?id=flights-2-59").text
    assert 'href="/audit"' not in operator.get("/").text
    assert "/record/reveal" in admin.get("/record?id=flights-2-59").text
    assert 'href="/audit"' in admin.get("/").text


def test_the_theme_is_remembered(console: Scene) -> None:
    """Without JavaScript: a form, a cookie, an attribute."""
    browser = console.browser()
    assert 'data-theme="auto"' in browser.get("/").text
    assert browser.post("/theme", theme="dark", next="/groups").headers["location"] == "/groups"
    assert 'data-theme="dark"' in browser.get("/").text
    browser.post("/theme", theme="auto")
    assert 'data-theme="auto"' in browser.get("/").text


def test_only_an_open_record_is_edited(console: Scene) -> None:
    """An open one has the link; of one that is closed the form says what it is, on the page and in the API."""
    browser = console.browser()
    assert "/record/edit?id=flights-2-59" in browser.get("/record?id=flights-2-59").text
    browser.post("/park", id="flights-2-59")
    assert "/record/edit" not in browser.get("/record?id=flights-2-59").text
    for answer in (
        browser.get("/record/edit?id=flights-2-59"),
        console.client().get("/api/letter/editable?id=flights-2-59"),
    ):
        assert answer.status_code == 400
        assert "the dead letter is parked" in answer.text
    assert browser.get("/record/edit?id=nothing").status_code == 404


def test_another_record_in_its_place_is_not_edited_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the topic was made anew, another stands there: with that one's content the letter would be sent."""
    with scene(tmp_path) as console:
        console.prepare().write(dead(0, at=NOW), dead(1, at=NOW))
        own, other = console.written
        edit = {"id": own.envelope.id, "value": '{"n": 1}'}
        for there, status in ((own, 200), (other, 400)):
            monkeypatch.setattr("dlq.service.read_one", lambda *_, there=there: there)
            assert console.client().get("/api/letter/editable", params={"id": edit["id"]}).status_code == status
        answer = console.client().post("/api/letters/edit", json=edit)
        assert answer.status_code == 400
        assert "its record is not in the topic any more" in answer.text


def test_an_expiring_group_warns(tmp_path: Path) -> None:
    """What retention deletes within two days stands on the overview and on the group's page."""
    with scene(tmp_path) as console:
        console.prepare().write(dead(0, at=NOW - 6 * 86_400), dead(1, at=NOW, message="other", error="Other"))
        assert "Before it is too late" in console.browser().get("/").text
        old = next(row["fingerprint"] for row in console.index.reader.groups() if row["error_type"] == "WrongType")
        assert "1 dead letters of this group expire" in console.browser().get("/group", group=old).text


def test_the_chart_covers_the_period(tmp_path: Path) -> None:
    """A day in half hours, a week and a month: each letter is in one bar of those that its age allows."""
    with scene(tmp_path) as console:
        console.prepare().write(*some_failures(NOW), dead(60, at=NOW - 3 * 86_400), dead(61, at=NOW - 20 * 86_400))
        desk = console.app.state.desk
        for period, bars, number in (("24h", 48, 60), ("7d", 42, 61), ("30d", 30, 62)):
            rates = desk.bars(period)
            assert (len(rates), sum(rate["letters"] for rate in rates)) == (bars, number), period


def _request(id: str) -> Request:
    return Request(LetterFilter(id=(id,)))
