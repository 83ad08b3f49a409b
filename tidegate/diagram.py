"""The plan of a pipeline as `tidegate check` prints it and the console shows it: every stage in order, and what it does."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidegate.config.durations import format_duration
from tidegate.config.sinks import KafkaSink, LakeSink, PostgresSink
from tidegate.config.stages import AllowedValues, Expect, Hopping, Length, NotNull, Range, Regex
from tidegate.config.topics import dead_letter_topic, late_topic, result_topics
from tidegate.record import Stage

if TYPE_CHECKING:
    from tidegate.config.pipeline import Pipeline
    from tidegate.config.stages import Aggregation, Rule
    from tidegate.stages.plan import Plan


@dataclass(frozen=True, slots=True)
class Step:
    """One stage and what it does, a line each; no lines: it lets every record pass. `leaving`: what a record that does not
    pass it becomes."""

    stage: Stage
    does: tuple[str, ...]

    @property
    def leaving(self) -> str | None:
        return _LEAVING.get(self.stage) if self.does else None


def steps(pipeline: Pipeline, plan: Plan | None) -> list[Step]:
    """All stages in order. Without `plan` (a pipeline that is not complete) nothing is said of spreading groups."""
    spreads = {} if plan is None else {aggregation.name: aggregation.spreads for aggregation in plan.aggregations}
    described = {
        Stage.CONSUME: _consume(pipeline),
        Stage.DECODE: _decode(pipeline),
        Stage.VALIDATE: [_rule(rule) for rule in pipeline.rules],
        Stage.DEDUPE: _dedupe(pipeline),
        Stage.EVENT_TIME: _event_time(pipeline),
        Stage.HANDLE: [
            f"{handler.call}, a {handler.mode} at a time"
            + (f", {handler.concurrency} at once" if handler.concurrency > 1 else "")
            for handler in pipeline.handlers
        ],
        Stage.AGGREGATE: [
            line for each in pipeline.aggregations for line in _aggregation(each, spreads.get(each.name))
        ],
        Stage.SINK: _sinks(pipeline),
        Stage.COMMIT: ["offsets, ledger and results in the same write"],
    }
    return [Step(stage, tuple(described[stage])) for stage in Stage]


def draw(pipeline: Pipeline, plan: Plan | None) -> str:
    """The steps below each other with what leaves them, then where that goes, and what a failing dependency meets."""
    lines = [pipeline.pipeline_id, ""]
    for step in steps(pipeline, plan):
        last = step.stage is Stage.COMMIT
        first, *rest = [part for line in step.does or ("–",) for part in _wrapped(line)]
        lines.append(f"{step.stage.value:<12}{first}")
        lines += [f"  {' ' if last else '│'}         {line}" for line in rest]
        lines += [] if last else [f"  ├──▶ {step.leaving}" if step.leaving else "  │"]
    lines += ["", *(f"{name:<15}{text}" for name, text in outcomes(pipeline).items())]
    return "\n".join(lines)


_LEAVING = {
    Stage.DECODE: "dead letters",
    Stage.VALIDATE: "dead letters",
    Stage.DEDUPE: "duplicates, counted",
    Stage.EVENT_TIME: "late records; dead letters",
    Stage.HANDLE: "dead letters; filtered, counted",
    Stage.SINK: "dead letters (rows that the database refuses)",
}
_WIDTH = 100


def _wrapped(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, _WIDTH, subsequent_indent=indent, break_long_words=False) or [line]


def outcomes(pipeline: Pipeline) -> dict[str, str]:
    """Where dead letters and late records go, and what happens while a dependency is away."""
    return {"dead letters": _dead_letters(pipeline), "late records": _late(pipeline), "outages": _outages(pipeline)}


def _consume(pipeline: Pipeline) -> list[str]:
    if pipeline.source is None:
        return []
    source = pipeline.source
    key = f"; key as column {source.key.column} ({source.key.format})" if source.key.column else ""
    return [f"{', '.join(source.topics)} from {pipeline.kafka.bootstrap_servers}, {source.start_at} first{key}"]


def _decode(pipeline: Pipeline) -> list[str]:
    if not pipeline.schema_:
        return []
    columns = ", ".join(
        f"{column.name} {column.type}" + ("" if column.nullable else "!") for column in pipeline.schema_
    )
    value = pipeline.source.value if pipeline.source else None
    others = f"other fields: {value.additional_fields}; tombstones: {value.tombstones}" if value else ""
    return [line for line in (f"JSON to {columns}", others) if line]


def _rule(rule: Rule) -> str:
    on_failure = rule.on_failure or ("deadLetter" if rule.severity == "error" else "warn")
    name = f"{rule.name}: " if rule.name else ""
    return f"{name}{_condition(rule)}, else {rule.severity}: {on_failure}"


def _condition(rule: Rule) -> str:
    match rule:
        case NotNull():
            return f"{rule.column} is not null"
        case Range():
            return (
                f"{rule.column} in {'…' if rule.min is None else rule.min} to {'…' if rule.max is None else rule.max}"
            )
        case Regex():
            return f"{rule.column} matches {rule.pattern}"
        case AllowedValues():
            shown = [str(value) for value in rule.values[:5]] + (["…"] if len(rule.values) > 5 else [])
            return f"{rule.column} is one of {', '.join(shown)}"
        case Length():
            return f"length of {rule.column} in {rule.min or 0} to {'…' if rule.max is None else rule.max}"
        case Expect():
            return rule.expression


def _dedupe(pipeline: Pipeline) -> list[str]:
    dedupe = pipeline.dedupe
    return [] if dedupe is None else [f"first by {dedupe.key}, remembered for {format_duration(dedupe.horizon)}"]


def _event_time(pipeline: Pipeline) -> list[str]:
    event_time = pipeline.event_time
    if event_time is None:
        return []
    lateness = format_duration(event_time.allowed_lateness)
    lines = [
        f"watermark = largest {event_time.column} − {format_duration(event_time.delay)}; lateness allowed: {lateness}"
    ]
    if event_time.state_timeout is not None:
        lines.append(
            f"windows leave the database {format_duration(event_time.state_timeout)} after their end, by batch runs"
        )
    if event_time.max_future_skew is not None:
        lines.append(
            f"rejected when more than {format_duration(event_time.max_future_skew)} ahead of Kafka's timestamp"
        )
    return lines


def _aggregation(aggregation: Aggregation, spreads: bool | None) -> list[str]:
    window = aggregation.window
    every = ""
    if isinstance(window, Hopping):
        every = f" every {format_duration(window.hop)} ({-(-window.size // window.hop)} windows for each record)"
    groups = ", ".join(group.name for group in aggregation.group_by)
    measures = ", ".join(
        f"{name} = {measure.type}({measure.of or '*'})" for name, measure in aggregation.measures.items()
    )
    lines = [
        f"{aggregation.name}: {window.type} {format_duration(window.size)}{every}{f' by {groups}' if groups else ''}",
        f"  {measures}; emits {aggregation.emit}",
    ]
    if spreads is not None:
        lines.append(f"  {_SPREADS if spreads else _STAYS}")
    return lines


_SPREADS = "a group spreads over partitions: the merge agent adds up its partials"
_STAYS = "a group stays in one partition"


def _sinks(pipeline: Pipeline) -> list[str]:
    lines = []
    for sink in pipeline.sinks:
        if isinstance(sink, KafkaSink):
            targets = [f"topic {topic}" for topic in result_topics(pipeline).values()]
        elif isinstance(sink, LakeSink):
            below = ", ".join(aggregation.name for aggregation in pipeline.aggregations)
            targets = [f"{sink.type} in {sink.path} ({sink.write_mode}): {below}; by runs on Spark, not by a worker"]
        else:
            prefix = f"{sink.schema_}." if isinstance(sink, PostgresSink) else ""
            tables = [sink.tables.get(aggregation.name, aggregation.name) for aggregation in pipeline.aggregations]
            targets = [f"table {prefix}{table}" for table in tables]
        lines.append(f"{sink.name}: {', '.join(targets) or 'offsets and ledger only'}")
    return lines


def _dead_letters(pipeline: Pipeline) -> str:
    queue, guard = pipeline.error_handling.dead_letter_queue, pipeline.error_handling.flood_guard
    if not queue.enabled:
        return "none: a record that fails stops the pipeline"
    places = {
        "kafka": f"topic {dead_letter_topic(pipeline)}",
        "s3": f"s3://{queue.config.bucket}/{queue.config.prefix}",
        "log": "the log",
        "none": "nowhere: failed records are counted and thrown away",
    }
    stops = f"; the worker stops when more than {guard.max_ratio:.0%} of {guard.window} fail" if guard.enabled else ""
    return ", ".join(places[kind] for kind in queue.types) + stops


def _late(pipeline: Pipeline) -> str:
    strategy = pipeline.late_data.strategy
    target = {"separateStream": late_topic(pipeline), "sendToDLQ": dead_letter_topic(pipeline)}.get(strategy)
    return f"{strategy}" + (f", topic {target}" if target else ", counted per window")


def _outages(pipeline: Pipeline) -> str:
    retry, breaker = pipeline.error_handling.retry, pipeline.error_handling.circuit_breaker
    tries = "no retry" if retry.strategy == "none" else f"{retry.max_attempts} attempts ({retry.strategy})"
    if not breaker.enabled:
        return tries
    return f"{tries}; {breaker.failure_threshold} failures open the breaker for {breaker.reset_timeout_seconds:g} s"
