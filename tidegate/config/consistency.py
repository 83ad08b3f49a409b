"""What no single part of the pipeline file can know: that its parts fit together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from tidegate.config.base import Problem, did_you_mean
from tidegate.config.durations import format_duration
from tidegate.config.schema import repeated_names
from tidegate.config.sinks import Follower, KafkaSink, LakeSink, PostgresSink, Sink
from tidegate.config.stages import Aggregation, EventTime, Expect
from tidegate.config.topic_names import topic_problems
from tidegate.config.topics import indexed_topics

if TYPE_CHECKING:
    from tidegate.config.pipeline import Pipeline

# Columns that the stages and the store add themselves.
_OF_THE_STAGES: Final = frozenset({"_offset", "_timestamp", "_event_time", "_lane"})
_OF_THE_RESULTS: Final = frozenset(
    {"window_start", "window_end", "lane", "records", "upto", "revision", "final", "topic", "partition"}
)


def problems_of(pipeline: Pipeline) -> list[Problem]:
    """Everything that does not fit together, in the order of the file."""
    checks = (
        _clusters,
        topic_problems,
        _schema,
        _event_time,
        _rules,
        _aggregations,
        _sinks,
        _late_data,
        _replay_targets,
    )
    return [problem for check in checks for problem in check(pipeline)]


def _clusters(pipeline: Pipeline) -> Iterator[Problem]:
    servers = pipeline.error_handling.dead_letter_queue.config.bootstrap_servers
    if servers is not None and servers != pipeline.kafka.bootstrap_servers:
        yield Problem(
            "dead letters are part of each batch's transaction, so they stay on the pipeline's own cluster",
            ("error_handling", "dead_letter_queue", "config", "bootstrap_servers"),
            f"the same as kafka.bootstrapServers, '{pipeline.kafka.bootstrap_servers}', or nothing",
        )


def _schema(pipeline: Pipeline) -> Iterator[Problem]:
    names = [column.name for column in pipeline.schema_]
    yield from repeated_names(names, "column", ("schema_",))
    for index, name in enumerate(names):
        if name.lower() in _OF_THE_STAGES:
            yield Problem(f"'{name}' is a name of tidegate's own", ("schema_", index, "name"), "another name")
    key = pipeline.source.key.column if pipeline.source else None
    if key is not None and key.lower() in {name.lower() for name in names}:
        yield Problem(f"the schema has a column '{key}' already", ("source", "key", "column"), "a name of its own")


def _event_time(pipeline: Pipeline) -> Iterator[Problem]:
    if pipeline.event_time is not None:
        yield from _unknown(pipeline.event_time.column, _decoded(pipeline), ("event_time", "column"))
        yield from _state_timeout(pipeline, pipeline.event_time)
        return
    for part, needs in (("aggregations", bool(pipeline.aggregations)), ("dedupe", pipeline.dedupe is not None)):
        if needs:
            yield Problem(
                f"is missing, and `{part}` cannot do without",
                ("event_time",),
                "`eventTime: {column: …}`, a timestamp of the schema",
            )


def _state_timeout(pipeline: Pipeline, event_time: EventTime) -> Iterator[Problem]:
    """Until then a window may take records: live ones until it is closed, replays until its totals are forgotten."""
    longest = max((aggregation.window.size for aggregation in pipeline.aggregations), default=0)
    needed = event_time.allowed_lateness + max(longest, event_time.retention)
    if event_time.state_timeout is not None and event_time.state_timeout <= needed:
        yield Problem(
            "windows would go while they may still get records",
            ("event_time", "state_timeout"),
            f"more than {format_duration(needed)}: allowedLateness, and beside it the longest window and `retention`",
        )


def _rules(pipeline: Pipeline) -> Iterator[Problem]:
    for index, rule in enumerate(pipeline.rules):
        if not isinstance(rule, Expect):
            yield from _unknown(rule.column, _decoded(pipeline), ("rules", index, "column"))
    yield from _named_twice([rule.name for rule in pipeline.rules], "rule", "rules")


def _aggregations(pipeline: Pipeline) -> Iterator[Problem]:
    yield from _named_twice([aggregation.name for aggregation in pipeline.aggregations], "aggregation", "aggregations")
    columns = _handled(pipeline)
    for index, aggregation in enumerate(pipeline.aggregations):
        at = ("aggregations", index)
        for place, group in enumerate(aggregation.group_by):
            if group.expression is None:
                yield from _unknown(group.name, columns, (*at, "group_by", place, "name"))
        yield from _result_names(aggregation, at)


def _result_names(aggregation: Aggregation, at: tuple[str | int, ...]) -> Iterator[Problem]:
    """A result has the group's names, the measures' and its own, each once."""
    groups = [group.name for group in aggregation.group_by]
    yield from repeated_names(groups, "group", (*at, "group_by"))
    named = [(name, (*at, "group_by", place, "name")) for place, name in enumerate(groups)]
    for name, place in [*named, *((name, (*at, "measures", name)) for name in aggregation.measures)]:
        if name.lower() in _OF_THE_RESULTS:
            yield Problem(f"every result has a '{name}' of its own", place, "another name")
    for name in aggregation.measures:
        if name.lower() in {group.lower() for group in groups}:
            yield Problem(f"'{name}' is a group already", (*at, "measures", name), "another name")


def _sinks(pipeline: Pipeline) -> Iterator[Problem]:
    yield from _named_twice([sink.name for sink in pipeline.sinks], "sink", "sinks")
    names = [aggregation.name for aggregation in pipeline.aggregations]
    databases = [index for index, sink in enumerate(pipeline.sinks) if not isinstance(sink, Follower)]
    for index in databases[1:]:
        yield Problem(
            f"there is a database already, sinks[{databases[0]}], and it has the final say on what was applied",
            ("sinks", index, "type"),
            "one postgres or sqlite sink in all",
        )
    for index, sink in enumerate(pipeline.sinks):
        yield from _output_mode(pipeline, index, sink)
        if isinstance(sink, LakeSink):
            yield from _lake(pipeline, index, sink)
            continue
        field = "topics" if isinstance(sink, KafkaSink) else "tables"
        for name in sink.topics if isinstance(sink, KafkaSink) else sink.tables:
            if name not in names:
                expected = f"one of {', '.join(names)}" if names else "no entry: there are no aggregations"
                yield Problem(
                    f"there is no aggregation '{name}'",
                    ("sinks", index, field, name),
                    expected,
                    did_you_mean(name, names),
                )


def _output_mode(pipeline: Pipeline, index: int, sink: Sink) -> Iterator[Problem]:
    """`emit: final` is said on purpose: a sink that wants the updates too contradicts it."""
    final = next((aggregation.name for aggregation in pipeline.aggregations if aggregation.emit == "final"), None)
    if isinstance(sink, Follower) and final is not None and sink.mode("final") != "append":
        yield Problem(
            f"aggregation '{final}' says `emit: final`, which is `append`",
            ("sinks", index, "output_mode"),
            "append, or nothing; or leave out `emit: final`",
        )


def _lake(pipeline: Pipeline, index: int, sink: LakeSink) -> Iterator[Problem]:
    if not any(isinstance(each, PostgresSink) for each in pipeline.sinks):
        yield Problem(
            "files follow the results in PostgreSQL, and there is no such sink",
            ("sinks", index, "type"),
            "a sink of type postgres beside it",
        )
    before = [each.path for each in pipeline.sinks[:index] if isinstance(each, LakeSink)]
    if sink.path in before:
        yield Problem("another sink writes there", ("sinks", index, "path"), "a path of its own")
    if sink.write_mode == "overwrite" and sink.output_mode not in (None, "complete"):
        yield Problem(
            "`mode: overwrite` replaces all results, so it must be given all",
            ("sinks", index, "output_mode"),
            "complete, or nothing; or another `mode`",
        )
    if sink.write_mode == "append" and sink.output_mode == "complete":
        yield Problem(
            "`mode: append` would add all results each time",
            ("sinks", index, "output_mode"),
            "update or append; or `mode: overwrite`",
        )


def _late_data(pipeline: Pipeline) -> Iterator[Problem]:
    if pipeline.late_data.strategy == "sendToDLQ" and not pipeline.error_handling.dead_letter_queue.takes_records:
        yield Problem(
            "there is no dead-letter queue to send late records to",
            ("late_data", "strategy"),
            "another strategy, or `deadLetterQueue: {enabled: true, type: kafka}`",
        )


def _replay_targets(pipeline: Pipeline) -> Iterator[Problem]:
    """What is replayed into a topic of dead letters would be a dead letter again, and so on."""
    for index, target in enumerate(pipeline.dead_letters.replay_targets):
        if target.topic in indexed_topics(pipeline):
            yield Problem(
                "this is a topic of dead letters",
                ("dead_letters", "replay_targets", index),
                "a topic that is processed",
            )


def _decoded(pipeline: Pipeline) -> list[str]:
    """The columns of a record before the handlers; empty when the file names no schema yet."""
    if not pipeline.schema_:
        return []
    key = pipeline.source.key.column if pipeline.source else None
    return [column.name for column in pipeline.schema_] + ([key] if key else [])


def _handled(pipeline: Pipeline) -> list[str]:
    """The columns of a record after the handlers; the last one that declares its output decides."""
    outputs = [handler.output for handler in pipeline.handlers if handler.output is not None]
    decoded = _decoded(pipeline)
    return [column.name for column in outputs[-1]] if outputs and decoded else decoded


def _unknown(column: str, columns: list[str], at: tuple[str | int, ...]) -> Iterator[Problem]:
    if columns and column not in columns:
        yield Problem(
            f"there is no column '{column}'", at, f"one of {', '.join(columns)}", did_you_mean(column, columns)
        )


def _named_twice(names: Iterable[str | None], kind: str, field: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name is not None and name in seen:
            yield Problem(
                f"{kind} '{name}' appears twice", (field, index, "name"), f"each {kind} with a name of its own"
            )
        seen.add(name or "")
