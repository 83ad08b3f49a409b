"""What `tidegate check --live` asks: is the broker there, are the topics, is the database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tidegate.config.kafka import confluent_options
from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import PostgresSink
from tidegate.config.topics import (
    changelog_topic,
    dead_letter_topic,
    late_topic,
    partials_topic,
    result_topics,
    watermarks_topic,
)
from tidegate.reach import quiet, why_unreachable

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from tidegate.stages.plan import Plan

_MASK = "********"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked for, whether it is as the pipeline needs it, and what was found."""

    what: str
    good: bool
    text: str


def ask(pipeline: Pipeline, plan: Plan | None, timeout: float) -> list[Answer]:
    """Ask the broker, then each PostgreSQL; each answer within `timeout` seconds, nothing raised for what is away."""
    return [*_kafka(pipeline, plan, timeout), *_databases(pipeline, timeout)]


def _kafka(pipeline: Pipeline, plan: Plan | None, timeout: float) -> Iterator[Answer]:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    options: dict[str, Any] = {**confluent_options(pipeline.kafka), "logger": quiet("tidegate.check.kafka")}
    what = f"kafka {pipeline.kafka.bootstrap_servers}"
    try:
        admin = AdminClient(options)
    except KafkaException as error:
        yield Answer(what, False, error.args[0].str())
        return
    try:
        found = admin.list_topics(timeout=timeout)
    except KafkaException as error:
        yield Answer(what, False, str(why_unreachable(pipeline.kafka, error.args[0].str(), timeout)))
        return
    yield Answer(what, True, f"{len(found.brokers)} broker(s)")
    counts = {name: len(topic.partitions) for name, topic in found.topics.items()}
    yield from _topics(pipeline, counts)
    yield from _grown(pipeline, plan, counts)
    yield from _own_topics(pipeline, counts, admin, timeout)


def _topics(pipeline: Pipeline, counts: dict[str, int]) -> Iterator[Answer]:
    for topic in pipeline.source.topics if pipeline.source else ():
        there = topic in counts
        yield Answer(
            f"source topic {topic}", there, _partitions(counts[topic]) if there else "does not exist: create it"
        )
    written = {"dead-letter topic": dead_letter_topic(pipeline), "late topic": late_topic(pipeline)}
    written |= {f"result topic of {name}": topic for name, topic in result_topics(pipeline).items()}
    for what, target in written.items():
        if target is not None:
            text = _partitions(counts[target]) if target in counts else "not there yet: the worker creates it"
            yield Answer(f"{what} {target}", True, text)


def _grown(pipeline: Pipeline, plan: Plan | None, counts: dict[str, int]) -> Iterator[Answer]:
    """A source that has more partitions than when a worker last looked, if that shows in the results on Kafka."""
    topics = result_topics(pipeline)
    split = [each.name for each in (plan.aggregations if plan else ()) if not each.spreads and each.name in topics]
    for topic in pipeline.source.topics if pipeline.source and split else ():
        before, now = counts.get(changelog_topic(pipeline.pipeline_id, topic), 0), counts.get(topic, 0)
        if 0 < before < now:
            yield Answer(
                f"growth of {topic}",
                True,
                f"it had {_partitions(before)} and has {now}, so that keys move: what {', '.join(split)} gives on Kafka for "
                "windows that are open then comes in two parts under one key (a database has them whole)",
            )


def _own_topics(pipeline: Pipeline, counts: dict[str, int], admin: AdminClient, timeout: float) -> Iterator[Answer]:
    """Those that hold state, where they are there: whether they keep it."""
    from tidegate.config.topic_settings import topic_settings, trouble_with, way_out

    read = [*(pipeline.source.topics if pipeline.source else ()), partials_topic(pipeline)]
    own = [changelog_topic(pipeline.pipeline_id, topic) for topic in read]
    there = [topic for topic in (*own, partials_topic(pipeline), watermarks_topic(pipeline)) if topic in counts]
    for topic, settings in topic_settings(admin, there, timeout).items():
        if isinstance(settings, str):
            yield Answer(f"topic of state {topic}", True, f"{_partitions(counts[topic])}; settings unknown: {settings}")
        elif (trouble := trouble_with(settings)) is not None:
            yield Answer(f"topic of state {topic}", False, f"{trouble}: {way_out(topic)}")
        else:
            yield Answer(f"topic of state {topic}", True, _partitions(counts[topic]))


def _partitions(count: int) -> str:
    return f"{count} partition" if count == 1 else f"{count} partitions"


def _databases(pipeline: Pipeline, timeout: float) -> Iterator[Answer]:
    for sink in pipeline.sinks:
        if isinstance(sink, PostgresSink):
            yield _database(sink, timeout)


def _database(sink: PostgresSink, timeout: float) -> Answer:
    import psycopg

    url = sink.url.get_secret_value().replace("+psycopg://", "://", 1)
    parts = urlsplit(url)
    what = f"postgres {parts.hostname or 'localhost'}{parts.path}"
    try:
        with psycopg.connect(url, connect_timeout=max(1, round(timeout)), autocommit=True) as connection:
            connection.execute(f"SET statement_timeout = {round(timeout * 1000)}")
            row = connection.execute(
                "SELECT current_setting('server_version'), EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)",
                [sink.schema_],
            ).fetchone()
    except psycopg.Error as error:
        return Answer(what, False, _first_line(str(error), parts.password))
    version, has_schema = row or ("unknown", False)
    if not has_schema:
        return Answer(what, False, f"version {version}, but no schema '{sink.schema_}': create it")
    return Answer(what, True, f"version {version}")


def _first_line(text: str, password: str | None) -> str:
    """The first line of an error, without the password if the URL had one."""
    line = next(iter(text.strip().splitlines()), "no answer")
    return line.replace(password, _MASK) if password else line
