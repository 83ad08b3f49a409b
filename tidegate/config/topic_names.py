"""Every topic that one pipeline reads or writes has a name of its own, and one that Kafka takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tidegate.config.base import Problem
from tidegate.config.sinks import KafkaSink
from tidegate.config.topics import (
    OWN,
    changelog_topic,
    dead_letter_topic,
    late_topic,
    letters_topic,
    partials_topic,
    result_topics,
    retry_topics,
    watermarks_topic,
)

if TYPE_CHECKING:
    from tidegate.config.pipeline import Pipeline

_LONGEST: Final = 249  # characters, in Kafka


@dataclass(frozen=True, slots=True)
class _Use:
    """A topic and what it is for. `at`: the field that names it, in Python's names; `field`: the one that can name it."""

    topic: str
    what: str
    at: tuple[str | int, ...]
    field: str

    @property
    def bare(self) -> str:
        """Kafka does not take two topics whose names differ in `.` and `_` only."""
        return self.topic.replace(".", "_")


def topic_problems(pipeline: Pipeline) -> Iterator[Problem]:
    """Two uses of one topic (a pipeline that writes to a topic it reads would feed on itself), and impossible names."""
    read, own, written = list(_read(pipeline)), list(_own(pipeline)), list(_written(pipeline))
    for index, use in enumerate(read):
        if use.topic in [earlier.topic for earlier in read[:index]]:
            yield Problem(f"topic '{use.topic}' appears twice", use.at, "each topic once")
        for other in own:
            if use.bare == other.bare:
                yield Problem(f"the pipeline would read what it writes: this is {other.what}", use.at, "another topic")
    for use in own:
        if len(use.topic) > _LONGEST:
            yield Problem(
                f"the name of {use.what} would have {len(use.topic)} characters ('{use.topic[:40]}…')",
                use.at,
                f"at most {_LONGEST}, in Kafka",
                "take a shorter pipelineId",
            )
    for index, use in enumerate(written):
        earlier = [other for other in [*read, *written[:index]] if other.bare == use.bare]
        if OWN in use.topic:
            yield Problem(
                f"names with '{OWN}' in them are those of tidegate's own topics, and {use.what} would be '{use.topic}'",
                use.at,
                "a name without it",
            )
        elif earlier:
            yield _collision(use, earlier[0])
    yield from _sinks(pipeline)


def _collision(use: _Use, other: _Use) -> Problem:
    reads = other.field.startswith("source.")
    same = "" if use.topic == other.topic else f" ('{other.topic}': Kafka does not tell '.' from '_')"
    return Problem(
        f"{'the pipeline would read what it writes: ' if reads else ''}{use.what} would be '{use.topic}', and that is "
        f"{other.what}{same}, see {other.field}",
        use.at,
        "a topic that is not in source.topics" if reads else "a topic of its own",
        f"name another in {use.field}",
    )


def _read(pipeline: Pipeline) -> Iterator[_Use]:
    for index, topic in enumerate(pipeline.source.topics if pipeline.source else ()):
        yield _Use(topic, "a source topic", ("source", "topics", index), f"source.topics[{index}]")


def _own(pipeline: Pipeline) -> Iterator[_Use]:
    yield _Use(watermarks_topic(pipeline), "the topic of watermarks", ("pipeline_id",), "pipelineId")
    yield _Use(partials_topic(pipeline), "the topic of partials", ("pipeline_id",), "pipelineId")
    if (topic := letters_topic(pipeline)) is not None and topic != dead_letter_topic(pipeline):
        yield _Use(topic, "the topic in which dead letters wait for S3", ("pipeline_id",), "pipelineId")
    for topic in retry_topics(pipeline):
        yield _Use(topic, "a topic of delayed retries", ("pipeline_id",), "pipelineId")
    for use in _read(pipeline):
        yield _Use(changelog_topic(pipeline.pipeline_id, use.topic), f"the changelog of {use.field}", use.at, use.field)


def _written(pipeline: Pipeline) -> Iterator[_Use]:
    """What is for people, in the order in which a name is taken."""
    if (topic := dead_letter_topic(pipeline)) is not None:
        at = ("error_handling", "dead_letter_queue", "config", "topic")
        yield _Use(topic, "the topic of dead letters", at, "errorHandling.deadLetterQueue.config.topic")
    if (topic := late_topic(pipeline)) is not None:
        yield _Use(topic, "the topic of late records", ("late_data", "topic"), "lateData.topic")
    topics = result_topics(pipeline)
    for number, sink in enumerate(pipeline.sinks):
        if isinstance(sink, KafkaSink):
            for index, aggregation in enumerate(pipeline.aggregations):
                name = aggregation.name
                given: tuple[str | int, ...] = ("sinks", number, "topics", name)
                named = given if name in sink.topics else ("aggregations", index, "name")
                yield _Use(
                    topics[name], f"the topic of the results of '{name}'", named, f"sinks[{number}].topics.{name}"
                )
            return


def _sinks(pipeline: Pipeline) -> Iterator[Problem]:
    kafka = [index for index, sink in enumerate(pipeline.sinks) if isinstance(sink, KafkaSink)]
    for index in kafka[1:]:
        yield Problem(
            f"there is a Kafka sink already, sinks[{kafka[0]}]",
            ("sinks", index, "type"),
            "one Kafka sink",
            "its `topics` give each aggregation a topic",
        )
