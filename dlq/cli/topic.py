"""`tidegate dlq list` and `tidegate dlq show`: what is in the dead-letter topic. They need no index."""

from __future__ import annotations

import difflib
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from dlq.cli.options import PipelineFile
from dlq.document import document, full_document, moment, one_line, printable, readable, safe_json
from dlq.index.filters import moment_of
from dlq.listing import Groups, Wanted, newest, without_payload
from dlq.reader import DeadLetter, distinct, read_dead_letters
from tidegate.cli.output import print_table
from tidegate.clock import SystemClock
from tidegate.config.loading import load_pipeline
from tidegate.config.pipeline import Pipeline
from tidegate.config.topics import dead_letter_topic
from tidegate.errors import ConfigError
from tidegate.record import Stage

_TABLE_ROWS = 50
_GROUP_ROWS = 20
_SHOWN_MESSAGE = 120  # characters in a cell
_COMPARED_IDS = 5_000  # of the newest, for hints: comparing them takes under a second


def list_(
    pipeline: PipelineFile,
    stage: Annotated[str | None, typer.Option(help="Only those of this stage.")] = None,
    error: Annotated[str | None, typer.Option(help="Only those of this error type or fingerprint.")] = None,
    since: Annotated[
        str | None, typer.Option(help='Only those that failed since: "2 hours", or an ISO 8601 time.')
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the newest so many. Default: 50 in the table, all as JSON.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """List dead letters, newest first, and how many there are of each kind.

    As JSON without --limit they come in the order of the topic, as they are read.
    """
    wanted = Wanted(_stage(stage), error, None if since is None else moment_of(since, SystemClock(), "--since"))
    groups = Groups()
    letters = groups.counting(filter(wanted.takes, distinct(_letters(load_pipeline(pipeline)))))
    if as_json:
        for letter in letters if limit is None else newest(letters, limit):
            sys.stdout.write(safe_json(document(letter)) + "\n")
        return
    _print_list(newest(without_payload(letters), limit or _TABLE_ROWS), groups)


def show(
    pipeline: PipelineFile,
    id: Annotated[str, typer.Argument(metavar="ID", help="As `dlq list` shows it: topic-partition-offset.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show everything about one dead letter."""
    passed: deque[str] = deque(maxlen=_COMPARED_IDS)
    for letter in _letters(load_pipeline(pipeline)):
        if letter.envelope.id == id:
            if as_json:
                typer.echo(safe_json(full_document(letter), indent=2))
            else:
                typer.echo(_text(letter))
            return
        passed.append(letter.envelope.id)
    raise _unknown(id, passed)


def _letters(pipeline: Pipeline) -> Iterator[DeadLetter]:
    """All of the pipeline's dead letters. Raises ConfigError when there is no topic to read them from."""
    topic = dead_letter_topic(pipeline)
    if topic is None:
        queue = pipeline.error_handling.dead_letter_queue
        raise ConfigError(
            "the dead letters of this pipeline are not on Kafka, so they cannot be read back",
            field="errorHandling.deadLetterQueue.type" if queue.enabled else "errorHandling.deadLetterQueue.enabled",
            value=", ".join(queue.types) if queue.enabled else False,
            expected="type kafka",
            hint="`tidegate dlq import` brings those in S3 into the index" if queue.goes_to("s3") else None,
        )
    return read_dead_letters(pipeline.kafka, topic)


def _stage(text: str | None) -> str | None:
    """The option as a stage's value. Raises ConfigError with the nearest one."""
    if text is None or text in set(Stage):
        return text
    near = difflib.get_close_matches(text, list(Stage), 1)
    raise ConfigError(
        "no such stage",
        field="--stage",
        value=text,
        expected=", ".join(Stage),
        hint=f"did you mean '{near[0]}'?" if near else None,
    )


def _unknown(id: str, passed: Iterable[str]) -> ConfigError:
    near = difflib.get_close_matches(id, passed, 3, cutoff=0.5)
    return ConfigError(
        "there is no dead letter with this id",
        field="ID",
        value=id,
        expected="an id that `tidegate dlq list` shows",
        hint=f"the nearest: {', '.join(near)}" if near else None,
    )


def _print_list(letters: list[DeadLetter], groups: Groups) -> None:
    if not groups.total:
        typer.echo("no dead letters")
        return
    print_table(
        [
            {
                "when": _when(letter.envelope.last_failure),
                "id": one_line(letter.envelope.id, _SHOWN_MESSAGE),
                "stage": one_line(letter.envelope.stage, _SHOWN_MESSAGE),
                "error": one_line(letter.envelope.error_type, _SHOWN_MESSAGE),
                "message": one_line(letter.envelope.message, _SHOWN_MESSAGE),
                "fingerprint": one_line(letter.envelope.fingerprint, _SHOWN_MESSAGE),
            }
            for letter in letters
        ],
        ["when", "id", "stage", "error", "message", "fingerprint"],
        title=f"{len(letters)} of {groups.total} dead letters, newest first",
    )
    print_table(
        [
            {
                "count": group.count,
                "fingerprint": one_line(group.fingerprint, _SHOWN_MESSAGE),
                "stage": one_line(group.stage, _SHOWN_MESSAGE),
                "error": one_line(group.error_type, _SHOWN_MESSAGE),
                "example": one_line(group.message, _SHOWN_MESSAGE),
                "first": _when(group.first),
                "last": _when(group.last),
            }
            for group in groups.largest(_GROUP_ROWS)
        ],
        ["count", "fingerprint", "stage", "error", "example", "first", "last"],
        title=_groups_title(groups),
    )


def _when(ms: int) -> str | None:
    """A time in a cell: to the second, UTC, with a blank where a narrow table can break it."""
    text = moment(ms)
    return None if text is None else text[:19].replace("T", " ")


def _groups_title(groups: Groups) -> str:
    kinds = len(groups.by_fingerprint)
    title = f"{kinds} kind of failure" if kinds == 1 else f"{kinds} kinds of failure"
    if kinds > _GROUP_ROWS:
        title += f", the {_GROUP_ROWS} most frequent"
    return title if not groups.others else f"{title} ({groups.others} dead letters are of further kinds)"


def _text(letter: DeadLetter) -> str:
    """One dead letter for people: what happened, what the record was, how it came about."""
    envelope, origin = letter.envelope, letter.envelope.origin
    facts = {
        "id": envelope.id,
        "pipeline": envelope.pipeline,
        "stage": envelope.stage,
        "error": envelope.error_type,
        "message": envelope.message,
        "fingerprint": envelope.fingerprint,
        "attempts": str(envelope.attempt),
        "replays": str(envelope.replays),
        "first failure": moment(envelope.first_failure),
        "last failure": moment(envelope.last_failure),
        "origin": f"{origin.topic} partition {origin.partition} offset {origin.offset}",
        "timestamp": None if origin.timestamp is None else moment(origin.timestamp),
        "schema": envelope.schema,
        "trace": envelope.traceparent,
        "context": None if envelope.context is None else json.dumps(envelope.context, ensure_ascii=False),
        "dead letter": f"{letter.topic} partition {letter.partition} offset {letter.offset}",
        "truncated": _truncation(letter),
    }
    lines = [f"{name:<14}{one_line(value, 1000)}" for name, value in facts.items() if value]
    lines += ["", "reasons", *(f"  {_reason_line(reason)}" for reason in document(letter)["reasons"])]
    lines += ["", "key", _indented(readable(envelope.key)), "", "value", _indented(readable(envelope.value))]
    if envelope.headers:
        lines += ["", "headers", *(f"  {one_line(n, 200)}: {one_line(readable(v), 1000)}" for n, v in envelope.headers)]
    if envelope.stack:
        lines += ["", "stack", _indented(printable(envelope.stack))]
    return "\n".join(lines)


def _truncation(letter: DeadLetter) -> str | None:
    envelope = letter.envelope
    if not envelope.truncated:
        return None
    text = f"{', '.join(envelope.truncated)}; the whole record is at the origin"
    if envelope.value_size is None:
        return text
    return f"{text}, its value has {envelope.value_size} bytes, SHA-256 {envelope.value_sha256}"


def _reason_line(reason: dict[str, str]) -> str:
    line = f"{reason['errorType']}: {reason['message']}"
    extras = [f"{name} {reason[name]}" for name in ("rule", "field", "found") if name in reason]
    return one_line(f"{line} ({', '.join(extras)})" if extras else line, 1000)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
