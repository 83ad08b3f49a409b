"""The service under the shell, the console, the API and replays: one pipeline's index, and the raw record behind a letter.

with open_index(pipeline) as index:
    index.reader.groups(order="impact")
    index.reader.page(LetterFilter(group=("ab12…",), text="departure"))
    index.lifecycle.acknowledge("ab12…", actor="ada", note="looking")
    index.preview(Request(LetterFilter(group=("ab12…",))))      # what a replay would do
    index.jobs.create(request, actor="ada")         # an agent carries it out
    index.reveal(letter)                            # raw bytes, from the topic; who may is the caller's to decide
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dlq.index.database import IndexDatabase, index_location
from dlq.index.lifecycle import Lifecycle
from dlq.index.search import Document, IndexReader
from dlq.reader import DeadLetter, read_one
from dlq.replay.jobs import Jobs
from dlq.replay.outgoing import ByHand
from dlq.replay.preview import Preview, preview
from dlq.replay.request import Request
from tidegate.clock import Clock, SystemClock
from tidegate.config.pipeline import Pipeline
from tidegate.errors import ConfigError


@dataclass(frozen=True, slots=True)
class DeadLetterIndex:
    """One pipeline's index. Safe under threads."""

    pipeline: Pipeline
    database: IndexDatabase
    reader: IndexReader
    lifecycle: Lifecycle
    jobs: Jobs
    clock: Clock

    def preview(self, request: Request, by_hand: ByHand | None = None) -> Preview:
        """What a replay would do and come to. Raises as dlq/replay/preview.py does."""
        return preview(self.pipeline, self.database, request, by_hand=by_hand, clock=self.clock)

    def expiring(self) -> list[Document]:
        """Open letters that retention deletes within the pipeline's `deadLetters.expiryWarning`."""
        now = int(self.clock.time() * 1000)
        return self.reader.expiring(now, within=self.pipeline.dead_letters.expiry_warning)

    def reveal(self, letter: Document) -> DeadLetter | None:
        """The dead letter as it stands in its topic, unmasked; None when retention has deleted it.

        Raises BrokerUnavailable.
        """
        return read_one(self.pipeline.kafka, letter["dlq_topic"], letter["dlq_partition"], letter["dlq_offset"])


@contextmanager
def open_index(pipeline: Pipeline, url: str | None = None, clock: Clock | None = None) -> Iterator[DeadLetterIndex]:
    """The pipeline's index, or the one at `url`. Raises ConfigError when there is none yet, StoreUnavailable."""
    clock = clock or SystemClock()
    database = IndexDatabase(index_location(pipeline, url), pipeline.dead_letters)
    try:
        if not database.exists():
            raise ConfigError(
                f"{database.name} has not been made",
                field="deadLetters.index",
                hint="`tidegate dlq agent PIPELINE` makes it and keeps it up to date",
            )
        yield DeadLetterIndex(
            pipeline, database, IndexReader(database), Lifecycle(database, clock), Jobs(database, clock), clock
        )
    finally:
        database.close()
