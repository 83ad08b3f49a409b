"""Replay jobs in the index's database: made, claimed with a lease, paused, resumed, cancelled.

running → done; running ⇄ paused (by a person); running → stopped (by itself: too many failed again, or it cannot go on)
→ running (resumed); running, paused, stopped → cancelling → cancelled (when what was sent has been followed).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, case, func, literal, or_, select, tuple_, update

from dlq.index.database import IndexDatabase
from dlq.index.lifecycle import Lifecycle
from dlq.replay.choice import take
from dlq.replay.names import CANCELLED as NOT_SENT
from dlq.replay.names import JOB_STATES
from dlq.replay.request import Request
from tidegate.clock import Clock, SystemClock
from tidegate.errors import ConfigError, Fenced
from tidegate.record import TopicPartition
from tidegate.stages.repeats import JOB_BYTES

RUNNING, PAUSED, STOPPED, CANCELLING, CANCELLED, DONE = JOB_STATES
IN_SPITE = "resumed in spite of failures"
"""The reason of a job that goes on whatever fails: it has stopped because too many did, and somebody has looked."""
TOO_MANY = "failed again"
"""In the reason of one that has stopped for that."""
FORGOTTEN = "it was left for so long that Kafka has forgotten how far it was"
SENDS_AGAIN = "resumed although letters may be sent twice"
"""The reason of a job that had stopped for that: it begins again where the database knows it to be."""
SENT_AGAIN = "resumed although letters may have been sent twice"
"""The reason of a job that has done so. It was allowed to once."""
LEASE = 15_000  # ms: how long a job waits for an owner that says nothing

Bounds = dict[TopicPartition, int]
"""Partition → offset."""


class LeaseLost(Fenced):
    """Another agent works on this job now."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Letters `first` to `last` (positions) of a job, sent; each partition's last offset among them."""

    first: int
    last: int
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Job:
    """A row of `jobs`. Times in ms. `follow`: the next offset to be read of each partition of the dead-letter topics.
    `doubtful`: letters up to this position may have been sent, though only those up to `sent` are known to have been."""

    id: str
    state: str
    reason: str
    actor: str
    request: Request
    total: int
    sent: int
    doubtful: int
    chunks: tuple[Chunk, ...]
    follow: Bounds
    created_at: int
    finished_at: int | None
    owner: str
    epoch: int
    lease_until: int

    @property
    def finished(self) -> bool:
        return self.state in (DONE, CANCELLED)


class Jobs:
    """Each call is one transaction, unless it is given a connection. Raises StoreUnavailable."""

    def __init__(self, database: IndexDatabase, clock: Clock | None = None) -> None:
        self.database, self._clock = database, clock or SystemClock()
        self._jobs, self._replays = database.tables.jobs, database.tables.replays
        self._lifecycle = Lifecycle(database, self._clock)

    def create(self, request: Request, *, actor: str, owner: str = "") -> Job:
        """Choose the letters, once and for all: what fails later is not in the job. `owner`: has it from the start.

        Raises ConfigError when nothing is chosen.
        """
        job, now = secrets.token_hex(JOB_BYTES), self.now()
        with self.database.transaction() as connection:
            total = take(connection, job, request.wanted, self.database)
            if not total:
                raise ConfigError(
                    "no dead letter is chosen",
                    field="the filter",
                    expected="open dead letters that are in no other job",
                    hint="`tidegate dlq list` with the same options shows what there is, `dlq jobs` the other jobs",
                )
            row = {
                "job": job, "state": RUNNING, "reason": "", "actor": actor, "request": request.to_json(), "total": total,
                "sent": 0, "chunks": [], "follow": [], "created_at": now, "owner": owner, "epoch": 1 if owner else 0,
                "lease_until": now + LEASE if owner else 0,
            }  # fmt: skip
            connection.execute(self._jobs.insert(), row)
            self._lifecycle.record(connection, actor, "replay", note=job, detail={"letters": total})
        return self.get(job)

    def get(self, job: str) -> Job:
        """Raises ConfigError for one that does not exist."""
        found = self._fetch(select(self._jobs).where(self._jobs.c.job == job))
        if not found:
            raise ConfigError(
                "there is no such job", field="JOB", value=job, expected="one that `tidegate dlq jobs` shows"
            )
        return found[0]

    def newest(self, limit: int = 50, *, state: Sequence[str] = (), before: str | None = None) -> list[Job]:
        """`before`: the id of the job with which the page before this one ended."""
        j = self._jobs.c
        query = select(self._jobs).order_by(j.created_at.desc(), j.job.desc()).limit(limit)
        query = query.where(j.state.in_(state)) if state else query
        if before is not None:
            last = self.get(before)
            query = query.where(tuple_(j.created_at, j.job) < tuple_(literal(last.created_at), literal(last.id)))
        return self._fetch(query)

    def of_letter(self, letter: int) -> list[dict[str, Any]]:
        """The jobs that a letter (by its row) was in: job, created_at, outcome, detail, again."""
        r, j = self._replays.c, self._jobs.c
        query = (
            select(r.job, j.created_at, r.outcome, r.detail, r.again_id.label("again"))
            .join_from(self._replays, self._jobs, j.job == r.job)
            .where(r.letter == letter)
            .order_by(j.created_at)
        )
        with self.database.transaction(reads=True) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def outcomes(self, job: str) -> dict[str, int]:
        """Outcome → letters; what is not known yet is left out."""
        r = self._replays.c
        query = select(r.outcome, func.count()).where(r.job == job, r.outcome.is_not(None)).group_by(r.outcome)
        with self.database.transaction(reads=True) as connection:
            return {outcome: int(number) for outcome, number in connection.execute(query)}

    def results(
        self, job: str, *, outcome: str | None = None, after: int = 0, limit: int = 100
    ) -> list[dict[str, Any]]:
        """What became of each letter: position, id, outcome, detail, again (the id of the newer letter)."""
        r, letters = self._replays.c, self.database.tables.letters
        query = (
            select(r.position, letters.c.id, r.outcome, r.detail, r.again_id.label("again"))
            .join_from(self._replays, letters, letters.c.letter == r.letter)
            .where(r.job == job, r.position > after)
            .order_by(r.position)
            .limit(limit)
        )
        query = query if outcome is None else query.where(r.outcome == outcome)
        with self.database.transaction(reads=True) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def counts(self) -> dict[str, int]:
        """State → jobs."""
        query = select(self._jobs.c.state, func.count()).group_by(self._jobs.c.state)
        with self.database.transaction(reads=True) as connection:
            return {state: int(number) for state, number in connection.execute(query)}

    # What people do

    def pause(self, job: str, *, actor: str) -> Job:
        return self._turn(job, (RUNNING,), PAUSED, f"by {actor}", actor)

    def resume(self, job: str, *, actor: str) -> Job:
        """Also goes on with one that has stopped by itself: whoever does that has looked at it."""
        found = self.get(job)
        why = "resumed"
        if found.reason.startswith(FORGOTTEN):
            why = SENDS_AGAIN
        elif TOO_MANY in found.reason:
            why = IN_SPITE
        reason = f"{why} by {actor}" if found.state == STOPPED else ""
        return self._turn(job, (PAUSED, STOPPED), RUNNING, reason, actor)

    def cancel(self, job: str, *, actor: str) -> Job:
        """What was sent is still followed; the rest stays open."""
        found = self._turn(job, (RUNNING, PAUSED, STOPPED), CANCELLING, f"by {actor}", actor)
        if found.epoch == 0:  # nobody has ever begun it, so that there is nothing to wait for
            with self.database.transaction() as connection:
                changed = connection.execute(
                    update(self._jobs)
                    .where(self._jobs.c.job == job, self._jobs.c.epoch == 0)
                    .values(state=CANCELLED, finished_at=self.now())
                ).rowcount
                if changed:
                    self.cancel_rest(connection, found)
        return self.get(job)

    # What owners do

    def claim(self, owner: str, only: str | None = None) -> Job | None:
        """A job with something to do that nobody holds; the oldest. `only`: this one or none."""
        j, now = self._jobs.c, self.now()
        query = (
            select(j.job)
            .where(or_(j.state.in_((RUNNING, CANCELLING)), j.chunks != literal([], j.chunks.type)), j.lease_until < now)
            .where(j.state.not_in((DONE, CANCELLED)))
            .order_by(j.created_at)
            .limit(1)
        )
        query = query if only is None else query.where(j.job == only)
        query = query.with_for_update(skip_locked=True) if self.database.is_postgres else query
        with self.database.transaction() as connection:
            job = connection.execute(query).scalar()
            if job is None:
                return None
            values = {"owner": owner, "epoch": j.epoch + 1, "lease_until": now + LEASE}
            connection.execute(update(self._jobs).where(j.job == job).values(**values))
        return self.get(job)

    def renew(self, mine: Job) -> Job:
        """The job as it is now, with the lease prolonged. Raises LeaseLost."""
        with self.database.transaction() as connection:
            self.write(connection, mine)
        return self.get(mine.id)

    def release(self, mine: Job) -> None:
        """Let another agent have it at once. Raises LeaseLost."""
        with self.database.transaction() as connection:
            self.write(connection, mine, lease_until=0)

    def write(self, connection: Connection, mine: Job, **values: Any) -> None:
        """Change the job's row, in a transaction with whatever else the owner writes. Raises LeaseLost: nothing is written.

        `chunks` and `follow` are given as the Job has them.
        """
        if "chunks" in values:
            values["chunks"] = [[c.first, c.last, _listed(c.bounds)] for c in values["chunks"]]
        if "follow" in values:
            values["follow"] = _listed(values["follow"])
        values.setdefault("lease_until", self.now() + LEASE)
        held = (self._jobs.c.job == mine.id) & (self._jobs.c.epoch == mine.epoch)
        if not connection.execute(update(self._jobs).where(held).values(**values)).rowcount:
            raise LeaseLost(f"replay job {mine.id} has another owner")

    def cancel_rest(self, connection: Connection, job: Job) -> None:
        """Give up what has not been sent."""
        r = self._replays.c
        rest = (r.job == job.id) & (r.position > job.sent) & r.outcome.is_(None)
        why = "the job was cancelled"
        doubt = f"{why}; whether this letter had been sent is not known"
        values = {"outcome": NOT_SENT, "detail": case((r.position <= job.doubtful, doubt), else_=why)}
        connection.execute(update(self._replays).where(rest).values(**values))

    def now(self) -> int:
        return int(self._clock.time() * 1000)

    def _turn(self, job: str, before: Sequence[str], after: str, reason: str, actor: str) -> Job:
        found = self.get(job)
        j = self._jobs.c
        with self.database.transaction() as connection:
            statement = update(self._jobs).where(j.job == job, j.state.in_(before)).values(state=after, reason=reason)
            if not connection.execute(statement).rowcount:
                raise ConfigError(
                    f"the job is {found.state}", field="JOB", value=job, expected=f"one that is {' or '.join(before)}"
                )
            self._lifecycle.record(connection, actor, f"replay {after}", note=job)
        return self.get(job)

    def _fetch(self, query: Select[Any]) -> list[Job]:
        with self.database.transaction(reads=True) as connection:
            return [_job(row) for row in connection.execute(query)]


def _job(row: Row[Any]) -> Job:
    values = row._mapping
    chunks = tuple(Chunk(first, last, _bounds(bounds)) for first, last, bounds in values["chunks"])
    return Job(
        values["job"], values["state"], values["reason"], values["actor"], Request.from_json(values["request"]),
        values["total"], values["sent"], values["doubtful"], chunks, _bounds(values["follow"]), values["created_at"],
        values["finished_at"], values["owner"], values["epoch"], values["lease_until"],
    )  # fmt: skip


def _listed(bounds: Bounds) -> list[list[Any]]:
    return [[*tp, offset] for tp, offset in sorted(bounds.items())]


def _bounds(listed: Sequence[Sequence[Any]]) -> Bounds:
    return {TopicPartition(topic, partition): offset for topic, partition, offset in listed}
