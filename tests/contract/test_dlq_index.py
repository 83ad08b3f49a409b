"""The index of dead letters: one suite, both databases."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, inspect

from dlq.index.database import IndexDatabase
from dlq.index.filters import FieldIs, LetterFilter
from dlq.index.groups import GroupCursor, GroupOrder
from dlq.index.history import HistoryFilter
from dlq.index.letters import index_row
from dlq.index.lifecycle import Lifecycle
from dlq.index.masking import Masker
from dlq.index.search import IndexReader
from dlq.index.writer import IndexWriter
from dlq.replay.jobs import FORGOTTEN, IN_SPITE, SENDS_AGAIN, Jobs
from dlq.replay.outcome import Outcomes
from dlq.replay.request import Request
from dlq.retention import note_retentions
from tests.delivered import Record
from tests.unit.dlq.dead_letters import letter as make
from tests.unit.dlq.dead_letters import rejection, written
from tidegate.clock import ManualClock
from tidegate.config.deadletters import DeadLetters, Mask
from tidegate.errors import ConfigError
from tidegate.record import Stage, TopicPartition
from tidegate.stages.batch import Reason

TP = TopicPartition("flights.dlq", 0)
DAY = 86_400_000


def dead(
    offset: int,
    *,
    at: int | None = None,
    source: int | None = None,
    message: str = "expected bigint, found 'x'",
    rule: str | None = None,
    **fields: Any,
) -> Record:
    """Our own dead letter at `offset` of the dead-letter topic. `source`: the offset that failed; default the same."""
    source = offset if source is None else source
    failed_at = 1_700_000_000_000 + offset * 1000 if at is None else at
    reason = Reason(fields.pop("error", "WrongType"), message, rule=rule, field="dep_time", found="x")
    failed = rejection(
        source, reasons=(reason,), stage=fields.pop("stage", Stage.DECODE), **fields.pop("rejection", {})
    )
    key, value, headers = written(make(source, now_ms=failed_at, failed=failed, **fields))
    return Record(offset, failed_at, key, value, tuple(headers))


class Index:
    """Everything of one index, and a shorthand for writing."""

    def __init__(self, url: str, *masks: Mask) -> None:
        self.clock = ManualClock(1_700_000_000.0)
        self.database = IndexDatabase(url, DeadLetters())
        self.writer = IndexWriter(self.database, self.clock)
        self.reader, self.lifecycle = IndexReader(self.database), Lifecycle(self.database, self.clock)
        self.masker = Masker(masks)

    def write(self, records: Sequence[Record], tp: TopicPartition = TP) -> int:
        return self.writer.write(tp, [index_row(record, tp, self.masker) for record in records], records[-1].offset)

    def ids(self, wanted: LetterFilter | None = None) -> list[str]:
        return [letter["id"] for letter in self.reader.every(wanted or LetterFilter())]

    @property
    def only_group(self) -> dict[str, Any]:
        (group,) = self.reader.groups()
        return group


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def open_index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Index]]:
    """`open_index(*masks)`: an index in a fresh database."""
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'index.sqlite'}" if sqlite else request.getfixturevalue("postgres").url
    opened: list[Index] = []

    def open_(*masks: Mask) -> Index:
        opened.append(Index(url, *masks))
        opened[-1].database.prepare()
        return opened[-1]

    yield open_
    for index in opened:
        index.database.close()


@pytest.fixture
def index(open_index: Callable[..., Index]) -> Index:
    return open_index()


def test_once_per_offset(index: Index) -> None:
    """A batch that is written again, or cut in another place, changes nothing; the partition goes on after it."""
    records = [dead(offset) for offset in range(10)]
    assert index.write(records[:6]) == 6
    assert index.write(records[:6]) == 0
    assert index.write(records[2:]) == 4
    assert index.writer.starts([TP, TopicPartition("other", 1)]) == {TP: 9, TopicPartition("other", 1): -1}
    assert sorted(index.ids()) == sorted(f"flights-1-{offset}" for offset in range(10))
    assert (index.only_group["count"], index.only_group["open"]) == (10, 10)


def test_once_per_id(index: Index) -> None:
    """The same failure written to the topic again is one letter, which says how often it came again."""
    index.write([dead(0), dead(1, source=0), dead(2)])
    index.write([dead(3, source=2), dead(4, source=0)])
    repeats = {letter["id"]: letter["repeats"] for letter in index.reader.every(LetterFilter())}
    assert repeats == {"flights-1-0": 2, "flights-1-2": 1}
    assert index.only_group["count"] == 2


def test_two_topics_may_have_the_same_id(index: Index) -> None:
    """Two tools that dead-letter the same record make two letters."""
    other = TopicPartition("connect.dlq", 0)
    index.write([dead(0)])
    index.write([dead(0)], other)
    assert [letter["dlq_topic"] for letter in index.reader.every(LetterFilter())] == ["connect.dlq", "flights.dlq"]
    assert index.only_group["facets"]["topic"] == {"connect.dlq": 1, "flights.dlq": 1}


def test_groups_count_what_is_there(index: Index, seed: int) -> None:
    """Counters, times, facets and rates of every group are those that counting the letters gives."""
    rng, offset, letters = random.Random(seed), 0, []
    for _ in range(12):
        records = []
        for _ in range(rng.randrange(1, 30)):
            error, rule = rng.choice(["WrongType", "MissingField"]), rng.choice([None, "sane", "known"])
            at = 1_700_000_000_000 + rng.randrange(10 * 3_600_000)
            source = rng.randrange(400)
            records.append(dead(offset, at=at, source=source, error=error, rule=rule))
            offset += 1
        index.write(records)
    letters = list(index.reader.every(LetterFilter()))
    groups = index.reader.groups(limit=100)
    assert Counter({group["fingerprint"]: group["count"] for group in groups}) == Counter(
        letter["fingerprint"] for letter in letters
    )
    for group in groups:
        own = [letter for letter in letters if letter["fingerprint"] == group["fingerprint"]]
        assert group["open"] == len(own)
        assert group["first_seen"] == min(letter["first_failed"] for letter in own)
        assert group["facets"]["version"] == {"flights@0": len(own)}
        (rates,) = index.reader.rates(group["fingerprint"], since=0).values()
        assert sum(count for _, count in rates) == len(own)
        assert index.reader.count(LetterFilter(group=(group["fingerprint"],))).number == len(own)
    assert index.reader.stats()["letters"] == len(letters) == len({letter["id"] for letter in letters})


def test_pages(index: Index) -> None:
    """Pages follow each other without a gap or a repeat, newest first, also when many letters failed at one time."""
    index.write([dead(offset, at=1_700_000_000_000 + offset // 7) for offset in range(40)])
    seen, after = [], None
    while True:
        page = index.reader.page(LetterFilter(), after=after, limit=6)
        seen += [letter["id"] for letter in page.letters]
        after = page.next
        if after is None:
            break
    assert seen == [f"flights-1-{offset}" for offset in reversed(range(40))]


@pytest.mark.parametrize("reach", [1, 4, 13])
def test_pages_of_what_is_rare_and_of_what_is_frequent(
    index: Index, reach: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far a page is first looked for among the newest, the pages are those of the whole index in order."""
    monkeypatch.setattr("dlq.index.search._REACH", reach)
    index.write(
        [
            dead(offset, message=f"odd {offset}" if offset % 3 else "even", at=1_000 + offset // 2)
            for offset in range(40)
        ]
    )
    for wanted, expected in (
        (LetterFilter(text="even"), [offset for offset in reversed(range(40)) if offset % 3 == 0]),
        (LetterFilter(text="17"), [17]),
        (LetterFilter(text="odd", state=("resolved",)), []),
    ):
        seen, after = [], None
        while True:
            page = index.reader.page(wanted, after=after, limit=4)
            seen += [letter["id"] for letter in page.letters]
            after = page.next
            if after is None:
                break
        assert seen == [f"flights-1-{offset}" for offset in expected]


def test_life_of_a_group(index: Index) -> None:
    """open → acknowledged → resolved → reopened by a letter that comes after; every act is in the history."""
    index.write([dead(0), dead(1)])
    name = index.only_group["fingerprint"]
    index.lifecycle.acknowledge(name, actor="ada", note="looking")
    assert (index.only_group["state"], index.only_group["note"]) == ("acknowledged", "looking")
    index.write([dead(2)])
    assert index.only_group["state"] == "acknowledged"
    assert index.lifecycle.resolve(name, actor="ada", note="mended in 1.2") == 3
    group = index.only_group
    assert (group["state"], group["open"], group["count"], group["note"]) == ("resolved", 0, 3, "mended in 1.2")
    assert {letter["state"] for letter in index.reader.every(LetterFilter())} == {"resolved"}
    index.write([dead(3)])
    group = index.only_group
    assert (group["state"], group["open"], group["count"], group["reopened"]) == ("open", 1, 4, 1)
    acts = [(entry["actor"], entry["action"]) for entry in index.reader.history(HistoryFilter(group=name))]
    assert acts == [("index", "reopen"), ("ada", "resolve"), ("ada", "acknowledge")]


def test_a_repeat_does_not_reopen_our_own(index: Index) -> None:
    """Our own failure written twice is nothing new; another tool's record that failed again is."""
    headers = [
        ("__connect.errors.topic", b"o"),
        ("__connect.errors.partition", b"0"),
        ("__connect.errors.offset", b"1"),
    ]
    index.write([dead(0), Record(1, 5, None, b"{}", tuple(headers))])
    for group in index.reader.groups():
        index.lifecycle.resolve(group["fingerprint"], actor="ada")
    index.write([dead(2, source=0)])
    assert index.reader.stats()["open"] == 0
    index.write([Record(3, 6, None, b"{}", tuple(headers))])
    (group,) = index.reader.groups(state=("open",))
    assert (group["count"], group["open"], group["reopened"]) == (1, 1, 1)
    assert index.ids(LetterFilter(state=("open",))) == ["o-0-1"]


def test_closing_letters(index: Index) -> None:
    """Letters are closed in the caller's transaction; the group is resolved with its last one, and nothing is closed twice."""
    index.write([dead(offset) for offset in range(3)])
    letters = index.database.tables.letters.c

    def close(*ids: str) -> int:
        with index.database.transaction() as connection:
            return index.lifecycle.close(connection, letters.id.in_(ids), actor="replay")

    assert close("flights-1-0") == 1
    assert close("flights-1-0") == 0
    assert (index.only_group["state"], index.only_group["open"]) == ("open", 2)
    assert close("flights-1-1", "flights-1-2") == 2
    assert (index.only_group["state"], index.only_group["open"]) == ("resolved", 0)


def test_parking(index: Index) -> None:
    """Parked letters are not open; unparked they are again, their group too, and their replays count anew."""
    index.write([dead(offset, headers=(("tidegate.dlq.replays", b"2"),)) for offset in range(3)])
    assert index.lifecycle.park(LetterFilter(id=("flights-1-0",)), actor="ada", note="tests") == 1
    assert index.ids(LetterFilter(state=("parked",))) == ["flights-1-0"]
    assert index.lifecycle.park(LetterFilter(), actor="ada") == 2
    assert (index.only_group["state"], index.only_group["open"]) == ("resolved", 0)
    assert index.lifecycle.unpark(LetterFilter(id=("flights-1-0",)), actor="ada") == 1
    assert (index.only_group["state"], index.only_group["open"]) == ("open", 1)
    replays = {letter["id"]: letter["replays"] for letter in index.reader.every(LetterFilter())}
    assert replays == {"flights-1-0": 0, "flights-1-1": 2, "flights-1-2": 2}
    assert [entry["action"] for entry in index.reader.history()] == [
        "unparked letters", "parked letters", "parked letters",
    ]  # fmt: skip


def test_an_unknown_group(index: Index) -> None:
    """Acting on a group that is not there is an error that names it."""
    with pytest.raises(ConfigError, match="no-such"):
        index.lifecycle.resolve("no-such", actor="ada")


VALUES = [
    {"carrier": "UA", "flight": 17, "late": True, "to": {"code": "IAH"}},
    {"carrier": "AA", "flight": "17", "late": False, "to": {"code": "JFK"}},
    {"carrier": "UA", "flight": 18.5, "late": None, "to": {"code": "J'F\"K"}},
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (LetterFilter(), {0, 1, 2, 3}),
        (LetterFilter(field=(FieldIs.parse("carrier=UA"),)), {0, 2}),
        (LetterFilter(field=(FieldIs.parse("flight=17"),)), {0, 1}),
        (LetterFilter(field=(FieldIs.parse("late=true"),)), {0}),
        (LetterFilter(field=(FieldIs.parse("to.code=JFK"), FieldIs.parse("carrier=AA"))), {1}),
        (LetterFilter(field=(FieldIs.parse("to.code=J'F\"K"),)), {2}),
        (LetterFilter(field=(FieldIs.parse("to.nothing=JFK"),)), set()),
        (LetterFilter(text="departure"), {0, 1}),
        (LetterFilter(text="Departure gate"), {1}),
        (LetterFilter(text="depart*"), {0, 1}),
        (LetterFilter(text="\" OR 1=1 -- ' & | ! * ("), set()),
        (LetterFilter(text="…"), set()),
        (LetterFilter(stage=("validate",)), {2}),
        (LetterFilter(error=("wrongtype",)), {0, 1, 3}),
        (LetterFilter(rule=("sane_distance",)), {2}),
        (LetterFilter(rule=("sane%",)), set()),
        (LetterFilter(key=("k1",)), {1}),
        (LetterFilter(source=("flights",), topic=("flights.dlq",), pipeline=("flights",)), {0, 1, 2, 3}),
        (LetterFilter(source=("'; DROP TABLE letters; --",)), set()),
        (LetterFilter(since=1_700_000_001_000, until=1_700_000_003_000), {1, 2}),
        (LetterFilter(id=("flights-1-3",)), {3}),
        (LetterFilter(state=("resolved",)), set()),
    ],
)
def test_filters(index: Index, wanted: LetterFilter, found: set[int]) -> None:
    """Every part of the filter finds what it says, whatever is typed; the URL's form means the same."""
    messages = ["no departure time", "no departure gate", "too far", "odd"]
    index.write(
        [
            dead(
                number,
                message=messages[number],
                key=b"k%d" % number,
                value=json.dumps(VALUES[number]).encode() if number < 3 else b"\xff no JSON",
                stage=Stage.VALIDATE if number == 2 else Stage.DECODE,
                error="RuleViolation" if number == 2 else "WrongType",
                rule="sane_distance" if number == 2 else None,
            )
            for number in range(4)
        ]
    )
    assert set(index.ids(wanted)) == {f"flights-1-{number}" for number in found}
    assert index.reader.count(wanted).number == len(found)
    params: dict[str, list[str]] = {}
    for name, value in wanted.to_params():
        params.setdefault(name, []).append(value)
    assert LetterFilter.from_params(params) == wanted


HOSTILE = [
    b'{"a": "\\u0000 nul", "b": "\\u202e rtl \\u001b[31m"}',
    b'{"a": 123456789012345678901234567890123456789012345678901234567890}',
    b'{"a": ' + b"9" * 5_000 + b"}",
    b'{"a": 1e400}',
    b'{"a": "\\ud800"}',
    b'{"a": 1, "a": 2}',
    b'"\\\\u0000"',
    b"[" * 900 + b"]" * 900,
    b"[" * 100_000,
    b"\x00\xff\xfe",
    b"",
    b'"' + b"x" * 2_000_000 + b'"',
    b"NaN",
    b'{"": {"": 1}}',
]


@pytest.mark.parametrize("masked", [False, True])
def test_hostile_letters_are_indexed(open_index: Callable[..., Index], masked: bool) -> None:
    """Whatever key, value, header and message are, the letter is found, and its batch with it."""
    index = open_index(Mask(path="a"), Mask(regex=r"\d{4}")) if masked else open_index()
    records = [
        Record(
            offset,
            1_700_000_000_000,
            value,
            value,
            (("h\x00", value[:100]), ("__connect.errors.exception.message", value[:5000]), ("\u202e", None)),
        )
        for offset, value in enumerate(HOSTILE)
    ]
    assert index.write([*records, dead(len(records))]) == len(records) + 1
    assert len(index.ids()) == len(records) + 1
    assert index.reader.stats()["letters"] == len(records) + 1


def test_extreme_numbers(index: Index) -> None:
    """Numbers that no column holds do not stop the index."""
    huge = b"9" * 30
    names = ("topic", "partition", "offset")
    headers = tuple((f"__dlq.errors.{name}", b"o" * 5_000 if name == "topic" else huge) for name in names)
    assert index.write([Record(0, -1, None, None, headers)]) == 1
    assert index.ids()[0].startswith("ooo")


def test_masking(open_index: Callable[..., Index]) -> None:
    """What a mask names is in no column of no table: not in the value, the message that quotes it, headers or keys."""
    index = open_index(
        Mask(path="card.number"), Mask(path="items[].owner"), Mask(header="Authorization"), Mask(regex=r"[\w.]+@[\w.]+")
    )
    value = {
        "card": {"number": "4111-1111"},
        "items": [{"owner": "Alice"}, {"owner": "Bob"}],
        "mail": "a.b@example.org",
    }
    quoting = "card 4111-1111 of Alice <a.b@example.org> refused"
    index.write(
        [
            dead(
                0,
                message=quoting,
                value=json.dumps(value).encode(),
                key=b"4111-1111",
                headers=(("Authorization", b"Bearer s3cret"), ("note", b"for Alice")),
                rejection={"stack": f"ValueError: {quoting}"},
            ),
            dead(1, message="malformed: 'Carol'", value=b'{"card": {"number": "5222-2222"'),
            dead(2, message="x", value=b'{"card": {"number": 61166116}, "id": 61166116}'),
        ]
    )
    with index.database.transaction(reads=True) as connection:
        stored = "\n".join(
            str(row)
            for table in index.database.tables.metadata.sorted_tables
            for row in connection.execute(table.select())
        )
    for secret in ("4111", "Alice", "Bob", "example.org", "s3cret", "Carol", "5222"):
        assert secret not in stored
    assert index.reader.letter("flights-1-0")["message"] == "card *** of *** <***> refused"  # type: ignore[index]  # a missing letter fails the test
    assert index.reader.letter("flights-1-2")["payload"] == {"card": {"number": "***"}, "id": 61166116}  # type: ignore[index]  # a missing letter fails the test
    assert index.ids(LetterFilter(field=(FieldIs.parse("card.number=4111-1111"),))) == []
    assert index.ids(LetterFilter(text="Alice")) == []


def test_expiring(index: Index) -> None:
    """Open letters that retention is about to delete are told, with when; resolved ones and kept topics are not."""
    other = TopicPartition("kept.dlq", 0)
    index.write([dead(0, at=1_000 * DAY), dead(1, at=1_001 * DAY), dead(2, at=1_005 * DAY, rule="new", error="Other")])
    index.write([dead(0, at=900 * DAY)], other)
    note_retentions(index.database, {"flights.dlq": 7 * DAY, "kept.dlq": None}, index.clock)
    (entry,) = index.reader.expiring(1_006 * DAY, within=2 * DAY + 1)
    assert (entry["count"], entry["at"], entry["seen"], entry["dlq_topic"]) == (2, 1_007 * DAY, False, "flights.dlq")
    index.lifecycle.acknowledge(entry["fingerprint"], actor="ada")
    assert index.reader.expiring(1_006 * DAY, within=2 * DAY)[0]["seen"] is True
    index.lifecycle.resolve(entry["fingerprint"], actor="ada")
    assert index.reader.expiring(1_006 * DAY, within=2 * DAY) == []


def test_prepare_twice_and_a_foreign_table(index: Index) -> None:
    """Preparing again changes nothing; a table of another make is refused with a way out."""
    index.write([dead(0)])
    index.database.prepare()
    assert len(index.ids()) == 1
    with index.database.transaction() as connection:
        name = f"{index.database.schema}.topics" if index.database.schema else "topics"
        connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN mine integer")
    with pytest.raises(ConfigError, match="mine"):
        index.database.prepare()


def test_an_index_of_an_older_version_gets_what_has_come_since(index: Index) -> None:
    """Columns and database indexes that the tables lack are made when an agent starts; those that are there stay."""
    schema = index.database.schema
    prefix = f"{schema}." if schema else ""
    with index.database.transaction() as connection:
        before = {name for table in ("letters", "replays") for name in _indexes(connection, table, schema)}
        connection.exec_driver_sql(f"DROP INDEX {prefix}replays_letter")
        connection.exec_driver_sql(f"DROP INDEX {prefix}letters_open")
        connection.exec_driver_sql(f"ALTER TABLE {prefix}jobs DROP COLUMN doubtful")
    index.database.prepare()
    with index.database.transaction() as connection:
        after = {name for table in ("letters", "replays") for name in _indexes(connection, table, schema)}
    assert {"replays_letter", "letters_open"} <= before
    assert after == before
    with index.database.transaction() as connection:
        assert "doubtful" in {one["name"] for one in inspect(connection).get_columns("jobs", schema=schema)}


def _indexes(connection: Connection, table: str, schema: str | None) -> set[str | None]:
    return {one["name"] for one in inspect(connection).get_indexes(table, schema=schema)}


def test_a_topic_made_anew(index: Index) -> None:
    """After a restart of a partition its letters are read again, and those that are known are not counted twice."""
    index.write([dead(offset) for offset in range(5)])
    index.writer.restart(TP, -1)
    index.write([dead(0), dead(1, source=77)])
    assert sorted(index.ids()) == [
        "flights-1-0",
        "flights-1-1",
        "flights-1-2",
        "flights-1-3",
        "flights-1-4",
        "flights-1-77",
    ]


@pytest.mark.parametrize("order", ["impact", "newest", "oldest"])
def test_groups_come_page_by_page(index: Index, order: GroupOrder) -> None:
    """In each order, with many that are equal in it, the pages have every group once and in order."""
    index.write([dead(n, error=f"Kind{n % 11:02}", message="same", at=1_700_000_000_000 + n // 4) for n in range(37)])
    whole = [row["fingerprint"] for row in index.reader.groups(order=order)]
    paged: list[str] = []
    after: GroupCursor | None = None
    while True:
        page = index.reader.group_page(order=order, after=after, limit=4)
        paged += [row["fingerprint"] for row in page.groups]
        if page.next is None:
            break
        after = GroupCursor.parse(str(page.next), order)
    assert len(whole) == 11
    assert paged == whole


def test_history_comes_page_by_page_and_filtered(index: Index) -> None:
    """Newest first, each entry once; by who, what, group, letter and note."""
    for n in range(7):
        act = f"act {n % 2}"
        index.lifecycle.note(
            f"actor {n % 3}", act, fingerprint=f"g{n}", letter=("t", f"id{n}"), note=f"j{n}", detail={"n": n}
        )
    first = index.reader.history(limit=3)
    rest = index.reader.history(before=first[-1]["entry"])
    assert [entry["detail"]["n"] for entry in [*first, *rest]] == [6, 5, 4, 3, 2, 1, 0]
    for wanted, found in (
        (HistoryFilter(actor="actor 1"), [4, 1]),
        (HistoryFilter(action="act 1"), [5, 3, 1]),
        (HistoryFilter(group="g2"), [2]),
        (HistoryFilter(id="id2"), [2]),
        (HistoryFilter(note="j2", actor="actor 2"), [2]),
        (HistoryFilter(note="j2", actor="actor 1"), []),
    ):
        assert [entry["detail"]["n"] for entry in index.reader.every_entry(wanted)] == found


def test_bars_of_several_groups_at_once(index: Index) -> None:
    """Per group or over all, from where they are asked for."""
    start = 1_700_000_400_000  # where one bar of ten minutes begins
    index.write([dead(n, error=f"Kind{n % 2}", message="same", at=start + n * 600_000) for n in range(6)])
    one, other = (row["fingerprint"] for row in index.reader.groups(order="oldest"))
    rates = index.reader.rates(one, other, since=start + 600_000, bucket=1_800_000)
    assert rates == {
        one: [(start + 600_000, 1), (start + 2_400_000, 1)],
        other: [(start + 600_000, 2), (start + 2_400_000, 1)],
    }
    assert index.reader.rates(since=start, bucket=3_600_000) == {None: [(start, 6)]}


def test_how_many_are_open_is_known_without_counting(index: Index) -> None:
    """By the counters of the groups, as the letters themselves say."""
    index.write([dead(n, error=f"Kind{n % 2}", message="same") for n in range(9)])
    first = index.reader.groups()[0]["fingerprint"]
    index.lifecycle.resolve(first, actor="ada")
    assert LetterFilter(state=("open",)).only_groups
    for wanted in (
        LetterFilter(state=("open",)),
        LetterFilter(group=(first,), state=("open",)),
        LetterFilter(group=(first,)),
    ):
        assert index.reader.count(wanted).number == len(index.ids(wanted))


def test_jobs_come_page_by_page(index: Index) -> None:
    """Newest first, also those made in the same millisecond; by state; and of one letter those that it was in."""
    index.write([dead(n) for n in range(5)])
    jobs = Jobs(index.database, index.clock)
    made = [jobs.create(Request(LetterFilter(id=(f"flights-1-{n}",))), actor="ada").id for n in range(5)]
    first = [job.id for job in jobs.newest(2)]
    rest = [job.id for job in jobs.newest(before=first[-1])]
    assert sorted([*first, *rest]) == sorted(made)
    jobs.cancel(made[3], actor="ada")
    index.clock.advance(1)
    again = jobs.create(Request(LetterFilter(id=("flights-1-3",))), actor="ada").id
    assert jobs.newest()[0].id == again
    assert [job.id for job in jobs.newest(state=("cancelled",))] == [made[3]]
    row = index.reader.letter("flights-1-3")
    assert row is not None
    assert [(one["job"], one["outcome"]) for one in jobs.of_letter(row["letter"])] == [
        (made[3], "cancelled"), (again, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stopped", "resumed"),
    [
        ("9 of 10 failed again (90%), and 10% are allowed", IN_SPITE),
        (f"{FORGOTTEN} (offsets.retention.minutes)", SENDS_AGAIN),
        ("a topic does not take what is replayed to it", "resumed by ada"),
    ],
)
def test_only_a_job_that_has_stopped_for_failures_goes_on_in_spite_of_them(
    index: Index, stopped: str, resumed: str
) -> None:
    """Whoever resumes another one has mended something else, and knows nothing of what will fail."""
    index.write([dead(0)])
    jobs = Jobs(index.database, index.clock)
    job = jobs.create(Request(LetterFilter()), actor="ada", owner="me")
    Outcomes(jobs, index.clock).turned(job, "stopped", stopped)
    assert jobs.resume(job.id, actor="ada").reason.startswith(resumed)
