"""Which letters a request chooses: the open ones that its filter takes and that no other job has."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import ColumnElement, Connection, and_, delete, func, literal, select

from dlq.index.database import IndexDatabase
from dlq.index.filters import LetterFilter, condition
from dlq.index.tables import OPEN
from dlq.replay.raw import Chosen

_CHUNK = 20_000


def chosen_by(wanted: LetterFilter, database: IndexDatabase) -> ColumnElement[bool]:
    """Over the table `letters`."""
    return and_(condition(wanted, database), database.tables.letters.c.state == OPEN, ~_busy(database))


def count_busy(wanted: LetterFilter, database: IndexDatabase) -> int:
    """Open letters that the filter takes and that another job, not yet finished, has."""
    letters = database.tables.letters
    both = and_(condition(wanted, database), letters.c.state == OPEN, _busy(database))
    with database.transaction(reads=True) as connection:
        return int(connection.execute(select(func.count()).select_from(letters).where(both)).scalar_one())


def choose(wanted: LetterFilter, database: IndexDatabase) -> Iterator[list[Chosen]]:
    """All of them, in chunks as they were indexed, each in the order of the topics. No transaction stays open between two
    chunks: what is done with one may take its time."""
    t = database.tables.letters.c
    columns = (t.letter, t.dlq_topic, t.dlq_partition, t.dlq_offset, t.id, t.replays, t.state, literal(0))
    query = select(*columns).where(chosen_by(wanted, database)).order_by(t.letter).limit(_CHUNK)
    after = -1
    while True:
        with database.transaction(reads=True) as connection:
            rows = [Chosen._make(row) for row in connection.execute(query.where(t.letter > after))]
        if not rows:
            return
        after = rows[-1].letter
        yield sorted(rows, key=lambda one: (one.topic, one.partition, one.offset))


def take(connection: Connection, job: str, wanted: LetterFilter, database: IndexDatabase) -> int:
    """Give the letters to a job, numbered in the order of the topics, from 1 without a gap. Returns how many.

    What a job that is made at the same moment has taken is left out by the database, but has its number by then: so all are
    chosen again.
    """
    letters, replays = database.tables.letters, database.tables.replays
    place = (letters.c.dlq_topic, letters.c.dlq_partition, letters.c.dlq_offset)
    numbered = select(literal(job), func.row_number().over(order_by=place), letters.c.letter, literal(""))
    chosen = numbered.where(chosen_by(wanted, database))
    statement = database.insert(replays).from_select(["job", "position", "letter", "detail"], chosen)
    found = select(func.count(), func.max(replays.c.position)).where(replays.c.job == job)
    while True:
        connection.execute(statement.on_conflict_do_nothing())
        total, last = connection.execute(found).one()
        if not total or total == last:
            return int(total)
        connection.execute(delete(replays).where(replays.c.job == job))


def next_chosen(database: IndexDatabase, job: str, after: int, number: int) -> list[Chosen]:
    """Of the `number` letters of a job behind position `after`, those of which nothing is known yet; in their order.

    Whether something is known is not for the database to ask: a PostgreSQL that has not looked at the table yet then
    takes the index on outcomes, and reads all that is left of the job for each chunk.
    """
    t, replays = database.tables.letters, database.tables.replays
    query = (
        select(
            t.c.letter,
            t.c.dlq_topic,
            t.c.dlq_partition,
            t.c.dlq_offset,
            t.c.id,
            t.c.replays,
            t.c.state,
            replays.c.position,
            replays.c.outcome,
        )
        .join_from(replays, t, t.c.letter == replays.c.letter)
        .where(replays.c.job == job, replays.c.position > after, replays.c.position <= after + number)
        .order_by(replays.c.position)
    )
    with database.transaction(reads=True) as connection:
        return [Chosen._make(row) for *row, outcome in connection.execute(query) if outcome is None]


def first_topic(database: IndexDatabase, job: str) -> str:
    """The dead-letter topic of a job's first letter."""
    t, replays = database.tables.letters, database.tables.replays
    query = select(t.c.dlq_topic).join_from(replays, t, t.c.letter == replays.c.letter).where(replays.c.job == job)
    with database.transaction(reads=True) as connection:
        return str(connection.execute(query.order_by(replays.c.position).limit(1)).scalar_one())


def _busy(database: IndexDatabase) -> ColumnElement[bool]:
    letters, replays = database.tables.letters.c, database.tables.replays.c
    return select(replays.letter).where(replays.letter == letters.letter, replays.outcome.is_(None)).exists()
