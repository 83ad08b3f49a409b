"""The whole error tree. Retry, breaker and dead-letter policy ask the class; nobody matches on text.

TidegateError
├── ConfigError              the pipeline file, a setting or an argument is wrong
│   └── ConfigErrors         several at once; the text lists them all
├── RecordError              one record is at fault: it is dead-lettered, the rest goes on
│   ├── DecodeError          malformed bytes, wrong type, missing field
│   └── SinkRecordError      the sink refuses this row for good
├── DependencyError          something outside is away: consumption pauses, nothing is dead-lettered   (retriable)
│   ├── StoreUnavailable
│   │   └── LoginRefused     it is there, and does not take user, password or database name
│   ├── BrokerUnavailable
│   ├── BucketUnavailable    S3
│   ├── LakeUnavailable      the place of a Delta or Parquet sink
│   ├── DependencyTimeout    one try took longer than its timeout
│   └── CircuitOpen          the breaker rejects calls for `retry_after_ms`; not retried in place
├── Fenced                   another owner has this partition: this one must stop writing to it
│   ├── StoreFenced
│   ├── StoreHeld            the pipeline is held for a while, as by a catch-up: wait until it is let go of
│   └── ProducerFenced
├── RowTooLarge              the topic does not take a row of this size
├── PipelineAborted          a rule says `onFailure: abort`
├── AggregateOverflow        an exact sum needs more than 38 digits: the worker stops rather than write a wrong number
├── FloodGuardTripped        too many dead letters: the worker stops with its offsets unmoved
├── OffsetOutOfRange         the log no longer has the offset the state wants to start from
│   └── TopicRecreated       the topic was deleted and made anew: the state's offsets are of another log
├── EngineFailed             Spark ended a micro-batch or the query with an error of its own
└── StackError               the local Kafka or PostgreSQL cannot be had (no Java, no jars, no port)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import ClassVar

from tidegate.record import Stage, TopicPartition


class TidegateError(Exception):
    """Root of all errors that tidegate raises.

    `stage` is where in a record's way the error belongs; `retriable` says whether trying again can help.
    """

    stage: ClassVar[Stage | None] = None
    retriable: ClassVar[bool] = False


class ConfigError(TidegateError):
    """A configuration value that cannot be used. Names the file, the field, the value, what was expected, a way out."""

    def __init__(
        self,
        problem: str,
        *,
        file: str | None = None,
        line: int | None = None,
        field: str | None = None,
        value: object = None,
        expected: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.problem, self.file, self.line, self.field = problem, file, line, field
        self.value, self.expected, self.hint = value, expected, hint
        place = f"{file}:{line}" if file and line else file
        where = ": ".join(part for part in (place, field) if part)
        lines = [f"{where}: {problem}" if where else problem]
        if value is not None:
            lines.append(f"  found:    {value!r}")
        if expected:
            lines.append(f"  expected: {expected}")
        if hint:
            lines.append(f"  hint:     {hint}")
        super().__init__("\n".join(lines))


class ConfigErrors(ConfigError):
    """Several configuration errors, so that a person mends them in one go. `errors` has each."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        self.errors = tuple(errors)
        files = {error.file for error in errors}
        file = files.pop() if len(files) == 1 else None
        super().__init__(f"{len(errors)} problems\n" + "\n".join(str(error) for error in errors), file=file)


@contextmanager
def all_errors() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Within it each part that may be wrong stands in a block of its own, so that an error in one does not hide the others':

    with all_errors() as part:
        for one in several:
            with part():
                compiled.append(compile(one))

    Raises at its end the ConfigError of the one part that has one, or ConfigErrors.
    """
    errors: list[ConfigError] = []

    @contextmanager
    def part() -> Iterator[None]:
        try:
            yield
        except ConfigErrors as several:
            errors.extend(several.errors)
        except ConfigError as error:
            errors.append(error)

    yield part
    if errors:
        raise errors[0] if len(errors) == 1 else ConfigErrors(errors)


class RecordError(TidegateError):
    """One record is at fault."""


class DecodeError(RecordError):
    """The bytes are not what the schema says."""

    stage = Stage.DECODE


class SinkRecordError(RecordError):
    """The sink refuses rows for good (a value the database cannot hold). `rows` are their indexes in what was written for
    `aggregation` of the source partition `tp`."""

    stage = Stage.SINK

    def __init__(
        self,
        message: str,
        *,
        aggregation: str | None = None,
        tp: TopicPartition | None = None,
        rows: tuple[int, ...] = (),
    ) -> None:
        super().__init__(message)
        self.aggregation, self.tp, self.rows = aggregation, tp, rows


class DependencyError(TidegateError):
    """Something outside is away or too slow. Never a reason to dead-letter a record."""

    retriable = True


class StoreUnavailable(DependencyError):
    """The database cannot be reached or is shutting down."""

    stage = Stage.SINK


class LoginRefused(StoreUnavailable):
    """The database is there, and does not let this user in. At the start a setting is wrong (ConfigError); later somebody
    has changed a password or a right and may change it back, so that it is waited for as for any outage.
    """


class BrokerUnavailable(DependencyError):
    """The Kafka cluster cannot be reached."""


class BucketUnavailable(DependencyError):
    """S3 cannot be reached, or is overloaded. What was to be written may be written."""


class LakeUnavailable(DependencyError):
    """The place of a Delta or Parquet sink takes nothing now, or another writer was faster. What was to be written may be
    written."""

    stage = Stage.SINK


class DependencyTimeout(DependencyError):
    """One try took longer than its timeout."""


class CircuitOpen(DependencyError):
    """The breaker of a dependency is open. `retry_after_ms`: how long until the next probe."""

    retriable = False  # the breaker knows when to try next; a retry loop does not

    def __init__(self, breaker: str, retry_after_ms: int) -> None:
        super().__init__(f"circuit breaker '{breaker}' is open; next try in {retry_after_ms} ms")
        self.breaker, self.retry_after_ms = breaker, retry_after_ms


class Fenced(TidegateError):
    """Another owner has taken this partition."""

    stage = Stage.COMMIT


class StoreFenced(Fenced):
    """The partition row is no longer what this batch started from."""


class StoreHeld(Fenced):
    """Nobody but `holder` may claim the pipeline's partitions now. It has had them `since` then."""

    def __init__(self, holder: str, since: datetime) -> None:
        super().__init__(f"held by {holder} since {since:%Y-%m-%d %H:%M:%S} UTC")
        self.holder, self.since = holder, since


class ProducerFenced(Fenced):
    """A newer producer with the same transactional id has been initialised."""


class RowTooLarge(TidegateError):
    """A topic refused a row for its size. `topic`; `size`: bytes of the largest row of what was refused."""

    stage = Stage.SINK

    def __init__(self, topic: str, size: int) -> None:
        super().__init__(
            f"topic {topic!r} refused a row of up to {size} bytes\n"
            f"  hint:     raise the topic's max.message.bytes (and the broker's message.max.bytes) above {size + 1024}"
        )
        self.topic, self.size = topic, size


class PipelineAborted(TidegateError):
    """A record failed a rule that says `onFailure: abort`."""

    stage = Stage.VALIDATE


class AggregateOverflow(TidegateError):
    """An exact sum needs more than the 38 digits that a decimal has, so no single record is at fault."""

    stage = Stage.AGGREGATE

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(
            f"{what} needs more than 38 digits: {problem}\n"
            "  hint:     sum a smaller unit, or cast the argument to double"
        )


class FloodGuardTripped(TidegateError):
    """So many records failed that dead-lettering them would empty the topic into the dead-letter queue."""


class OffsetOutOfRange(TidegateError):
    """The offset to start from is gone (retention), and the policy is to stop rather than to skip."""

    stage = Stage.CONSUME

    @classmethod
    def of(cls, tp: TopicPartition, offset: int, low: int, high: int) -> OffsetOutOfRange:
        """The state goes on at `offset`; the log has the offsets from `low` to before `high`."""
        return cls(
            f"{tp}: the state goes on at offset {offset}, but the log has {low} to {high - 1}. Records between were deleted "
            f"(retention) or the topic was made anew. Restore the topic, or accept the loss with `source.onOutOfRange: earliest`"
        )


class EngineFailed(TidegateError):
    """Spark ended a micro-batch or the query with an error of its own. Nothing of that micro-batch is in the store."""


class TopicRecreated(OffsetOutOfRange):
    """A topic was deleted and made anew. Offsets of the old log say nothing of the new one: to go on would skip records,
    or count them in the place of others.
    """


class StateWentBack(TidegateError):
    """A partition that was opened again came back at an earlier offset than it had: what was committed has gone from its
    changelog. The records between must be read once more, which a worker does when it starts.
    """


class StackError(TidegateError):
    """The local Kafka or PostgreSQL cannot be started."""
