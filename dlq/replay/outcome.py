"""What became of each letter of a job, written down with its effect on the letter, in one transaction per step.

sent again and accepted   `ok`: the letter is resolved
sent again and failed     `failed_again`: the newer letter stands for it; once that is indexed, this one is replaced
and not for the first time `loop`: the same, of a letter that was a replay's own, sent as it was, failing as it did before
sent, not followed        `sent`: to a topic whose readers are not known; the letter is resolved
sent, and not read        `gone`: the topic was deleted meanwhile; it stays open
not sent                  `parked` (the letter, too), `invalid`, `gone`, `cancelled`: it stays open
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Update, bindparam, select, update

from dlq.index.database import IndexDatabase
from dlq.index.lifecycle import Lifecycle
from dlq.index.tables import OPEN, PARKED, REPLACED, RESOLVED
from dlq.replay.follow import Again
from dlq.replay.jobs import CANCELLED, CANCELLING, DONE, Chunk, Job, Jobs
from dlq.replay.names import FAILED, FAILED_AGAIN, GONE, LOOP
from dlq.replay.names import PARKED as NOT_SENT_PARKED
from dlq.replay.outgoing import Unsent
from tidegate.clock import Clock

_Outcome = tuple[int, str, str, str | None, str | None]
"""Position, outcome, detail, topic and id of the newer letter."""


class Outcomes:
    """Writes for whoever owns the job. Every method raises LeaseLost when that is another, and has written nothing then."""

    def __init__(self, jobs: Jobs, clock: Clock) -> None:
        self._jobs = jobs
        self._database: IndexDatabase = jobs.database
        self._replays, self._letters = jobs.database.tables.replays, jobs.database.tables.letters
        self._lifecycle = Lifecycle(jobs.database, clock)

    def begun(self, job: Job, follow: Mapping[Any, int]) -> None:
        """Before the first record is sent: where the reading of what comes back starts."""
        with self._database.transaction() as connection:
            self._jobs.write(connection, job, follow=follow)

    def unsent(self, job: Job, records: Sequence[Unsent]) -> None:
        """Letters that are not sent. Before the rest of their chunk is: after a crash, what has no outcome was sent."""
        if not records:
            return
        with self._database.transaction() as connection:
            self._jobs.write(connection, job)
            self._set(connection, job, [(one.chosen.position, one.outcome, one.detail, None, None) for one in records])
            parked = [one.chosen.letter for one in records if one.outcome == NOT_SENT_PARKED]
            if parked:
                which = self._letters.c.letter.in_(parked)
                note = "replayed too often"
                self._lifecycle.close(connection, which, actor=_actor(job), state=PARKED, note=note)

    def sent(self, job: Job, upto: int, chunk: Chunk | None) -> None:
        """The job has come to position `upto`. `chunk`: what has been sent on the way."""
        with self._database.transaction() as connection:
            self._jobs.write(connection, job, sent=upto, chunks=[*job.chunks, *([] if chunk is None else [chunk])])

    def doubted(self, job: Job, upto: int) -> dict[str, int]:
        """Letters up to position `upto` may have been sent or not. Those that the index knows to have failed again were: the
        dead-letter topics may have lost what tells it. Returns how many are new, by outcome."""
        r, letters, newer = self._replays.c, self._letters, self._letters.alias("newer")
        query = (
            select(r.position, newer.c.dlq_topic, newer.c.id, newer.c.fingerprint)
            .join_from(self._replays, letters, letters.c.letter == r.letter)
            .join(newer, newer.c.replay_of == letters.c.id)
            .where(r.job == job.id, r.position > job.sent, r.position <= upto, r.outcome.is_(None))
            .where(newer.c.dlq_timestamp >= job.created_at)  # else it came of another job, which was cancelled
        )
        mended = bool(job.request.assignments or job.request.by_hand)
        with self._database.transaction() as connection:
            self._jobs.write(connection, job, doubtful=upto)
            found = {
                position: Again(topic, id_, print_, mended)
                for position, topic, id_, print_ in connection.execute(query)
            }
        return self.came_back(job, found, job.follow) if found else {}

    def sends_again(self, job: Job, reason: str) -> None:
        """The job makes use of its right to, and so has it no more. Nothing, if somebody has turned the job meanwhile."""
        j = self._database.tables.jobs.c
        with self._database.transaction() as connection:
            self._jobs.write(connection, job)
            statement = update(self._database.tables.jobs).where(j.job == job.id, j.reason == job.reason)
            connection.execute(statement.values(reason=reason))

    def came_back(self, job: Job, found: Mapping[int, Again], follow: Mapping[Any, int]) -> dict[str, int]:
        """Replays that failed again, and how far the dead-letter topics have been read for them. Returns how many are
        new, by outcome."""
        with self._database.transaction() as connection:
            self._jobs.write(connection, job, follow=follow)
            before = self._failures_of_replays(connection, job, list(found))
            rows: dict[str, list[_Outcome]] = {FAILED_AGAIN: [], LOOP: []}
            for position, again in found.items():
                why = f"it is {again.id} now"
                if again.fingerprint == before.get(position) and not again.mended:
                    why += ", and has failed as it did when it was replayed before"
                    rows[LOOP].append((position, LOOP, why, again.topic, again.id))
                else:
                    rows[FAILED_AGAIN].append((position, FAILED_AGAIN, why, again.topic, again.id))
            return {outcome: self._set(connection, job, some) for outcome, some in rows.items()}

    def settled(
        self, job: Job, chunk: Chunk, outcome: str, follow: Mapping[Any, int], deleted: Collection[str] = ()
    ) -> dict[str, int]:
        """All of the chunk that has not come back was accepted (`ok`), or is not followed (`sent`); but what was sent to topics
        that have been `deleted` is `gone`. Returns how many are new, by outcome."""
        r = self._replays.c
        mine = (r.job == job.id) & r.position.between(chunk.first, chunk.last)
        with self._database.transaction() as connection:
            self._jobs.write(connection, job, chunks=[other for other in job.chunks if other != chunk], follow=follow)
            rest = update(self._replays).where(mine, r.outcome.is_(None))
            gone = sum(connection.execute(self._gone(rest, job, topic)).rowcount for topic in sorted(deleted))
            number = connection.execute(rest.values(outcome=outcome)).rowcount
            which = self._letters.c.letter.in_(select(r.letter).where(mine, r.outcome == outcome))
            note = f"replayed by job {job.id}"
            self._lifecycle.close(connection, which, actor=_actor(job), state=RESOLVED, note=note)
        return {GONE: int(gone), outcome: int(number)}

    def _gone(self, rest: Update, job: Job, topic: str) -> Update:
        """Those among `rest` that were sent to this topic."""
        if job.request.to is None:  # else all were
            letters = self._letters.c
            to_it = select(letters.letter).where(
                letters.letter == self._replays.c.letter, letters.origin_topic == topic
            )
            rest = rest.where(to_it.exists())
        why = f"topic {topic!r}, to which it was sent, was deleted; whether it had been read there is not known"
        return rest.values(outcome=GONE, detail=why)

    def replace(self, job: Job, *, even_unindexed: bool = False) -> int:
        """Close letters whose replay failed again, once the newer letter is in the index: else the group would be called
        resolved for a moment. Returns how many still wait for that."""
        r, letters = self._replays.c, self._letters
        newer = letters.alias("newer")
        failed = select(r.letter).where(r.job == job.id, r.outcome.in_(FAILED))
        indexed = select(newer.c.letter).where(newer.c.dlq_topic == r.again_topic, newer.c.id == r.again_id)
        ready = failed if even_unindexed else failed.where(indexed.exists())
        with self._database.transaction() as connection:
            which = letters.c.letter.in_(ready)
            note = f"replayed by job {job.id}, and failed again"
            self._lifecycle.close(connection, which, actor=_actor(job), state=REPLACED, note=note)
            waiting = select(letters.c.letter).where(letters.c.letter.in_(failed), letters.c.state == OPEN)
            return len(connection.execute(waiting.limit(1)).all())

    def turned(self, job: Job, state: str, reason: str) -> None:
        """The job stops by itself."""
        with self._database.transaction() as connection:
            self._jobs.write(connection, job, state=state, reason=reason)
            self._lifecycle.record(connection, _actor(job), f"replay {state}", note=f"{job.id}: {reason}")

    def cancel_rest(self, job: Job) -> None:
        with self._database.transaction() as connection:
            self._jobs.write(connection, job)
            self._jobs.cancel_rest(connection, job)

    def finished(self, job: Job) -> None:
        state = CANCELLED if job.state == CANCELLING else DONE
        with self._database.transaction() as connection:
            self._jobs.write(connection, job, state=state, finished_at=self._jobs.now(), lease_until=0)

    def _failures_of_replays(self, connection: Connection, job: Job, positions: Sequence[int]) -> dict[int, str]:
        """Position → fingerprint, of those letters among them that were dead letters of a replay when they were sent."""
        r, letters = self._replays.c, self._letters.c
        query = (
            select(r.position, letters.fingerprint)
            .join_from(self._replays, self._letters, letters.letter == r.letter)
            .where(r.job == job.id, r.position.in_(positions), letters.replays > 0)
        )
        return {int(position): str(fingerprint) for position, fingerprint in connection.execute(query)}

    def _set(self, connection: Connection, job: Job, rows: Sequence[_Outcome]) -> int:
        """Position, outcome, detail, and the newer letter. What has an outcome keeps it. Returns how many had none."""
        if not rows:
            return 0
        r = self._replays.c
        statement = (
            update(self._replays)
            .where(r.job == job.id, r.position == bindparam("at"), r.outcome.is_(None))
            .values(
                outcome=bindparam("became"), detail=bindparam("why"), again_topic=bindparam("new_topic"),
                again_id=bindparam("new_id"),
            )
        )  # fmt: skip
        names = ("at", "became", "why", "new_topic", "new_id")
        return int(connection.execute(statement, [dict(zip(names, row, strict=True)) for row in rows]).rowcount)


def _actor(job: Job) -> str:
    return f"replay of {job.actor}"
