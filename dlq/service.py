"""The service under the shell, the console, the API and replays: one pipeline's index, and the raw record behind a letter.

with open_index(pipeline) as index:
    index.reader.groups(order="impact")
    index.reader.page(LetterFilter(group=("ab12…",), text="departure"))
    index.lifecycle.acknowledge("ab12…", actor="ada", note="looking")
    index.preview(Request(LetterFilter(group=("ab12…",))))      # what a replay would do
    index.replay(request, actor="ada")              # an agent carries it out
    index.reveal(letter, actor="ada", reason="…")   # raw bytes, from the topic, and an entry of the history that says so
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from dlq.document import moment
from dlq.export import entry_document, exported
from dlq.index.database import IndexDatabase, index_location
from dlq.index.history import HistoryFilter
from dlq.index.letters import indexed_id
from dlq.index.lifecycle import Lifecycle
from dlq.index.search import Document, IndexReader
from dlq.reader import DeadLetter, read_one
from dlq.replay.jobs import Job, Jobs
from dlq.replay.request import Request
from dlq.replay.targets import require_allowed
from dlq.s3.archive import Archive
from tidegate.clock import Clock, SystemClock
from tidegate.config.pipeline import Pipeline
from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from dlq.replay.editing import Edit
    from dlq.replay.outgoing import ByHand
    from dlq.replay.preview import Preview

AT_WORK = 90_000
"""Milliseconds: an agent looks at its topics every 30 s."""
SHORTEST_REASON = 3
"""Characters of the reason that somebody gives for seeing what is masked."""


@dataclass(frozen=True, slots=True)
class DeadLetterIndex:
    """One pipeline's index. Safe under threads. `lasts`: it is there when it is opened again, with the same rows."""

    pipeline: Pipeline
    database: IndexDatabase
    reader: IndexReader
    lifecycle: Lifecycle
    jobs: Jobs
    clock: Clock
    lasts: bool = True

    def preview(self, request: Request, by_hand: ByHand | None = None) -> Preview:
        """What a replay would do and come to. Raises as dlq/replay/preview.py does."""
        from dlq.replay.preview import preview  # brings the stages with it, a second of importing

        return preview(self.pipeline, self.database, request, by_hand=by_hand, clock=self.clock)

    def replay(self, request: Request, *, actor: str) -> Job:
        """Make a job of the letters that the request chooses; an agent carries it out. Raises ConfigError when nothing is
        chosen, for a target that is not allowed, and for what could not mend."""
        if request.to is not None:
            require_allowed(self.pipeline, request.to)
        if request.assignments:
            from dlq.replay.mend import Mend

            Mend(self.pipeline, request.assignments).close()
        return self.jobs.create(request, actor=actor)

    def edit(self, letter: Document, edit: Edit, *, actor: str) -> Job:
        """Send one letter as somebody has edited it, from this process. Raises as dlq/replay/editing.py does."""
        from dlq.replay.editing import send  # brings the stages with it

        job = send(self.pipeline, self.jobs, edit, actor=actor, clock=self.clock)
        where = (letter["dlq_topic"], letter["id"])
        self.lifecycle.note(actor, "edit", fingerprint=letter["fingerprint"], letter=where, note=job.id)
        return job

    def describe(self, letter: Document) -> Document:
        """Everything about one letter as JSON, masked: what else is known of it, the replays it was in, its history."""
        known = ("stack", "context", "trace", "truncated", "valueSize", "valueSha256", "timestampType")
        history = self.reader.history(HistoryFilter(id=letter["id"]))
        return {
            **exported(letter),
            "detail": {name: letter["detail"][name] for name in known if name in letter["detail"]},
            "replayed": [
                {**entry, "created_at": moment(entry["created_at"])} for entry in self.jobs.of_letter(letter["letter"])
            ],
            "history": [entry_document(entry) for entry in history],
        }

    def looked(self) -> int | None:
        """When an agent has last looked at the topics, ms; None: never."""
        return max((row["checked_at"] for row in self.reader.topics().values()), default=None)

    def expiring(self) -> list[Document]:
        """Open letters that retention deletes within the pipeline's `deadLetters.expiryWarning`."""
        now = int(self.clock.time() * 1000)
        return self.reader.expiring(now, within=self.pipeline.dead_letters.expiry_warning)

    def reveal(self, letter: Document, *, actor: str, reason: str) -> DeadLetter | None:
        """The dead letter as it stands in its topic, unmasked, else as it stands in S3; None when it is in neither any more.
        Who may is the caller's to decide; that somebody did is in the history before anything is read. Raises
        BrokerUnavailable, BucketUnavailable, StoreUnavailable.
        """
        where = (letter["dlq_topic"], letter["id"])
        self.lifecycle.note(actor, "reveal", fingerprint=letter["fingerprint"], letter=where, note=reason)
        return self.raw(letter)

    def raw(self, letter: Document) -> DeadLetter | None:
        """The same for whoever shows it to nobody: what stands in its place, if another has it now, is not it. Raises as
        `reveal`."""
        found = read_one(self.pipeline.kafka, letter["dlq_topic"], letter["dlq_partition"], letter["dlq_offset"])
        if found is not None and indexed_id(found.envelope.id) == letter["id"]:
            return found
        kept = Archive(self.pipeline, self.database).find(letter["letter"])
        return None if kept is None else kept.letter


@contextmanager
def open_index(pipeline: Pipeline, url: str | None = None, clock: Clock | None = None) -> Iterator[DeadLetterIndex]:
    """The pipeline's index, or the one at `url`. Raises ConfigError when there is none yet, StoreUnavailable."""
    with connect_index(pipeline, url, clock) as index:
        if not index.database.exists():
            raise ConfigError(
                f"{index.database.name} has not been made",
                field="deadLetters.index",
                hint="`tidegate dlq agent PIPELINE` makes it and keeps it up to date",
            )
        yield index


@contextmanager
def open_to_read(pipeline: Pipeline, url: str | None = None, clock: Clock | None = None) -> Iterator[DeadLetterIndex]:
    """The same for whoever only looks: where there is no index, what the topics hold (dlq/makeshift.py). Raises ConfigError,
    StoreUnavailable, BrokerUnavailable."""
    with connect_index(pipeline, url, clock) as index:
        if index.database.exists():
            yield index
            return
    from dlq.makeshift import index_topics

    with (
        TemporaryDirectory(prefix="tidegate-") as folder,
        connect_index(pipeline, f"sqlite:///{folder}/index.sqlite", clock) as index,
    ):
        index.database.prepare()
        index_topics(pipeline, index.database)
        yield replace(index, lasts=False)


@contextmanager
def connect_index(pipeline: Pipeline, url: str | None = None, clock: Clock | None = None) -> Iterator[DeadLetterIndex]:
    """The same, whether it has been made or not: nothing is connected before it is used. Raises ConfigError."""
    clock = clock or SystemClock()
    database = IndexDatabase(index_location(pipeline, url), pipeline.dead_letters)
    try:
        yield DeadLetterIndex(
            pipeline, database, IndexReader(database), Lifecycle(database, clock), Jobs(database, clock), clock
        )
    finally:
        database.close()
