"""Every page in a real Chromium: accessible, in light and dark, on a phone, with keys, without JavaScript, under attack."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from dlq.index.filters import LetterFilter
from dlq.replay.request import Request
from tests.browser.conftest import served
from tests.console_scene import TOKENS, Scene, dead, page_paths, scene
from tidegate.clock import SystemClock

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
SERIOUS = ("serious", "critical")


@pytest.mark.parametrize(
    ("scheme", "size"), [("light", WIDE), ("dark", PHONE)], ids=["light and wide", "dark on a phone"]
)
def test_no_page_shuts_anybody_out(
    console: tuple[str, Scene],
    open_page: Callable[..., Page],
    scheme: str,
    size: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """axe finds nothing serious on any page, and no page is wider than the screen."""
    url, opened = console
    kept = {(one.topic, one.partition, one.offset): one for one in opened.written}
    monkeypatch.setattr("dlq.service.read_one", lambda _, *place: kept[place])  # no Kafka is here
    page = open_page(color_scheme=scheme, viewport=size)
    found: list[str] = []
    for path in page_paths(opened):
        answer = page.goto(url + path)
        assert answer is not None
        assert answer.status == 200, path
        found += serious(page, path)
        excess = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert excess <= 0, f"{path} is {excess} px wider than the screen"
    assert found == []


def serious(page: Page, path: str) -> list[str]:
    """What axe calls serious or critical, with where it is."""
    results = Axe().run(page).response["violations"]
    return [
        f"{path}: {one['id']} {node['target']} {node['failureSummary']}"
        for one in results
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


def test_keys_lead_through_the_pages(console: tuple[str, Scene], open_page: Callable[..., Page]) -> None:
    """`g g` opens the groups, `j` and `k` go through the rows, Enter opens one, `/` is the search."""
    url, _ = console
    page = open_page()
    page.goto(url)
    page.keyboard.press("g")
    page.keyboard.press("g")
    page.wait_for_url("**/groups")
    for key in ("j", "j", "k", "j"):
        page.keyboard.press(key)
    expect(page.locator("tr.here")).to_contain_text("RuleViolation")
    page.keyboard.press("Enter")
    page.wait_for_url("**/group?group=*")
    page.keyboard.press("/")
    page.wait_for_url("**/search")
    page.keyboard.press("/")
    page.keyboard.type("carrier")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="7 dead letters")).to_be_visible()


def test_without_javascript_everything_works(console: tuple[str, Scene], open_page: Callable[..., Page]) -> None:
    """Search, acknowledge, replay, a page that follows its job, and the theme."""
    url, opened = console
    page = open_page(java_script_enabled=False)
    page.goto(f"{url}/search")
    page.get_by_label("Words of the message").fill("carrier")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="Preview and replay").click()
    page.get_by_label("Letters a second").fill("5")
    job = opened.index.replay(Request(LetterFilter(stage=("handle",))), actor="ada")
    page.goto(f"{url}/jobs/{job.id}")
    opened.index.jobs.pause(job.id, actor="bob")
    expect(page.locator("main .badge").first).to_have_text("paused", timeout=10_000)  # the page came again by itself
    page.get_by_role("button", name=re.compile("^Theme")).click()
    assert page.locator("html").get_attribute("data-theme") == "dark"


def test_a_browser_obeys_nothing_that_a_record_says(
    tmp_path: Path, open_page: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts, handlers, markup and direction marks in every place of a record: no dialog, no blocked script, no element."""
    text = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e\"'><svg onload=alert(3)>{{7*7}}"
    with scene(tmp_path, clock=SystemClock()) as opened:
        opened.prepare().write(
            dead(0, at=time.time(), message=text, error=text, rule=text, key=text.encode(), topic=text,
                 value=json.dumps({text: [text]}).encode(), headers=[(text, text.encode())])
        )  # fmt: skip
        monkeypatch.setattr("dlq.service.read_one", lambda *_: opened.written[0])  # no Kafka is here
        group = opened.index.reader.groups()[0]["fingerprint"]
        opened.index.lifecycle.acknowledge(group, actor=text, note=text)
        letter = opened.index.reader.page(LetterFilter()).letters[0]
        record = urlencode({"id": letter["id"]})
        with served(opened.index) as url:
            page = open_page()
            for path in ("/", "/groups", f"/group?{urlencode({'group': group})}", "/search", f"/record?{record}",
                         f"/record?{record}&view=raw", f"/record/edit?{record}", f"/replay?{record}", "/audit"):  # fmt: skip
                page.goto(url + path)
                assert page.locator("main img, main svg[onload], main script").count() == 0, path
                assert "\u202e" not in page.locator("main").inner_text(), path


def test_signing_in(tmp_path: Path, open_page: Callable[..., Page]) -> None:
    """With tokens the first page asks for one, leads back to what was wanted, and shows a viewer nothing to click."""
    with scene(tmp_path, tokens=True, clock=SystemClock()) as opened:
        opened.prepare().write(dead(0, at=time.time()))
        with served(opened.index) as url:
            page = open_page()
            page.goto(f"{url}/search?text=bigint")
            assert serious(page, "/login") == []
            page.get_by_label("Token").fill(TOKENS["viewer"])
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url("**/search?text=bigint")
            expect(page.get_by_role("heading", name="1 dead letter")).to_be_visible()
            expect(page.get_by_role("link", name="Preview and replay")).to_have_count(0)
            page.get_by_role("button", name="Sign out").click()
            page.wait_for_url("**/login")
