"""A replay job at work, in turns: whoever holds its lease calls `turn` until it is over. A SIGKILL between any two lines
repeats reading and asking, never sending (dlq/replay/sender.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from dlq.replay.choice import first_topic, next_chosen
from dlq.replay.follow import Passed, WayBack
from dlq.replay.jobs import (
    CANCELLING,
    FORGOTTEN,
    IN_SPITE,
    RUNNING,
    SENDS_AGAIN,
    SENT_AGAIN,
    STOPPED,
    TOO_MANY,
    Bounds,
    Chunk,
    Job,
    Jobs,
)
from dlq.replay.mend import Mend
from dlq.replay.names import FAILED, GONE, OK, SENT
from dlq.replay.outcome import Outcomes
from dlq.replay.outgoing import ByHand, Preparer, cut
from dlq.replay.raw import RawReader
from dlq.replay.sender import Sender, forget_progress
from dlq.replay.targets import Targets
from dlq.s3.archive import Archive
from tidegate.clock import Clock, SystemClock
from tidegate.config.pipeline import Pipeline
from tidegate.config.topics import indexed_topics
from tidegate.errors import BrokerUnavailable

log = structlog.get_logger(__name__)
_CHUNK = 4_000  # letters in a transaction at most
_AHEAD = 50  # chunks sent and not settled at most: a pipeline that is away is not buried
_CANARY = (1, 11)  # letters whose outcome is known before the next step is taken
_ENOUGH = 100  # known outcomes before their ratio says something, without a canary
_LOOK = 0.2  # seconds between looks at what came back
_UNINDEXED = 15.0  # seconds that the end of a job waits for the index to have the newer letters


class Run:
    """One job in the hands of one agent. One thread. `count`: is told of outcomes, and how many letters have each."""

    def __init__(
        self,
        pipeline: Pipeline,
        jobs: Jobs,
        job: Job,
        *,
        by_hand: ByHand | None = None,
        clock: Clock | None = None,
        count: Callable[[str, int], None] = lambda outcome, letters: None,
    ) -> None:
        """Raises ConfigError when the request cannot be carried out (any more), BrokerUnavailable."""
        self.job, self._pipeline, self._jobs = job, pipeline, jobs
        self._clock, self._count = clock or SystemClock(), count
        self._outcomes = Outcomes(jobs, self._clock)
        request = job.request
        self._targets = Targets(pipeline, request.to)
        self._mend = Mend(pipeline, request.assignments) if request.assignments else None
        hand = (by_hand or ByHand()) if request.by_hand else None
        limit = pipeline.dead_letters.max_replays
        self._preparer = Preparer(self._targets, limit, job=job.id, mend=self._mend, by_hand=hand)
        self._raw = RawReader(pipeline.kafka, Archive(pipeline, jobs.database))
        self._back = WayBack(pipeline.kafka, indexed_topics(pipeline), job.id, self._targets, self._clock)
        self._tail = self._back.tail
        self._sender: Sender | None = None
        self._outcome_counts: dict[str, int] | None = None
        self._not_before = 0.0
        self._idle_since: float | None = None

    def turn(self) -> float | None:
        """One step. Returns after how many seconds the next is due; None when there is nothing (more) to do.

        1. lease    prolong it, and see what people want
        2. recover  what an earlier owner has sent and had no time to write down; stop where Kafka has forgotten it
        3. follow   read what came back; settle what has passed
        4. stop     when too many fail again
        5. send     the next chunk, if it is time
        6. end      when everything has an outcome

        Raises LeaseLost, ConfigError, BrokerUnavailable, StoreUnavailable.
        """
        self.job = self._jobs.renew(self.job)
        if self.job.finished:
            return None
        sender = self._recovered()
        self._begin()
        settled = self._follow()
        if self.job.state == CANCELLING:
            self._outcomes.cancel_rest(self.job)
        elif self.job.state == RUNNING and (reason := self._too_many_failures() or self._forgotten(sender)):
            self._stop(reason)
            return 0.0
        sent = self.job.state == RUNNING and self._send_next(sender)
        if sent or settled:
            return 0.0
        return None if self._has_ended() else _LOOK

    def close(self) -> None:
        for part in (self._raw, self._back, self._sender, self._mend):
            if part is not None:
                part.close()

    def _stop(self, reason: str) -> None:
        log.warning("replay.stopped", job=self.job.id, reason=reason)
        self._outcomes.turned(self.job, STOPPED, reason)
        self.job = replace(self.job, state=STOPPED, reason=reason)

    def _begin(self) -> None:
        """The reading of what comes back starts where the topics end before anything is sent."""
        if self._tail.next:
            return
        if not self.job.follow:
            self._outcomes.begun(self.job, self._tail.ends())
            self.job = self._jobs.renew(self.job)
        self._tail.start(self.job.follow)

    def _recovered(self) -> Sender:
        if self._sender is None:
            anchor = first_topic(self._jobs.database, self.job.id)
            kafka, targets = self._pipeline.kafka, self._targets
            self._sender = Sender(kafka, self.job.id, anchor, max_bytes=targets.max_bytes, others=targets.topics)
        # An earlier owner's, or this one's when the database went away just then.
        if self._sender.position > self.job.sent:
            log.info("replay.recovered", job=self.job.id, upto=self._sender.position, known=self.job.sent)
            self._sent(self._sender.position, self._sender.bounds)
        may_begin = not (self.job.follow or self.job.sent) or self.job.reason.startswith(SENDS_AGAIN)
        if not self._sender.known:
            self._doubt(again=may_begin)
        if not self._sender.known and may_begin:
            try:
                self._sender.make_known()
            except BaseException:
                self._sender = None
                raise
        if self.job.reason.startswith(SENDS_AGAIN):
            reason = self.job.reason.replace(SENDS_AGAIN, SENT_AGAIN)
            self._outcomes.sends_again(self.job, reason)
            self.job = replace(self.job, reason=reason)
        return self._sender

    def _doubt(self, *, again: bool) -> None:
        """Kafka knows nothing of the job: note which letters may have been sent, and what is known of those. `again`: even if
        that was done before; the index has more now."""
        upto = min(self.job.sent + _CHUNK, self.job.total)
        if (self.job.follow or self.job.sent) and self.job.sent < upto and (again or self.job.doubtful < upto):
            for outcome, letters in self._outcomes.doubted(self.job, upto).items():
                self._counted(outcome, letters)
            self.job = replace(self.job, doubtful=upto)

    def _forgotten(self, sender: Sender) -> str | None:
        """Why the job cannot go on by itself: an earlier owner may have sent a chunk of which nobody knows any more."""
        if sender.known or self.job.sent >= self.job.total:
            return None
        return (
            f"{FORGOTTEN} (offsets.retention.minutes): letters {self.job.sent + 1} to {self.job.doubtful} may have been sent or "
            "not. Resumed, it sends them: this pipeline counts each once, other programs may get it twice"
        )

    # Sending

    def _send_next(self, sender: Sender) -> bool:
        """Whether the job has come on."""
        most = self._how_many()
        if not most:
            return False
        self._targets.require_there()
        chosen = next_chosen(self._jobs.database, self.job.id, self.job.sent, _CHUNK)
        if not chosen:  # these have been decided already
            self._sent(min(self.job.sent + _CHUNK, self.job.total), {})
            return True
        letters = self._raw.fetch(chosen)
        chosen = chosen[: len(letters)]
        outgoing, unsent, upto = cut(*self._preparer.prepare(chosen, letters), chosen[-1].position, most)
        self._outcomes.unsent(self.job, unsent)
        for one in unsent:
            self._counted(one.outcome, 1)
        bounds: Bounds = {}
        if outgoing:
            try:
                sender.send(outgoing, upto)
            except BaseException as error:
                self._sender = None
                if isinstance(error, BrokerUnavailable):
                    self._back.require_there({record.target.topic for record in outgoing})
                raise
            bounds = sender.bounds
        self._sent(upto, bounds)
        if self.job.request.rate is not None:
            begun = max(self._not_before, self._clock.monotonic() - _LOOK)
            self._not_before = begun + len(outgoing) / self.job.request.rate
        return True

    def _sent(self, upto: int, bounds: Bounds) -> None:
        chunk = Chunk(self.job.sent + 1, upto, bounds) if bounds else None
        self._outcomes.sent(self.job, upto, chunk)
        chunks = self.job.chunks if chunk is None else (*self.job.chunks, chunk)
        self.job = replace(self.job, sent=upto, chunks=chunks)

    def _how_many(self) -> int:
        """How many letters may be sent now."""
        job = self.job
        if job.sent >= job.total or len(job.chunks) >= _AHEAD or self._clock.monotonic() < self._not_before:
            return 0
        most = _CHUNK if job.request.rate is None else max(1, min(_CHUNK, job.request.rate // 4))
        if job.request.canary:
            known = self._known()
            step = next((upto for upto in _CANARY if known < upto), None)
            if step is not None:
                return 0 if job.chunks else min(most, step - known)
        return most

    # The way back

    def _follow(self) -> bool:
        """Whether a chunk was settled."""
        if not self.job.chunks:
            return False
        passed = self._back.read()
        # Anybody can write the header: what cannot have been sent cannot have come back.
        sent = max(self.job.sent, self.job.doubtful)
        if found := {at: again for at, again in self._tail.take().items() if at <= sent}:
            for outcome, letters in self._outcomes.came_back(self.job, found, self._tail.next).items():
                self._counted(outcome, letters)
        passed = passed or self._back.look(self.job.chunks[0])
        if passed is None:
            return False
        self._settle(passed)
        return True

    def _settle(self, passed: Passed) -> None:
        chunk, deleted = passed.chunk, passed.deleted
        counts = self._outcomes.settled(self.job, chunk, passed.outcome, self._tail.next, deleted)
        for outcome, letters in counts.items():
            self._counted(outcome, letters)
        self.job = replace(self.job, chunks=tuple(other for other in self.job.chunks if other != chunk))
        if counts[GONE] and self.job.state == RUNNING:
            self._stop(
                f"{' and '.join(map(repr, sorted(deleted)))} was deleted before what was sent to it was known to be read: those "
                "letters stay open (outcome gone) and can be replayed elsewhere (--to)"
            )

    def _too_many_failures(self) -> str | None:
        known, failed = self._known(), sum(self._counts().get(outcome, 0) for outcome in FAILED)
        allowed = self.job.request.max_failures
        if self.job.reason.startswith(IN_SPITE) or not failed or failed <= allowed * known:
            return None
        if known < _ENOUGH and not self.job.request.canary:
            return None
        return f"{failed} of {known} {TOO_MANY} ({failed / known:.0%}), and {allowed:.0%} are allowed"

    def _known(self) -> int:
        """Letters that were sent, and of which is known what became of them."""
        return sum(self._counts().get(outcome, 0) for outcome in (OK, *FAILED, SENT))

    def _counts(self) -> dict[str, int]:
        if self._outcome_counts is None:
            self._outcome_counts = self._jobs.outcomes(self.job.id)
        return self._outcome_counts

    def _counted(self, outcome: str, letters: int) -> None:
        if letters:
            self._outcome_counts = None
            self._count(outcome, letters)

    def _has_ended(self) -> bool:
        """Whether everything that was sent has its outcome, and nothing more is to be sent (for the time being)."""
        job, waits = self.job, self.job.state == RUNNING and self.job.sent < self.job.total
        if job.chunks or waits:
            self._idle_since = None
            return False
        now = self._clock.monotonic()
        self._idle_since = now if self._idle_since is None else self._idle_since
        if self._outcomes.replace(job, even_unindexed=now - self._idle_since > _UNINDEXED):
            return False
        if job.state in (RUNNING, CANCELLING):
            self._outcomes.finished(job)
            forget_progress(self._pipeline.kafka, job.id)
            self.job = self._jobs.get(job.id)
            log.info("replay.finished", job=job.id, state=self.job.state, **self._counts())
        return True
