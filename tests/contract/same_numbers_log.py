"""A log that no engine likes, and the answer to it in plain SQL over what each record was meant to be."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from tests.reference import Record, as_replay

PARTITIONS = 4  # even, skewed (most of the records), slow (far behind), and one that stays empty
DELAY, ALLOWED, SKEW = 2_000, 1_000, 60_000
SIZE, HOP_SIZE, HOP = 10_000, 25_000, 7_000
START = 1_700_000_000_000
FAR = 10**12  # ms, the dedupe horizon: for ever

MEASURES: dict[str, tuple[str, str | None]] = {
    "n": ("count", None),
    "n_price": ("count", "price"),
    "sum_amount": ("sum", "amount"),
    "sum_total": ("sum", "total"),
    "sum_fare": ("sum", "fare"),
    "sum_price": ("sum", "price"),
    "avg_total": ("avg", "total"),
    "avg_fare": ("avg", "fare"),
    "avg_price": ("avg", "price"),
    "min_user": ("min", "user"),
    "max_fare": ("max", "fare"),
    "min_ok": ("min", "ok"),
    "max_day": ("max", "day"),
    "max_at": ("max", "seen"),
    "min_price": ("min", "price"),
    "users": ("approxDistinct", "user"),
    "days": ("approxDistinct", "day"),
    "first_user": ("first", "user"),
    "last_total": ("last", "total"),
    "last_fare": ("last", "fare"),
    "last_ok": ("last", "ok"),
    "first_day": ("first", "day"),
}

PIPELINE: dict[str, Any] = {
    "pipelineId": "same-numbers",
    "source": {"topics": ["same-numbers"], "key": {"column": "k"}},
    "schema": [
        {"name": "id", "type": "string"},
        {"name": "user", "type": "string"},
        {"name": "colour", "type": "string"},
        {"name": "amount", "type": "int", "nullable": False},
        {"name": "total", "type": "bigint"},
        {"name": "fare", "type": "decimal(18,4)"},
        {"name": "price", "type": "double"},
        {"name": "ok", "type": "boolean"},
        {"name": "day", "type": "date"},
        {"name": "seen", "type": "timestamp", "unit": "ms"},
    ],
    "eventTime": {
        "column": "seen",
        "delay": f"{DELAY} ms",
        "allowedLateness": f"{ALLOWED} ms",
        "maxFutureSkew": f"{SKEW} ms",
        "idleTimeout": "1 second",
    },
    "rules": [
        {"type": "range", "column": "amount", "min": 0},
        {"type": "regex", "column": "colour", "pattern": "[a-zü]+"},
    ],
    "dedupe": {"key": "id", "horizon": f"{FAR} ms"},
    "aggregations": [
        {
            "name": name,
            "window": {"size": f"{size} ms"}
            if size == hop
            else {"type": "hopping", "size": f"{size} ms", "hop": f"{hop} ms"},
            "groupBy": list(group),
            "measures": {m: {"type": kind, "of": of} if of else kind for m, (kind, of) in MEASURES.items()},
        }
        for name, size, hop, group in (
            ("by_key", SIZE, SIZE, ("k",)),  # stays in its partition
            ("by_colour", HOP_SIZE, HOP, ("colour", "ok")),  # spreads
            ("overall", SIZE, SIZE, ()),  # spreads, into a single group
        )
    ],
}
AGGREGATES = {
    "by_key": (SIZE, SIZE, ("k",)),
    "by_colour": (HOP_SIZE, HOP, ("colour", "ok")),
    "overall": (SIZE, SIZE, ()),
}


@dataclass(frozen=True, slots=True)
class Meant:
    """What a record was meant to be. `fault`: the error type it must be dead-lettered for; `skipped`: a tombstone; `repeat`: it
    is a replay that was sent before, and counts for nothing."""

    partition: int
    offset: int
    timestamp: int
    k: str | None = None
    id: str | None = None
    user: str | None = None
    colour: str | None = None
    amount: int | None = None
    total: int | None = None
    fare: Decimal | None = None
    price: float | None = None
    ok: bool | None = None
    day: date | None = None
    seen: int | None = None
    replay: bool = False
    fault: str | None = None
    skipped: bool = False
    repeat: bool = False

    def record(self, value: bytes | str | None = "") -> Record:
        """The record, with `value` in place of its own JSON."""
        if value == "":
            fields = ("id", "user", "colour", "amount", "total", "fare", "price", "ok", "day", "seen")
            texts = {name: _json(getattr(self, name)) for name in fields}
            value = ("{" + ", ".join(f'"{name}": {text}' for name, text in texts.items()) + "}").encode()
        headers = (("tidegate.replay.of", b"same-numbers-0-1-decode"),) if self.replay else ()
        assert not isinstance(value, str)
        return Record(self.offset, self.timestamp, value, headers, None if self.k is None else self.k.encode())


def _json(value: Any) -> str:
    return str(value) if isinstance(value, Decimal) else json.dumps(str(value) if isinstance(value, date) else value)


# Values that are refused, and what for.
_BROKEN: tuple[tuple[bytes, str], ...] = (
    (b"", "EmptyValue"),
    (b'{"amount": 1', "MalformedJson"),
    (b"[1]", "NotAnObject"),
    (b'{"user": "\xe9", "amount": 1}', "InvalidUtf8"),
    (b'{"amount": "12"}', "WrongType"),
    (b'{"user": "a"}', "MissingField"),
    (b'{"amount": null}', "NullField"),
)


TOPIC: str = PIPELINE["source"]["topics"][0]


def of_topic(logs: Sequence[Sequence[Record]], topic: str) -> list[list[Record]]:
    """As jobs would have sent their replays to this topic."""
    there = f"{TOPIC}/".encode()
    return [
        [r._replace(headers=tuple((n, v.replace(there, f"{topic}/".encode())) for n, v in r.headers)) for r in log]
        for log in logs
    ]


class _Jobs:
    """Two replay jobs that have sent most of the replays, and now and then one a second time; others, made of what a job has
    sent to another partition, have all its headers."""

    def __init__(self, seed: int) -> None:
        self._rng, self._positions = random.Random(seed), dict.fromkeys(("0123456789abcdef", "fedcba9876543210"), 0)
        self._sent: list[list[tuple[Meant, Record]]] = [[] for _ in range(PARTITIONS)]

    def send(self, one: Meant, record: Record) -> tuple[Meant, Record]:
        """What becomes of a record that comes next in its partition."""
        sent, chance = self._sent[one.partition], self._rng.random()
        if sent and chance < 0.04:
            before, again = self._rng.choice(sent)
            place = {"offset": one.offset, "timestamp": one.timestamp}
            return replace(before, **place, repeat=True), again._replace(**place)
        if not one.replay or chance < 0.3:
            return one, record
        job = self._rng.choice(list(self._positions))
        if chance < 0.4:
            return one, as_replay(record, job, 1, f"{TOPIC}/{one.partition + 1}")
        self._positions[job] += 1
        record = as_replay(record, job, self._positions[job], f"{TOPIC}/{one.partition}")
        sent.append((one, record))
        return one, record


def make_log(records: int, seed: int = 7) -> tuple[list[list[Record]], list[Meant]]:
    """Records per partition, and what they were meant to be. `records`: how many in all partitions together."""
    rng, jobs = random.Random(seed), _Jobs(seed)
    logs: list[list[Record]] = [[] for _ in range(PARTITIONS)]
    meant: list[Meant] = []
    clocks = [START, START, START - 3 * HOP_SIZE, START]
    used: list[list[str]] = [[] for _ in range(PARTITIONS)]
    for number in range(records):
        partition = rng.choices((0, 1, 2), (2, 7, 1))[0]
        clocks[partition] += rng.randrange(1, 900 if rng.random() < 0.01 else 60) * (10_000 // records + 1)
        one = _event(rng, partition, len(logs[partition]), clocks[partition], number, used[partition])
        one, value = _spoilt(rng, one)
        one, record = jobs.send(one, one.record(value))
        if one.id is not None:
            used[partition].append(one.id)
        logs[partition].append(record)
        meant.append(one)
    return logs, meant


def _event(rng: random.Random, partition: int, offset: int, now: int, number: int, used: list[str]) -> Meant:
    """Mostly a little out of order, sometimes much too late; some duplicates, some replays."""
    behind = rng.randrange(1_500) if rng.random() < 0.85 else rng.randrange(60_000)
    replay = rng.random() < 0.03
    identity = (
        None if replay or rng.random() < 0.2 else rng.choice(used) if used and rng.random() < 0.08 else f"r{number}"
    )

    def maybe(value: Any) -> Any:
        return None if rng.random() < 0.1 else value

    return Meant(
        partition,
        offset,
        now,
        k=f"p{partition}-{rng.randrange(6)}",
        id=identity,
        user=maybe(rng.choice(["ann", "bob", "zoë", "名前", 'q"\\', ""])),
        colour=rng.choice(["red", "grün", "blue"]),
        amount=rng.choice([0, 1, rng.randrange(2**31)]),
        total=maybe(rng.choice([rng.randrange(-(2**63), 2**63), 2**63 - 1])),
        fare=maybe(Decimal(rng.randrange(-(10**17), 10**17)).scaleb(-4)),
        price=maybe(rng.choice([0.1, 1e9 * rng.random(), -2.5])),
        ok=maybe(rng.random() < 0.5),
        day=maybe(date(1969, 12, 1) + timedelta(days=rng.randrange(60))),
        seen=now - behind,
        replay=replay,
    )


def _spoilt(rng: random.Random, one: Meant) -> tuple[Meant, bytes | str | None]:
    """One in ten is wrong in one of the ways there are."""
    chance = rng.random()
    if chance < 0.005:
        return replace(one, skipped=True), None
    if chance < 0.03:
        value, fault = rng.choice(_BROKEN)
        return replace(one, fault=fault), value
    if chance < 0.045:
        return replace(one, amount=-1, fault="RuleViolation"), ""
    if chance < 0.06:
        return replace(one, colour="RED", fault="RuleViolation"), ""
    if chance < 0.07:
        return replace(one, seen=None, fault="MissingEventTime"), ""
    if chance < 0.08:
        return replace(one, seen=one.timestamp + SKEW + rng.randrange(1, 10**9), fault="FutureEventTime"), ""
    if chance < 0.09:
        return replace(
            one, seen=one.timestamp + rng.randrange(SKEW // 20)
        ), ""  # ahead, and valid: it makes others late
    return one, ""


_TYPES = {
    "partition": pa.int32(), "offset": pa.int64(), "timestamp": pa.int64(), "k": pa.string(), "id": pa.string(),
    "user": pa.string(), "colour": pa.string(), "amount": pa.int32(), "total": pa.int64(), "fare": pa.decimal128(18, 4),
    "price": pa.float64(), "ok": pa.bool_(), "day": pa.date32(), "seen": pa.int64(), "replay": pa.bool_(),
    "fault": pa.string(), "skipped": pa.bool_(), "repeat": pa.bool_(),
}  # fmt: skip

_SQL = {
    "count": "count({of})",
    "sum": "sum({of})",
    "avg": "sum({of})::DOUBLE / nullif(count({of}), 0)",
    "min": "min({of})",
    "max": "max({of})",
    "approxDistinct": "count(DISTINCT {of})",
    "first": 'arg_min({of}, ("seen", "offset", {of})) FILTER ({of} IS NOT NULL)',
    "last": 'arg_max({of}, ("seen", "offset", {of})) FILTER ({of} IS NOT NULL)',
}


class Truth:
    """The answer by SQL over the records as they were meant; nothing of tidegate takes part in it."""

    def __init__(self, meant: Sequence[Meant], *, delay: int = DELAY) -> None:
        self._con = duckdb.connect()
        rows = [asdict(one) for one in meant]
        self._con.register("meant", pa.table({n: pa.array([r[n] for r in rows], t) for n, t in _TYPES.items()}))
        self._con.execute(f"""
            CREATE TABLE valid AS SELECT * FROM meant WHERE fault IS NULL AND NOT skipped AND NOT repeat
            QUALIFY id IS NULL OR row_number() OVER (PARTITION BY "partition", id ORDER BY "offset") = 1;
            CREATE TABLE barred AS SELECT *, max("seen") FILTER (NOT replay) OVER (
                PARTITION BY "partition" ORDER BY "offset" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) - {delay + ALLOWED} AS bar FROM valid;
            CREATE TABLE panes AS {" UNION ALL ".join(map(_panes, AGGREGATES))};
            CREATE TABLE missing AS SELECT "partition", "offset", bool_and(missed) AS entirely FROM panes
            GROUP BY ALL HAVING bool_or(missed)
        """)

    def rows(self, name: str, *, late: bool = False) -> dict[tuple[Any, ...], dict[str, Any]]:
        """(start ms, end ms, *group) → measure → result. `late`: of all valid records, also in the windows that missed them."""
        keys = ["window_start", "window_end", *(f'"{column}"' for column in AGGREGATES[name][2])]
        measures = [_SQL[kind].format(of="*" if of is None else f'"{of}"') for kind, of in MEASURES.values()]
        found = self._con.execute(
            f"SELECT {', '.join([*keys, *measures])} FROM panes WHERE aggregation = '{name}' AND (NOT missed OR {late}) "
            f"GROUP BY {', '.join(keys)}"
        ).fetchall()
        return {row[: len(keys)]: dict(zip(MEASURES, row[len(keys) :], strict=True)) for row in found}

    def missing(self, span: tuple[int, int]) -> int:
        """How many records the windows of two aggregations that start in the span (ms) miss, once per window."""
        found = self._con.execute(
            f"SELECT count(*) FROM panes WHERE missed AND aggregation <> 'overall' AND window_start >= {span[0]} "
            f"AND window_start < {span[1]}"
        ).fetchall()
        return int(found[0][0])

    def late(self) -> set[tuple[int, int, bool]]:
        """(partition, offset, whether it counted for other windows)."""
        return set(self._con.execute('SELECT "partition", "offset", NOT entirely FROM missing').fetchall())

    def dead(self) -> dict[tuple[int, int], str]:
        """(partition, offset) → error type."""
        sql = 'SELECT "partition", "offset", fault FROM meant WHERE fault IS NOT NULL AND NOT repeat'
        found = self._con.execute(sql).fetchall()
        return {(partition, offset): fault for partition, offset, fault in found}

    def ledgers(self) -> dict[int, dict[str, int]]:
        """Partition → the account of its records."""
        found = self._con.execute("""
            SELECT m."partition", count(*), count(*) FILTER (v."offset" IS NOT NULL AND NOT coalesce(l.entirely, false)),
                   count(fault) FILTER (NOT repeat), count(*) FILTER (l.entirely),
                   count(*) FILTER (repeat OR fault IS NULL AND NOT skipped AND v."offset" IS NULL),
                   count(*) FILTER (skipped AND NOT repeat), count(*) FILTER (replay)
            FROM meant m LEFT JOIN (SELECT "partition", "offset" FROM valid) v USING ("partition", "offset")
            LEFT JOIN missing l USING ("partition", "offset") GROUP BY 1
        """).fetchall()
        names = ("read", "accepted", "dead_lettered", "late", "duplicate", "skipped", "replayed")
        return {row[0]: dict(zip(names, row[1:], strict=True)) for row in found}


def _panes(name: str) -> str:
    size, hop, _ = AGGREGATES[name]
    return f"""SELECT b.*, '{name}' AS aggregation, window_start, window_start + {size} AS window_end,
        NOT replay AND coalesce(window_start + {size} <= bar, false) AS missed
        FROM barred b, (SELECT unnest(range({-(-size // hop)})) AS back) hops,
             LATERAL (SELECT "seen" // {hop} * {hop} - back * {hop} AS window_start) starts
        WHERE window_start + {size} > "seen" """
