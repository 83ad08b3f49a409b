from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page

from dlq.console.app import create_app
from dlq.service import DeadLetterIndex
from tests.console_scene import Scene, scene, some_failures
from tests.contract.replay_scene import ReplayScene, replay_scene
from tests.harness import wait_until
from tests.providers.chromium import chromium
from tests.providers.kafka import KafkaTopics
from tidegate.clock import SystemClock

_BAD = ("error", "warning")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium. Not for longer: as long as it runs Playwright has an event loop in this thread, and no other test can."""
    with chromium() as started:
        yield started


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`open_page(**settings)`: a page of a context of its own. What a page says to its console, and every dialog, fails the
    test: a blocked script or style is a mistake of ours."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_(**settings: object) -> Page:
        context = browser.new_context(**settings)  # type: ignore[arg-type]  # Playwright's own keywords, passed on
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type in _BAD else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss())[0])
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


@contextmanager
def served(index: DeadLetterIndex) -> Iterator[str]:
    """The URL of a console in a thread of its own."""
    app = create_app(index, "ada")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, 20, "the console answers")
        port = server.servers[0].sockets[0].getsockname()[1]
        app.state.gate.listens_on(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def make_replays(kafka: KafkaTopics, tmp_path: Path) -> Iterator[Callable[..., ReplayScene]]:
    """`make_replays(**settings)`: topics of its own and an index of its own."""
    url = f"sqlite:///{tmp_path / 'index.sqlite'}"
    with ExitStack() as scenes:
        yield lambda **settings: scenes.enter_context(replay_scene(kafka, url, **settings))


@pytest.fixture
def console(tmp_path: Path) -> Iterator[tuple[str, Scene]]:
    """The URL of a console over sixty dead letters in a local index, and its scene."""
    with ExitStack() as stack:
        opened = stack.enter_context(scene(tmp_path, clock=SystemClock())).prepare()
        opened.write(*some_failures(time.time()))
        yield stack.enter_context(served(opened.index)), opened
