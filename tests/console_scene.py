"""A console over a local index (SQLite, no Kafka), and the dead letters that its tests look at."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi.testclient import TestClient

from dlq.console.app import create_app
from dlq.envelope import Envelope
from dlq.index.filters import LetterFilter
from dlq.index.letters import index_row
from dlq.index.masking import Masker
from dlq.index.writer import IndexWriter
from dlq.kind import Kinds
from dlq.letter import Letter, RawRecord
from dlq.reader import DeadLetter
from dlq.replay.request import Request
from dlq.retention import note_retentions
from dlq.service import DeadLetterIndex, connect_index
from dlq.writing import LetterWriter
from tests.delivered import Record
from tidegate.clock import Clock, ManualClock
from tidegate.config.pipeline import Pipeline
from tidegate.config.queue import DeadLetterConfig
from tidegate.record import Stage, TopicPartition
from tidegate.stages.batch import Reason, Rejection

NOW = 1_700_000_000.0
DLQ = TopicPartition("flights.dlq", 0)
TOKENS = {role: f"token-of-the-{role}-0123456789" for role in ("viewer", "operator", "admin")}
HOST = "127.0.0.1:6062"


def dead(
    offset: int,
    *,
    at: float,
    message: str = "expected bigint, found 'x'",
    error: str = "WrongType",
    stage: Stage = Stage.DECODE,
    rule: str | None = None,
    key: bytes | None = b"N77",
    value: bytes | None = None,
    headers: Sequence[tuple[str, bytes | None]] = (),
    topic: str = "flights",
) -> Record:
    """A dead letter of ours at `offset` of the dead-letter topic, failed `at` (seconds)."""
    if value is None:
        value = json.dumps({"carrier": "UA", "flight": offset, "dep_time": "x", "distance": -offset}).encode()
    reason = Reason(error, message, rule=rule, field="dep_time", found="x")
    raw = RawRecord(TopicPartition(topic, offset % 3), offset, int(at * 1000) - 60_000, key, value, tuple(headers))
    rejection = Rejection(offset, stage, (reason,), stack="Traceback: boom" if stage is Stage.HANDLE else None)
    kinds = Kinds(pipeline="flights", schema="flights@1", now_ms=int(at * 1000))
    k, v, h = LetterWriter(DeadLetterConfig()).record(Letter.of(rejection, raw, kinds))
    return Record(offset, int(at * 1000), k, v, tuple(h))


class Scene:
    """An index, what is written to it, and clients of its console. `settings`: of `deadLetters`, in the file's names."""

    def __init__(self, index: DeadLetterIndex) -> None:
        self.index = index
        self.pipeline = index.pipeline
        self.written: list[DeadLetter] = []
        self.app = create_app(index, "ada")
        self.app.state.live.answer = 0.05  # no Kafka is here, and nobody has to wait for it

    def prepare(self) -> Scene:
        """The index is made, and an agent has just looked."""
        self.index.database.prepare()
        note_retentions(self.index.database, {DLQ.topic: 604_800_000}, self.index.clock)
        return self

    def write(self, *records: Record) -> None:
        masker = Masker(self.pipeline.dead_letters.masking)
        self.written += [_letter(record) for record in records]
        rows = [index_row(record, DLQ, masker) for record in records]
        IndexWriter(self.index.database, self.index.clock).write(DLQ, rows, records[-1].offset)

    def client(self, token: str | None = None, **headers: str) -> TestClient:
        """Somebody who asks; with a bearer token, or as a browser does."""
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return TestClient(self.app, base_url=f"http://{HOST}", headers=headers, follow_redirects=False)

    def browser(self, token: str | None = None) -> Browser:
        """Somebody with a browser, signed in with the token if there is one."""
        browser = Browser(self.client())
        if token is not None:
            assert browser.post("/login", on="/login", token=token).status_code == 303
        return browser

    @property
    def group(self) -> str:
        """The group with most open letters."""
        return str(self.index.reader.groups(limit=1)[0]["fingerprint"])


class Browser:
    """Keeps cookies, and sends forms with the token of the page that they stand on."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def get(self, path: str, **params: Any) -> Any:
        return self.client.get(path, params=params or None)

    def csrf(self, on: str = "/") -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', self.client.get(on).text)
        assert found is not None
        return found[1]

    def post(self, path: str, *, on: str = "/", **fields: Any) -> Any:
        origin = {"origin": f"http://{HOST}"}
        return self.client.post(path, data={"csrf": self.csrf(on), **fields}, headers=origin)


@contextmanager
def scene(folder: Path, *, tokens: bool = False, clock: Clock | None = None, **settings: Any) -> Iterator[Scene]:
    """`tokens`: one of each role."""
    listed = [{"name": role, "role": role, "token": token} for role, token in TOKENS.items()] if tokens else []
    pipeline = Pipeline.model_validate(
        {
            "pipelineId": "flights",
            "kafka": {"bootstrapServers": "127.0.0.1:1"},
            "source": {"topics": ["flights"]},
            "schema": [{"name": "dep_time", "type": "bigint"}, {"name": "distance", "type": "double"}],
            "deadLetters": {
                "index": f"sqlite:///{folder / 'index.sqlite'}",
                "console": {"tokens": listed, **settings.pop("console", {})},
                **settings,
            },
        }
    )
    with connect_index(pipeline, clock=clock or ManualClock(NOW)) as index:
        yield Scene(index)


def _letter(record: Record) -> DeadLetter:
    """As it is read back from its topic."""
    envelope = Envelope.from_record(
        record.key, record.value, list(record.headers), tp=DLQ, offset=record.offset, timestamp=record.timestamp
    )
    return DeadLetter(envelope, DLQ.topic, DLQ.partition, record.offset, record.timestamp)


def page_paths(console: Scene) -> list[str]:
    """A URL of every page."""
    index = console.index
    letter = index.reader.page(LetterFilter(stage=("handle",))).letters[0]
    if not (jobs := index.jobs.newest()):
        jobs = [index.replay(Request(LetterFilter(stage=("handle",)), rate=5), actor="ada")]
        index.lifecycle.acknowledge(console.group, actor="ada", note="looking at it")
    record, group = urlencode({"id": letter["id"]}), urlencode({"group": console.group})
    return [
        "/", "/groups", "/groups?state=resolved", f"/group?{group}", "/search", "/search?text=nothing&key=x",
        f"/record?{record}", f"/record?{record}&view=hex", f"/record/edit?{record}",
        f"/replay?{group}&set=value.distance+%3D+1", f"/park?{group}",
        "/jobs", f"/jobs/{jobs[0].id}", "/pipeline", "/audit", "/login",
    ]  # fmt: skip


def some_failures(now: float = NOW) -> list[Record]:
    """Four kinds of failure over the last day, sixty dead letters."""
    kinds: list[dict[str, Any]] = [
        {"message": "dep_time: expected bigint, found 'x'"},
        {"message": "distance -4 is less than 0", "error": "RuleViolation", "stage": Stage.VALIDATE, "rule": "sane_distance"},
        {"message": "carrier ZZ is unknown", "error": "UnknownCarrier", "stage": Stage.HANDLE},
        {"message": "year is missing", "error": "MissingField"},
    ]  # fmt: skip
    return [
        dead(n, at=now - (60 - n) * 1_400, headers=[("traceparent", b"00-1-2-01")], **kinds[0 if n % 2 else n // 2 % 4])
        for n in range(60)
    ]
