"""Letters into the index: exactly once by stored offsets, once per id, with all counters, in one transaction.

1. offset    lock the partition's row; what it has already is left out, so a repeat or a zombie changes nothing
2. stage     COPY into a temporary table
3. letters   INSERT … ON CONFLICT DO NOTHING; what is there already is a repeat, counted on its letter
4. groups    counters, facets and rates of what is new; a resolved group that has an open letter again is reopened
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Table, bindparam, case, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY

from dlq.index.counters import facets_of, groups_of, rates_of
from dlq.index.database import DRIVER_ERRORS, IndexDatabase
from dlq.index.letters import OWN, Row
from dlq.index.tables import COPIED, OPEN, REPLACED, RESOLVED
from tidegate.clock import Clock, SystemClock
from tidegate.record import TopicPartition
from tidegate.store.failures import Failure, failure_of, public_error
from tidegate.store.refusal import refused_rows

AGENT = "index"
"""The actor of what happens by itself."""

_COLUMNS = ", ".join(COPIED)
_COPIED: Callable[[Row], tuple[Any, ...]] = itemgetter(*COPIED)


class IndexWriter:
    """Writes batches of one or more partitions. Safe under threads: a transaction per call."""

    def __init__(self, database: IndexDatabase, clock: Clock | None = None) -> None:
        self._database, self._clock = database, clock or SystemClock()
        self._tables = database.tables
        self._letters = f"{database.schema}.letters" if database.schema else "letters"
        if database.schema is not None:
            quoted = database.schema.replace('"', '""')
            self._letters = f'"{quoted}".letters'

    def starts(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The last indexed offset of each partition; −1 where there is none."""
        wanted, offsets = set(tps), self._tables.offsets
        with self._database.transaction(reads=True) as connection:
            rows = connection.execute(select(offsets.c.topic, offsets.c.partition, offsets.c.upto)).all()
        found = {TopicPartition(topic, partition): upto for topic, partition, upto in rows}
        return {tp: found.get(tp, -1) for tp in wanted}

    def restart(self, tp: TopicPartition, upto: int) -> None:
        """The topic was made anew: its offsets begin again. What is indexed stays; ids tell what comes again."""
        offsets = self._tables.offsets
        mine = (offsets.c.topic == tp.topic) & (offsets.c.partition == tp.partition)
        with self._database.transaction() as connection:
            connection.execute(update(offsets).where(mine).values(upto=upto))

    def write(self, tp: TopicPartition, rows: Sequence[Row], upto: int) -> int:
        """Index one batch, in offset order, and move the partition to `upto`. Returns how many letters are new.

        Raises StoreUnavailable (unknown whether written: write it again), ConfigError.
        """
        return self._in_spite_of_values(lambda letters: self._write(tp, letters, upto), rows)

    def add(self, rows: Sequence[Row]) -> int:
        """Letters that come out of files (dlq/s3/archive.py), in whose `detail` it says which: those that the index has
        already are not counted again, and only learn where else their record is. Returns how many are new.

        Raises as `write` does.
        """
        by_partition: dict[tuple[str, int], list[Row]] = {}
        for row in rows:
            by_partition.setdefault((row["dlq_topic"], row["dlq_partition"]), []).append(row)
        return sum(self._in_spite_of_values(self._add_letters, part) for part in by_partition.values())

    def _in_spite_of_values(self, work: Callable[[Sequence[Row]], int], rows: Sequence[Row]) -> int:
        """The work on the rows; on what is left of them, when the database refuses a value."""
        try:
            return work(rows)
        except DRIVER_ERRORS as error:
            failure = failure_of(error)
            if failure not in (Failure.CONFLICT, Failure.REFUSED):
                raise public_error(error, self._database.name) from error
        again = self._acceptable(rows) if failure is Failure.REFUSED else rows
        try:
            return work(again)
        except DRIVER_ERRORS as error:
            raise public_error(error, self._database.name) from error

    def _write(self, tp: TopicPartition, rows: Sequence[Row], upto: int) -> int:
        with self._database.transaction(translate=False) as connection:
            before = self._lock(connection, tp)
            if upto <= before:
                return 0
            offsets = self._tables.offsets
            mine = (offsets.c.topic == tp.topic) & (offsets.c.partition == tp.partition)
            connection.execute(update(offsets).where(mine).values(upto=upto))
            letters = _distinct([row for row in rows if row["dlq_offset"] > before])
            return self._store(connection, letters)

    def _add_letters(self, rows: Sequence[Row]) -> int:
        with self._database.transaction(translate=False) as connection:
            new = self._store(connection, _distinct(rows))
            if new < len(rows):
                self._note_files(connection)
            return new

    def _store(self, connection: Connection, letters: Sequence[Row]) -> int:
        if not letters:
            return 0
        self._stage(connection, letters)
        new = self._insert(connection)
        fresh = [row for row in letters if row["dlq_offset"] in new]
        reopened = self._repeat(connection) if len(fresh) < len(letters) else Counter()
        self._count(connection, fresh, reopened)
        return len(fresh)

    def _note_files(self, connection: Connection) -> None:
        """Letters that were there already: the files in which their records are."""
        letters, mine = self._letters, "incoming.detail ->> 'file'"
        with_file = (
            f"{letters}.detail || jsonb_build_object('file', {mine})"
            if self._database.is_postgres
            else f"json_set({letters}.detail, '$.file', {mine})"
        )
        same = " AND ".join(
            f"{letters}.{name} = incoming.{name}" for name in ("dlq_topic", "id", "dlq_partition", "dlq_offset")
        )
        unknown = f"{letters}.detail ->> 'file' IS NULL"
        connection.execute(text(f"UPDATE {letters} SET detail = {with_file} FROM incoming WHERE {same} AND {unknown}"))

    def _lock(self, connection: Connection, tp: TopicPartition) -> int:
        offsets = self._tables.offsets
        row = {"topic": tp.topic, "partition": tp.partition, "upto": -1}
        connection.execute(self._database.insert(offsets).values(row).on_conflict_do_nothing())
        mine = (offsets.c.topic == tp.topic) & (offsets.c.partition == tp.partition)
        return int(connection.execute(select(offsets.c.upto).where(mine).with_for_update()).scalar_one())

    def _stage(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Into the temporary table `incoming`, which is empty before."""
        if self._database.is_postgres:
            connection.execute(
                text(
                    "CREATE TEMPORARY TABLE IF NOT EXISTS incoming ON COMMIT DELETE ROWS "
                    f"AS SELECT {_COLUMNS} FROM {self._letters} WITH NO DATA"
                )
            )
            cursor: Any = connection.connection.cursor()
            with cursor, cursor.copy(f"COPY incoming ({_COLUMNS}) FROM STDIN") as copy:
                for values in map(_COPIED, rows):
                    copy.write_row(values)
            return
        connection.execute(text(f"CREATE TEMPORARY TABLE IF NOT EXISTS incoming ({_COLUMNS})"))
        connection.execute(text("DELETE FROM incoming"))
        places = ", ".join("?" * len(COPIED))
        connection.exec_driver_sql(f"INSERT INTO incoming VALUES ({places})", list(map(_COPIED, rows)))

    def _insert(self, connection: Connection) -> set[int]:
        """Returns the offsets, in the dead-letter topic, of the letters that are new."""
        if not self._database.is_postgres:
            highest = connection.execute(text("SELECT coalesce(max(letter), 0) FROM letters")).scalar_one()
        new = connection.execute(
            text(
                f"INSERT INTO {self._letters} ({_COLUMNS}) SELECT {_COLUMNS} FROM incoming WHERE true "
                "ORDER BY dlq_offset ON CONFLICT (dlq_topic, id) DO NOTHING RETURNING dlq_offset"
            )
        ).scalars()
        found = set(new.all())
        if not self._database.is_postgres:
            words = (
                "INSERT INTO letters_words (rowid, message) SELECT letter, message FROM letters WHERE letter > :highest"
            )
            connection.execute(text(words), {"highest": highest})
        return found

    def _repeat(self, connection: Connection) -> Counter[str]:
        """Letters that were there already: our own are the same failure written again; another tool's, whose id is the
        origin's, has failed again. Returns how many resolved ones are open again, by fingerprint."""
        same = f"FROM incoming AS i WHERE i.dlq_topic = {self._letters}.dlq_topic AND i.id = {self._letters}.id AND "
        other = f"({self._letters}.dlq_offset <> i.dlq_offset OR {self._letters}.dlq_partition <> i.dlq_partition)"
        reopened = connection.execute(
            text(
                f"UPDATE {self._letters} SET state = '{OPEN}', closed_at = NULL {same} {other} "
                f"AND {self._letters}.state IN ('{RESOLVED}', '{REPLACED}') AND i.dialect <> '{OWN}' "
                f"RETURNING {self._letters}.fingerprint"
            )
        ).scalars()
        counted = Counter(reopened)
        greatest = "greatest" if self._database.is_postgres else "max"
        connection.execute(
            text(
                f"UPDATE {self._letters} SET repeats = {self._letters}.repeats + 1 + i.repeats, "
                f"last_failed = {greatest}({self._letters}.last_failed, i.last_failed) {same} {other}"
            )
        )
        return counted

    def _count(self, connection: Connection, fresh: Sequence[Row], reopened: Counter[str]) -> None:
        """In the order of the keys, so that two writers never wait for each other in a ring."""
        t, insert = self._tables, self._database.insert
        now = int(self._clock.time() * 1000)
        if fresh:
            groups = groups_of(fresh, now)
            statement = insert(t.groups)
            new, old = statement.excluded, t.groups.c
            newer = new.last_seen >= old.last_seen
            latest = {
                name: case((newer, new[name]), else_=old[name]) for name in ("message", "sample_topic", "sample_id")
            }
            smaller, larger = (func.least, func.greatest) if self._database.is_postgres else (func.min, func.max)
            changed = {
                "count": old["count"] + new["count"],
                "open": old.open + new.open,
                "first_seen": smaller(old.first_seen, new.first_seen),
                "last_seen": larger(old.last_seen, new.last_seen),
                **latest,
            }
            connection.execute(
                statement.on_conflict_do_update(index_elements=[old.fingerprint], set_=changed),
                groups,
            )
            self._add(connection, t.facets, ("fingerprint", "facet", "value"), facets_of(fresh))
            self._add(connection, t.rates, ("fingerprint", "bucket"), rates_of(fresh))
        if reopened:
            raised = update(t.groups).where(t.groups.c.fingerprint == bindparam("which"))
            raised = raised.values(open=t.groups.c.open + bindparam("more"))
            connection.execute(raised, [{"which": name, "more": reopened[name]} for name in sorted(reopened)])
        self._reopen(connection, sorted({row["fingerprint"] for row in fresh} | set(reopened)), now)

    def _add(
        self, connection: Connection, table: Table, key: tuple[str, ...], counts: Counter[tuple[Any, ...]]
    ) -> None:
        statement = self._database.insert(table)
        statement = statement.on_conflict_do_update(
            index_elements=[table.c[name] for name in key],
            set_={"count": table.c["count"] + statement.excluded["count"]},
        )
        if not self._database.is_postgres:
            rows = [{**dict(zip(key, values, strict=True)), "count": counts[values]} for values in sorted(counts)]
            connection.execute(statement, rows)
            return
        # One statement of arrays: a round for each of some hundred counters would cost more than the letters.
        ordered = sorted(counts)
        arrays = [bindparam(name, [values[i] for values in ordered], _array(table, name)) for i, name in enumerate(key)]
        arrays.append(bindparam("count", [counts[values] for values in ordered], _array(table, "count")))
        names = [*key, "count"]
        unnested = func.unnest(*arrays).table_valued(*names).render_derived()
        connection.execute(statement.from_select(names, select(*(unnested.c[name] for name in names))))

    def _reopen(self, connection: Connection, fingerprints: list[str], now: int) -> None:
        groups, history = self._tables.groups, self._tables.history
        again = groups.c.fingerprint.in_(fingerprints) & (groups.c.state == RESOLVED) & (groups.c.open > 0)
        found = connection.execute(
            update(groups)
            .where(again)
            .values(state=OPEN, state_at=now, reopened=groups.c.reopened + 1)
            .returning(groups.c.fingerprint)
        ).scalars()
        entries = [
            {"at": now, "actor": AGENT, "action": "reopen", "fingerprint": name, "note": "it has failed again"}
            for name in sorted(found)
        ]
        if entries:
            connection.execute(history.insert(), entries)

    def _acceptable(self, rows: Sequence[Row]) -> list[Row]:
        """The rows, without the payload of those whose payload the database refuses (a number it has no room for)."""

        def accepts(start: int, stop: int) -> bool:
            try:
                with self._database.transaction(translate=False) as connection:
                    self._stage(connection, rows[start:stop])
                    connection.rollback()
            except DRIVER_ERRORS as error:
                if failure_of(error) is not Failure.REFUSED:
                    raise public_error(error, self._database.name) from error
                return False
            return True

        guilty = set(refused_rows(len(rows), accepts))
        plain = '{"text": "the index cannot hold this value: see the topic"}'
        return [{**row, "payload": None, "detail": plain} if i in guilty else row for i, row in enumerate(rows)]


def _array(table: Table, name: str) -> ARRAY[Any]:
    return ARRAY(table.c[name].type)


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """Each id once: its first row, with how often it came again."""
    by_id: dict[str, Row] = {}
    for row in rows:
        first = by_id.setdefault(row["id"], row)
        if first is not row:
            last = max(first["last_failed"], row["last_failed"])
            by_id[row["id"]] = {**first, "repeats": first["repeats"] + 1, "last_failed": last}
    return list(by_id.values())
