"""Which dead letters: one model for the shell, the console, the API and replays. From text, to text, to SQL."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, cast, false, func, literal, or_, select, text, types
from sqlalchemy.dialects.postgresql import JSONB

from dlq.encoding import parse_iso_utc
from dlq.index.database import IndexDatabase
from dlq.index.tables import OPEN, PARKED, REPLACED, RESOLVED
from tidegate.clock import Clock, SystemClock
from tidegate.config.durations import parse_duration
from tidegate.errors import ConfigError

STATES = (OPEN, RESOLVED, PARKED, REPLACED)
_MILLIS = re.compile(r"-?([0-9]{1,7}|[0-9]{9,18})")  # eight digits are a date


@dataclass(frozen=True, slots=True)
class FieldIs:
    """A field of the value, by path, has a value. `customer.country=NO`; a number or boolean also as JSON's."""

    path: tuple[str, ...]
    value: str

    @classmethod
    def parse(cls, written: str) -> FieldIs:
        """Raises ConfigError for something else than `path=value`."""
        path, equals, value = written.partition("=")
        steps = tuple(path.split("."))
        if not equals or not all(steps) or any("[" in step for step in steps):
            raise ConfigError(
                "not a field and its value", field="--field", value=written, expected="customer.country=NO"
            )
        return cls(steps, value)

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}={self.value}"


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """All of its parts must hold; of one part's values, any. Empty: every dead letter.

    `group`: fingerprints. `topic`: dead-letter topics; `source`: topics the records came from. `since` (included) and
    `until` (not): of the last failure, ms. `text`: words of the message, all of them; `word*` for a beginning. `id`:
    letters by id.
    """

    group: tuple[str, ...] = ()
    topic: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    pipeline: tuple[str, ...] = ()
    stage: tuple[str, ...] = ()
    error: tuple[str, ...] = ()
    rule: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    id: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    text: str | None = None
    field: tuple[FieldIs, ...] = ()

    def __post_init__(self) -> None:
        for state in self.state:
            if state not in STATES:
                raise ConfigError("no such state", field="--state", value=state, expected=", ".join(STATES))

    @classmethod
    def from_params(cls, params: Mapping[str, Sequence[str]], clock: Clock | None = None) -> LetterFilter:
        """From the query of a URL (name → values). Unknown names are left alone. Raises ConfigError."""
        given: dict[str, Any] = {}
        for name in (f.name for f in fields(cls)):
            values = [value for value in params.get(name, ()) if value]
            if not values:
                continue
            if name in ("since", "until"):
                given[name] = moment_of(values[-1], clock or SystemClock(), name)
            elif name == "text":
                given[name] = " ".join(values)
            else:
                given[name] = tuple(FieldIs.parse(v) for v in values) if name == "field" else tuple(values)
        return cls(**given)

    def to_params(self) -> list[tuple[str, str]]:
        """As `from_params` takes it."""
        params: list[tuple[str, str]] = []
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if isinstance(value, tuple):
                params += [(name, str(item)) for item in value]
            elif value is not None:
                params.append((name, str(value)))
        return params

    @property
    def only_groups(self) -> bool:
        """Whether counters of groups can answer how many there are: all, or those that are open."""
        return self.state in ((), (OPEN,)) and self == LetterFilter(group=self.group, state=self.state)


def condition(wanted: LetterFilter, database: IndexDatabase) -> ColumnElement[bool]:
    """The filter over the table `letters`. Everything a person gave is a bound parameter."""
    letters = database.tables.letters.c
    parts: list[ColumnElement[bool]] = []
    equal = {
        letters.fingerprint: wanted.group,
        letters.dlq_topic: wanted.topic,
        letters.origin_topic: wanted.source,
        letters.pipeline: wanted.pipeline,
        letters.state: wanted.state,
        letters.key: wanted.key,
        letters.id: wanted.id,
    }
    parts += [column.in_(values) for column, values in equal.items() if values]
    parts += _of_groups(wanted, database)
    if wanted.rule:
        parts.append(or_(*(letters.rules.contains(f"|{rule}|", autoescape=True) for rule in wanted.rule)))
    if wanted.since is not None:
        parts.append(letters.last_failed >= wanted.since)
    if wanted.until is not None:
        parts.append(letters.last_failed < wanted.until)
    if wanted.text is not None:
        parts.append(_words(wanted.text, database))
    parts += [_field(field, database) for field in wanted.field]
    return and_(literal(True), *parts)


def _of_groups(wanted: LetterFilter, database: IndexDatabase) -> list[ColumnElement[bool]]:
    """Stage, error and rule are the same for all letters of a group (or nearly), and groups are few: what is rare is
    found by the group's index and not by looking at every letter."""
    letters, groups, facets = database.tables.letters.c, database.tables.groups.c, database.tables.facets.c
    parts: list[ColumnElement[bool]] = []
    if wanted.stage:
        parts.append(letters.fingerprint.in_(select(groups.fingerprint).where(groups.stage.in_(wanted.stage))))
    if wanted.error:
        errors = [error.lower() for error in wanted.error]
        named = or_(func.lower(groups.error_type).in_(errors), groups.fingerprint.in_(errors))
        parts.append(letters.fingerprint.in_(select(groups.fingerprint).where(named)))
    for facet, values in (("rule", wanted.rule), ("source", wanted.source)):
        if values:
            having = (facets.facet == facet) & facets.value.in_(values)
            parts.append(letters.fingerprint.in_(select(facets.fingerprint).where(having)))
    return parts


def _words(given: str, database: IndexDatabase) -> ColumnElement[bool]:
    """Every word of `given` stands in the message. No query language: whatever is typed is searched for."""
    letters = database.tables.letters.c
    words = [word for word in given.split() if any(character.isalnum() for character in word)]
    if not words:
        return false()
    if database.is_postgres:
        vector = func.to_tsvector(text("'simple'"), letters.message)
        return and_(*(vector.op("@@")(_tsquery(word)) for word in words))
    phrases = ['"' + word.rstrip("*").replace('"', '""') + '"' + ("*" if word.endswith("*") else "") for word in words]
    found = text("SELECT rowid FROM letters_words WHERE letters_words MATCH :words")
    return letters.letter.in_(found.bindparams(bindparam("words", " ".join(phrases), unique=True)))


def _tsquery(word: str) -> ColumnElement[Any]:
    phrase = func.phraseto_tsquery(text("'simple'"), word.rstrip("*"))
    if not word.endswith("*"):
        return phrase
    return cast(func.concat(cast(phrase, types.Text), ":*"), _TsQuery())


class _TsQuery(types.UserDefinedType[str]):
    """PostgreSQL's tsquery."""

    cache_ok = True

    def get_col_spec(self, **_settings: Any) -> str:
        return "tsquery"


def _field(field: FieldIs, database: IndexDatabase) -> ColumnElement[bool]:
    payload = database.tables.letters.c.payload
    if database.is_postgres:
        return or_(*(payload.op("@>")(cast(_nested(field.path, value), JSONB)) for value in _meanings(field.value)))
    path = "$" + "".join("." + json.dumps(step, ensure_ascii=False) for step in field.path)
    kind, value = func.json_type(payload, path), func.json_extract(payload, path)
    return or_(
        and_(kind.in_(("true", "false")), kind == field.value),
        and_(kind.not_in(("true", "false")), cast(value, types.Text) == field.value),
    )


def _meanings(value: str) -> list[Any]:
    """The text itself, and the number or boolean that it is."""
    meanings: list[Any] = [value]
    try:
        decoded = json.loads(value)
    except (ValueError, RecursionError):
        return meanings
    if isinstance(decoded, bool | int | float) and decoded == decoded and abs(decoded) != float("inf"):
        meanings.append(decoded)
    return meanings


def _nested(path: Sequence[str], value: Any) -> Any:
    for step in reversed(path):
        value = {step: value}
    return value


def moment_of(written: str, clock: Clock, field: str) -> int:
    """A time as ms since the epoch, from that, ISO 8601 or a duration, which is counted back from now. Raises ConfigError."""
    moment_ms = int(written) if _MILLIS.fullmatch(written) else parse_iso_utc(written)
    if moment_ms is not None:
        return moment_ms
    try:
        return int(clock.time() * 1000) - parse_duration(written)
    except ValueError:
        expected = '"2 hours", "PT2H", "2026-01-31" or "2026-01-31T12:00Z"'
        raise ConfigError("not a time", field=field, value=written, expected=expected) from None
