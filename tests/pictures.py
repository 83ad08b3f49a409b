"""Pictures of the console: `uv run python -m tests.pictures` takes the README's two anew; with a folder, every page as it is,
light and dark, so that somebody can look at them."""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from playwright.sync_api import Browser

from dlq.index.filters import LetterFilter
from dlq.replay.follow import Again
from dlq.replay.jobs import Chunk
from dlq.replay.outcome import Outcomes
from dlq.replay.request import Request
from tests.browser.conftest import served
from tests.console_scene import Scene, dead, page_paths, scene
from tests.delivered import Record
from tests.providers.chromium import chromium
from tidegate.clock import SystemClock
from tidegate.record import Stage

DOCS = Path(__file__).parents[1] / "docs"
SIZE = {"width": 1100, "height": 760}
_DAY = 86_400.0
_KINDS: tuple[tuple[int, dict[str, Any]], ...] = (
    (18, {"message": "dep_time: expected bigint, found '25:61'"}),
    (10, {"message": "distance -4 is less than 0", "error": "RuleViolation", "stage": Stage.VALIDATE, "rule": "sane_distance"}),
    (7, {"message": "carrier ZZ is unknown to the register", "error": "UnknownCarrier", "stage": Stage.HANDLE}),
    (4, {"message": "year is missing", "error": "MissingField"}),
)  # fmt: skip
"""How often, and how a record fails."""


def failures(now: float) -> list[Record]:
    """430 dead letters of a day, more and more of them."""
    rng, weights = random.Random(7), [weight for weight, _ in _KINDS]
    times = sorted(now - _DAY * 0.9 * (1 - rng.random() ** 0.5) - 300 for _ in range(430))
    trace = (("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)
    letters = []
    for n, at in enumerate(times):
        (kind,) = rng.choices([kind for _, kind in _KINDS], weights)
        flight = {"carrier": "UA", "flight": 1000 + n, "tailnum": "N14228", "origin": "EWR", "dest": "IAH"}
        flight |= {"dep_time": "25:61", "distance": -4, "notes": ["de-iced", None, True]}
        again = (("tidegate.dlq.replays", b"1"),) if n % 3 == 0 else ()
        letters.append(dead(n, at=at, value=json.dumps(flight).encode(), headers=trace + again, **kind))
    return letters


def with_jobs(opened: Scene) -> None:
    """A group somebody looks at, and a job of which some have come back."""
    index, clock = opened.index, SystemClock()
    index.lifecycle.acknowledge(
        index.reader.groups(order="impact", limit=2)[1]["fingerprint"], actor="ada", note="mine"
    )
    request = Request(
        LetterFilter(error=("MissingField",)), assignments=("value.year = 2013",), rate=50, max_failures=0.2
    )
    job = index.jobs.create(request, actor="ada", owner="agent-1:4711")
    outcomes, kinds = Outcomes(index.jobs, clock), {row["id"]: row for row in index.reader.every(request.wanted)}
    results = index.jobs.results(job.id, limit=6)
    found = {
        row["position"]: Again("flights.dlq", f"{row['id']}-again", kinds[row["id"]]["fingerprint"], mended=False)
        for row in results[:5]
    }
    outcomes.came_back(job, found, {})
    chunk = Chunk(1, job.total - 3, {})
    outcomes.sent(job, job.total - 3, chunk)
    outcomes.settled(index.jobs.get(job.id), chunk, "ok", {})


@contextmanager
def _console() -> Iterator[tuple[str, Scene]]:
    with tempfile.TemporaryDirectory() as folder:
        mask = [{"path": "carrier"}]
        with scene(Path(folder), clock=SystemClock(), masking=mask) as opened:
            opened.prepare().write(*failures(time.time()))
            with_jobs(opened)
            kept = {(one.topic, one.partition, one.offset): one for one in opened.written}
            with served(opened.index) as url, patch("dlq.service.read_one", lambda _, *place: kept[place]):
                yield url, opened


def _take(browser: Browser, address: str, scheme: str, file: Path, *, whole: bool) -> None:
    context = browser.new_context(color_scheme=scheme, viewport=SIZE)  # type: ignore[arg-type]  # Playwright's own words
    page = context.new_page()
    page.goto(address)
    page.screenshot(path=file, full_page=whole)
    context.close()


def main(arguments: list[str]) -> None:
    members = [{"client": f"flights-{n}", "host": f"10.0.0.{n}", "partitions": 3} for n in (1, 2)]
    workers = patch(
        "dlq.console.live.Live._group", lambda *_: {"state": "stable", "members": members}
    )  # no Kafka is here
    with workers, _console() as (url, opened), chromium() as browser:
        record = next(path for path in page_paths(opened) if path.startswith("/record?"))
        if not arguments:
            _take(browser, url, "light", DOCS / "console-overview.png", whole=False)
            _take(browser, url + record, "dark", DOCS / "console-record.png", whole=False)
            return
        folder = Path(arguments[0])
        folder.mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(page_paths(opened)):
            name = "".join(c if c.isalnum() else "-" for c in path.partition("?")[0]).strip("-") or "overview"
            for scheme in ("light", "dark"):
                _take(browser, url + path, scheme, folder / f"{number:02}-{name}-{scheme}.png", whole=True)


if __name__ == "__main__":
    main(sys.argv[1:])
