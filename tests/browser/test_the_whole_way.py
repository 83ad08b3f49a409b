"""From a failure to a closed group, by clicking: real Kafka, a real index, the agent that carries replays out, Chromium."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect

from dlq.replay.agent import ReplayAgent
from dlq.retention import note_retentions
from tests.browser.conftest import served
from tests.contract.replay_scene import ReplayScene
from tests.harness import Message

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.xdist_group("browser")]


def too_much(message: Message) -> bool:
    """What the pipeline's rule refuses."""
    return b'"n":500' in (message.value or b"").replace(b" ", b"")


@contextmanager
def at_work(replays: ReplayScene) -> Iterator[None]:
    """The agent carries out jobs, and the pipeline's worker reads what they send."""
    agent = ReplayAgent(replays.pipeline, replays.index.database)
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.1):
            replays.work(too_much)

    worker = threading.Thread(target=work)
    agent.start()
    worker.start()
    try:
        yield
    finally:
        stopping.set()
        worker.join()
        agent.stop()


def test_mended_replayed_and_closed(make_replays: Callable[..., ReplayScene], open_page: Callable[..., Page]) -> None:
    """Fourteen records have 500 where 100 is the most. Somebody acknowledges the group, writes one expression, sees that all
    would pass and what changes, replays them by canary, and the group is resolved with a history that says who did what."""
    replays = make_replays()
    replays.letters(range(14), value=b'{"n": 500, "card": "4111"}')
    note_retentions(replays.index.database, {replays.dlq: None}, replays.index.clock)
    with served(replays.index) as url, at_work(replays):
        page = open_page()
        page.goto(url)
        expect(page.locator(".tile").first).to_contain_text("14")
        page.get_by_role("link", name="RuleViolation").first.click()
        page.get_by_label("Note on who is looking").fill("Ada is looking")
        page.get_by_role("button", name="Acknowledge").click()
        expect(page.locator("main .badge").first).to_have_text("acknowledged")

        page.get_by_role("link", name="Preview and replay").click()
        page.get_by_role("button", name="Preview").click()
        expect(page.get_by_label("Preview", exact=True)).to_contain_text("0 of 14")
        page.get_by_label("Assignments in SQL").fill("value.n = least(n, 100)")
        page.get_by_role("button", name="Preview").click()
        preview = page.get_by_label("Preview", exact=True)
        expect(preview).to_contain_text("14 of 14")
        expect(preview.locator("del").first).to_have_text("500")
        expect(preview.locator("ins").first).to_have_text("100")

        page.get_by_role("button", name="Replay 14").click()
        expect(page.get_by_role("heading", name="Job")).to_be_visible()
        expect(page.locator("main .badge").first).to_have_text("done", timeout=60_000)  # by itself: the page follows it
        expect(page.locator(".tile", has_text="ok")).to_contain_text("14")

        page.get_by_role("link", name="Groups").first.click()
        expect(page.get_by_role("heading", name="Nothing to do")).to_be_visible()
        page.get_by_role("link", name="Show resolved groups").click()
        page.get_by_role("link", name="RuleViolation").first.click()
        expect(page.locator("main .badge").first).to_have_text("resolved")
        expect(page.locator(".history")).to_contain_text("Ada is looking")
    assert all(b'"n":100' in (message.value or b"") for message in replays.read(replays.source))
    assert replays.open() == 0


def test_what_is_masked_is_revealed_with_a_reason(
    make_replays: Callable[..., ReplayScene], open_page: Callable[..., Page]
) -> None:
    """The record's page shows the mask; the raw value comes from the topic once somebody says why, and that is on record."""
    replays = make_replays(masking=[{"path": "card"}])
    replays.letters([7], value=b'{"n": 500, "card": "4111-secret"}')
    with served(replays.index) as url:
        page = open_page()
        page.goto(f"{url}/search")
        page.get_by_role("link", name=replays.id_of(7)).click()
        value = page.get_by_label("Value", exact=True)
        expect(value).to_contain_text('"card": "***"')
        assert "4111-secret" not in page.content()
        page.get_by_text("The raw record, from the topic").click()
        page.get_by_label("Reason, for the audit log").fill("ticket 4711")
        page.get_by_role("button", name="Reveal").click()
        expect(value).to_contain_text('"card": "4111-secret"')
        with page.expect_download() as download:
            page.get_by_role("button", name="Download").click()
        assert download.value.path().read_bytes() == b'{"n": 500, "card": "4111-secret"}'
        page.goto(f"{url}/audit?action=reveal")
        expect(page.locator("tbody tr")).to_have_count(2)
        expect(page.locator("tbody tr").first).to_contain_text("ticket 4711")


def test_one_record_edited_by_hand(make_replays: Callable[..., ReplayScene], open_page: Callable[..., Page]) -> None:
    """Without JavaScript: somebody opens the record, sees the mask and the schema, is told that 400 would fail again, writes 7,
    sees the difference and sends it. What was masked is sent as it was; the record's history says who edited it."""
    replays = make_replays(masking=[{"path": "card"}])
    replays.letters([7], value=b'{"n": 500, "card": "4111-secret"}')
    with served(replays.index) as url, at_work(replays):
        page = open_page(java_script_enabled=False)
        page.goto(f"{url}/search")
        page.get_by_role("link", name=replays.id_of(7)).click()
        page.get_by_role("link", name="Edit by hand").click()
        value = page.get_by_label("Value")
        expect(value).to_have_value('{\n  "n": 500,\n  "card": "***"\n}')
        expect(page.locator("tr", has_text="bigint")).to_contain_text("n")
        for number, verdict in (("400", "fails again"), ("7", "passes now")):
            value.fill(value.input_value().replace("500", number).replace("400", number))
            expect(page.get_by_role("button", name="Send")).to_have_count(0)
            page.get_by_role("button", name="Check").click()
            expect(page.locator("#preview .badge")).to_have_text(verdict)
            expect(page.locator("#preview ins")).to_have_text(number)
            assert "4111-secret" not in page.content()
        page.get_by_role("button", name="Send").click()
        expect(page.locator("main .badge").first).to_have_text("done", timeout=60_000)  # the page comes again by itself
        page.goto(f"{url}/record?id={replays.id_of(7)}")
        expect(page.locator(".history")).to_contain_text("edit")
    (sent,) = replays.read(replays.source)
    assert sent.value == b'{"n":7,"card":"4111-secret"}'
    assert sent.header("tidegate.replay.edited") == "value"
    assert replays.open() == 0
