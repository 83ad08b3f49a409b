"""The tables of the index. Times are milliseconds since the epoch; JSON is jsonb in PostgreSQL and text in SQLite."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Identity, Index, Integer, MetaData, Table, func, text, types
from sqlalchemy.dialects.postgresql import JSONB

from tidegate.store.columns import TEXT

_NUMBER = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers rows only by a column declared INTEGER
_JSON = types.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

OPEN, RESOLVED, PARKED, REPLACED = "open", "resolved", "parked", "replaced"
"""States of a dead letter. Parked ones are not replayed any more. For a replaced one there is a newer letter: its replay
has failed again."""
ACKNOWLEDGED = "acknowledged"
"""A group is open, acknowledged or resolved."""

RATE_BUCKET = 600_000
"""Milliseconds: the width of a bar in a group's rate."""


@dataclass(frozen=True, slots=True)
class IndexTables:
    """`letters`: a row per dead letter, and where its raw bytes are. `groups`: a row per fingerprint, with counters
    that are kept and not counted; `facets`: how often a group occurred by topic, source, version, pipeline and rule;
    `rates`: by time. `offsets`: how far each partition is indexed. `topics`: retention. `history`: who did what.
    `jobs`: a row per replay job; `replays`: one per letter of a job, with what became of it.
    """

    metadata: MetaData
    letters: Table
    groups: Table
    facets: Table
    rates: Table
    offsets: Table
    topics: Table
    history: Table
    jobs: Table
    replays: Table


def index_tables(schema: str | None) -> IndexTables:
    """The tables in a database schema (None: SQLite, which has none)."""
    metadata = MetaData(schema=schema)
    letters = Table("letters", metadata, *_letter_columns())
    Index("letters_id", letters.c.dlq_topic, letters.c.id, unique=True)
    Index("letters_newest", letters.c.last_failed, letters.c.letter)
    Index("letters_of_group", letters.c.fingerprint, letters.c.last_failed, letters.c.letter)
    Index(
        "letters_closed",
        letters.c.state,
        letters.c.last_failed,
        letters.c.letter,
        postgresql_where=letters.c.state != OPEN,
        sqlite_where=letters.c.state != OPEN,
    )
    Index(
        "letters_open",
        letters.c.dlq_topic,
        letters.c.dlq_timestamp,
        postgresql_where=letters.c.state == OPEN,
        sqlite_where=letters.c.state == OPEN,
    )
    words = Index("letters_words", func.to_tsvector(text("'simple'"), letters.c.message), postgresql_using="gin")
    fields = Index(
        "letters_fields", letters.c.payload, postgresql_using="gin", postgresql_ops={"payload": "jsonb_path_ops"}
    )
    key = Index("letters_key", letters.c.key, postgresql_using="hash")
    for index in (words, fields, key):
        index.ddl_if(dialect="postgresql")
    return IndexTables(
        metadata,
        letters,
        groups=Table(
            "groups",
            metadata,
            Column("fingerprint", TEXT, primary_key=True),
            Column("stage", TEXT, nullable=False),
            Column("error_type", TEXT, nullable=False),
            Column("message", TEXT, nullable=False),  # of the newest
            Column("count", BigInteger, nullable=False),
            Column("open", BigInteger, nullable=False),
            Column("first_seen", BigInteger, nullable=False),
            Column("last_seen", BigInteger, nullable=False),
            Column("sample_topic", TEXT, nullable=False),  # the newest letter: its dead-letter topic and id
            Column("sample_id", TEXT, nullable=False),
            Column("state", TEXT, nullable=False),
            Column("state_at", BigInteger, nullable=False),
            Column("note", TEXT, nullable=False),
            Column("reopened", BigInteger, nullable=False),
        ),
        facets=Table(
            "facets",
            metadata,
            Column("fingerprint", TEXT, primary_key=True),
            Column("facet", TEXT, primary_key=True),  # topic, source, version, pipeline, rule
            Column("value", TEXT, primary_key=True),
            Column("count", BigInteger, nullable=False),
        ),
        rates=Table(
            "rates",
            metadata,
            Column("fingerprint", TEXT, primary_key=True),
            Column("bucket", BigInteger, primary_key=True, autoincrement=False),
            Column("count", BigInteger, nullable=False),
        ),
        offsets=Table(
            "offsets",
            metadata,
            Column("topic", TEXT, primary_key=True),
            Column("partition", Integer, primary_key=True, autoincrement=False),
            Column("upto", BigInteger, nullable=False),
        ),
        topics=Table(
            "topics",
            metadata,
            Column("topic", TEXT, primary_key=True),
            Column("retention_ms", BigInteger),  # null: kept for ever
            Column("checked_at", BigInteger, nullable=False),
        ),
        history=Table(
            "history",
            metadata,
            Column("entry", _NUMBER, Identity(), primary_key=True),
            Column("at", BigInteger, nullable=False),
            Column("actor", TEXT, nullable=False),
            Column("action", TEXT, nullable=False),
            Column("fingerprint", TEXT),
            Column("dlq_topic", TEXT),
            Column("id", TEXT),
            Column("note", TEXT, nullable=False),
            Column("detail", _JSON),
        ),
        jobs=Table("jobs", metadata, *_job_columns()),
        replays=_replays(metadata),
    )


def _job_columns() -> list[Column[object]]:
    return [
        Column("job", TEXT, primary_key=True),
        Column("state", TEXT, nullable=False),
        Column("reason", TEXT, nullable=False),  # why it is in this state
        Column("actor", TEXT, nullable=False),
        Column("request", _JSON, nullable=False),
        Column("total", BigInteger, nullable=False),
        Column(
            "sent", BigInteger, nullable=False
        ),  # letters up to this position are dealt with: sent, or not to be sent
        # Letters up to this position may have been sent by an owner whose progress Kafka has forgotten.
        Column("doubtful", BigInteger, nullable=False, server_default="0"),
        Column("chunks", _JSON, nullable=False),  # what was sent and is still followed
        Column("follow", _JSON, nullable=False),  # how far the dead-letter topics have been read for what came back
        Column("created_at", BigInteger, nullable=False),
        Column("finished_at", BigInteger),
        Column("owner", TEXT, nullable=False),
        Column("epoch", BigInteger, nullable=False),  # grows by one with every owner
        Column("lease_until", BigInteger, nullable=False),
    ]


def _replays(metadata: MetaData) -> Table:
    replays = Table(
        "replays",
        metadata,
        Column("job", TEXT, primary_key=True),
        Column("position", BigInteger, primary_key=True, autoincrement=False),  # in the order of the dead-letter topics
        Column("letter", BigInteger, nullable=False),
        Column("outcome", TEXT),  # null: not known yet
        Column("detail", TEXT, nullable=False),
        Column("again_topic", TEXT),  # the dead letter that its replay became, where it failed again
        Column("again_id", TEXT),
    )
    # A letter is in one job at a time, whoever makes them.
    busy = replays.c.outcome.is_(None)
    Index("replays_busy", replays.c.letter, unique=True, postgresql_where=busy, sqlite_where=busy)
    Index("replays_letter", replays.c.letter)
    Index("replays_outcome", replays.c.job, replays.c.outcome)
    return replays


def _letter_columns() -> list[Column[object]]:
    return [
        Column("letter", _NUMBER, Identity(), primary_key=True),  # in the order of indexing
        Column("dlq_topic", TEXT, nullable=False),
        Column("dlq_partition", Integer, nullable=False),
        Column("dlq_offset", BigInteger, nullable=False),
        Column("dlq_timestamp", BigInteger, nullable=False),
        Column("id", TEXT, nullable=False),
        Column("dialect", TEXT, nullable=False),
        Column("pipeline", TEXT, nullable=False),
        Column("stage", TEXT, nullable=False),
        Column("error_type", TEXT, nullable=False),
        Column("message", TEXT, nullable=False),
        Column("fingerprint", TEXT, nullable=False),
        Column("rules", TEXT, nullable=False),  # "|name|name|", "" without
        Column("origin_topic", TEXT, nullable=False),
        Column("origin_partition", BigInteger, nullable=False),
        Column("origin_offset", BigInteger, nullable=False),
        Column("origin_timestamp", BigInteger),
        Column("schema_version", TEXT, nullable=False),
        Column("attempt", BigInteger, nullable=False),
        Column("replays", BigInteger, nullable=False),
        Column("replay_of", TEXT),
        Column("first_failed", BigInteger, nullable=False),
        Column("last_failed", BigInteger, nullable=False),
        Column("key", TEXT),
        Column("payload", _JSON),
        Column("detail", _JSON, nullable=False),  # reasons, headers, stack, context, text of a value that is no JSON, …
        Column("repeats", BigInteger, nullable=False),  # how often the topic has it again
        Column("state", TEXT, nullable=False),
        Column("closed_at", BigInteger),
    ]


COPIED: tuple[str, ...] = tuple(column.name for column in _letter_columns() if column.name != "letter")
"""The columns that are written, in order."""
