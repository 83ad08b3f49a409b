"""`tidegate dlq list | show | export`: single dead letters, masked; of the index, or of the topics where there is none."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from dlq.cli import options as o
from dlq.cli.shown import CELL, warn_stale, when
from dlq.document import full_document, moment, one_line, printable, readable, safe_json
from dlq.export import LETTER_COLUMNS, exported, write_csv
from dlq.index.filters import LetterFilter
from dlq.index.search import Cursor, Document, IndexReader
from dlq.reader import DeadLetter
from dlq.service import SHORTEST_REASON, open_index, open_to_read
from tidegate.cli.output import print_table
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline
from tidegate.errors import ConfigError

_LINE = 1_000  # characters
_COMPARED_IDS = 1_000  # of the newest, for hints
_NOT_HELD = "(the index does not hold it: see the size below; --reveal shows the record)"


@o.choosing(without=["text"])
def list_(
    pipeline: PipelineFile,
    wanted: LetterFilter,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[WORDS]...", help="Words of the message, all of them.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    after: o.AfterOption = None,
    index: o.IndexUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """List dead letters, newest first, masked as the pipeline file says.

    Where there is no index, the dead-letter topics are read for it, from their beginning.
    """
    wanted = replace(wanted, text=" ".join(words) if words else None)
    place = None if after is None else Cursor.parse(after)
    loaded = load_pipeline(pipeline)
    with open_to_read(loaded, index) if place is None else open_index(loaded, index) as opened:
        page = opened.reader.page(wanted, after=place, limit=limit)
        count = opened.reader.count(wanted)
        warn_stale(opened)
    following = None if page.next is None or not opened.lasts else str(page.next)
    if as_json:
        found = {"count": count.number, "exact": count.exact, "next": following}
        typer.echo(safe_json({**found, "letters": [exported(letter) for letter in page.letters]}, indent=2))
        return
    if not page.letters:
        typer.echo("no dead letters" if wanted == LetterFilter() else "no dead letters that these options choose")
        return
    number = f"{count.number:,}".replace(",", " ")
    title = f"{len(page.letters)} of {'' if count.exact else 'more than '}{number} dead letters, newest first"
    columns = ["when", "id", "state", "stage", "error", "message", "group"]
    print_table([_row(letter) for letter in page.letters], columns, title=title)
    if following is not None:
        typer.echo(f"more: --after {following}")


def show(
    pipeline: PipelineFile,
    id: Annotated[str, typer.Argument(metavar="ID", help="As `dlq list` shows it: topic-partition-offset.")],
    topic: Annotated[str | None, typer.Option(help="In this dead-letter topic, where several have the id.")] = None,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="The raw record, unmasked. Who did it, and why, is kept in the history.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why it is revealed.")] = None,
    index: o.IndexUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Show everything about one dead letter, masked; with --reveal its raw record, too."""
    why = _reason(reveal, reason)
    loaded = load_pipeline(pipeline)
    with open_index(loaded, index) if reveal else open_to_read(loaded, index) as opened:
        letter = opened.reader.letter(id, topic)
        if letter is None:
            raise _unknown(id, opened.reader)
        raw = None if why is None else opened.reveal(letter, actor=o.actor(), reason=why)
        found = opened.describe(letter)
    if reveal and raw is None:
        raise ConfigError("its record is not in the topic any more", field="ID", value=id, hint="retention deleted it")
    if as_json:
        typer.echo(safe_json(found if raw is None else {**found, "raw": _raw(raw)}, indent=2))
    else:
        typer.echo(_text(found, raw))


@o.choosing()
def export(
    pipeline: PipelineFile,
    wanted: LetterFilter,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file. Default: standard output.")] = None,
    index: o.IndexUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line. Default: CSV.")] = False,
) -> None:
    """Write all dead letters that the options choose, masked: CSV for a spreadsheet, or JSON for a program."""
    with open_to_read(load_pipeline(pipeline), index) as opened:
        warn_stale(opened)
        letters = (exported(letter) for letter in opened.reader.every(wanted))
        target = sys.stdout if out is None else out.open("w", newline="", encoding="utf-8")
        try:
            if as_json:
                target.writelines(safe_json(letter) + "\n" for letter in letters)
            else:
                write_csv(letters, LETTER_COLUMNS, target)
        finally:
            if out is not None:
                target.close()


def _reason(reveal: bool, reason: str | None) -> str | None:
    """Why the record is revealed; None: it is not. Raises ConfigError."""
    if not reveal and reason is not None:
        raise ConfigError("there is nothing to give a reason for", field="--reason", expected="--reveal besides it")
    if not reveal:
        return None
    if len((reason or "").strip()) < SHORTEST_REASON:
        raise ConfigError(
            "a reveal needs a reason",
            field="--reason", value=reason, expected=f"at least {SHORTEST_REASON} characters; it is kept in the history",
        )  # fmt: skip
    return reason


def _unknown(id: str, reader: IndexReader) -> ConfigError:
    newest = [letter["id"] for letter in reader.page(LetterFilter(), limit=_COMPARED_IDS).letters]
    near = difflib.get_close_matches(id, newest, 3, cutoff=0.5)
    return ConfigError(
        "there is no dead letter with this id",
        field="ID",
        value=id,
        expected="an id that `tidegate dlq list` shows",
        hint=f"the nearest: {', '.join(near)}" if near else None,
    )


def _row(letter: Document) -> Document:
    return {
        "when": when(letter["last_failed"]),
        "id": one_line(letter["id"], CELL),
        "state": letter["state"],
        "stage": one_line(letter["stage"], CELL),
        "error": one_line(letter["error_type"], CELL),
        "message": one_line(letter["message"], CELL),
        "group": one_line(letter["fingerprint"], CELL),
    }


def _raw(letter: DeadLetter) -> Document:
    document = full_document(letter)
    return {name: document[name] for name in ("key", "keyEncoding", "value", "valueEncoding", "headers")}


def _text(found: Document, raw: DeadLetter | None) -> str:
    """One dead letter for people: what happened, what the record was, how it came about, and what was done."""
    lines = [f"{name:<14}{one_line(str(value), _LINE)}" for name, value in _facts(found).items() if value]
    lines += ["", "reasons", *(f"  {_reason_line(reason)}" for reason in found["reasons"])]
    key, value, headers = _content(found) if raw is None else _raw_content(raw)
    lines += ["", "key", _indented(key), "", "value", _indented(value)]
    if headers:
        lines += ["", "headers", *(f"  {one_line(n, 200)}: {one_line(v, _LINE)}" for n, v in headers)]
    if "stack" in found["detail"]:
        lines += ["", "stack", _indented(printable(found["detail"]["stack"]))]
    past = [
        f"  {entry['created_at']}  job {entry['job']}  {entry['outcome'] or 'not sent yet'}"
        for entry in found["replayed"]
    ]
    past += [
        f"  {entry['at']}  {one_line(entry['actor'], 40)}  {entry['action']}  {one_line(entry['note'], 500)}".rstrip()
        for entry in found["history"]
    ]
    return "\n".join(lines + (["", "history", *past] if past else []))


def _facts(found: Document) -> dict[str, Any]:
    detail = found["detail"]
    timestamp = found["timestamp"]
    return {
        "id": found["id"],
        "state": found["state"],
        "pipeline": found["pipeline"],
        "stage": found["stage"],
        "error": found["errorType"],
        "message": found["message"],
        "group": found["group"],
        "attempts": found["attempt"],
        "replays": str(found["replays"]),
        "replay of": found["replayOf"],
        "repeats": found["repeats"],
        "first failure": found["firstFailure"],
        "last failure": found["lastFailure"],
        "origin": f"{found['source']} partition {found['partition']} offset {found['offset']}",
        "timestamp": None if timestamp is None else moment(timestamp),
        "schema": found["schema"],
        "trace": detail.get("trace"),
        "context": json.dumps(detail["context"], ensure_ascii=False) if detail.get("context") else None,
        "dead letter": f"{found['deadLetterTopic']} partition {found['deadLetterPartition']} "
        f"offset {found['deadLetterOffset']}",
        "truncated": _truncation(detail),
        "size": f"{detail['valueSize']} bytes" if detail.get("valueSize") else None,
    }


def _content(found: Document) -> tuple[str, str, Sequence[tuple[str, str]]]:
    """Key, value and headers as the index has them."""
    key, value = found["key"], found["value"]
    if value is None:
        shown = _NOT_HELD if found["detail"].get("valueSize") else "∅"
    else:
        shown = printable(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))
    headers = [(name, "∅" if data is None else data) for name, data in found["headers"]]
    return "∅" if key is None else printable(key), shown, headers


def _raw_content(raw: DeadLetter) -> tuple[str, str, Sequence[tuple[str, str]]]:
    envelope = raw.envelope
    headers = [(name, readable(value)) for name, value in envelope.headers]
    return readable(envelope.key), readable(envelope.value), headers


def _truncation(detail: Document) -> str | None:
    if not detail.get("truncated"):
        return None
    text = f"{', '.join(detail['truncated'])}; the whole record is at the origin"
    if not detail.get("valueSha256"):
        return text
    return f"{text}, its value has {detail['valueSize']} bytes, SHA-256 {detail['valueSha256']}"


def _reason_line(reason: dict[str, Any]) -> str:
    line = f"{reason['errorType']}: {reason['message']}"
    extras = [f"{name} {reason[name]}" for name in ("rule", "field", "found") if reason.get(name)]
    return one_line(f"{line} ({', '.join(extras)})" if extras else line, _LINE)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
