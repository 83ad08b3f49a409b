"""Options that the commands on dead letters share, and what they mean."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from dlq.index.filters import FieldIs, LetterFilter, moment_of
from tidegate.clock import SystemClock

PipelineFile = Annotated[Path, typer.Argument(metavar="PIPELINE", help="The pipeline file, YAML or JSON.")]
IndexUrl = Annotated[
    str | None,
    typer.Option("--index", envvar="TIDEGATE_DLQ_INDEX", help="URL of the index. Default: the pipeline file's."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Note = Annotated[str, typer.Option(help="Why; it is kept with the group and in the history.")]
Fingerprint = Annotated[str, typer.Argument(metavar="GROUP", help="Its fingerprint, as `dlq groups` shows it.")]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ToOption = Annotated[str | None, typer.Option("--to", help="To this topic. Default: where each came from.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Mend each: 'value.field = SQL', 'value = SQL' or 'key = SQL'. Can be repeated."),
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="As `dlq jobs list` shows it.")]

Several = list[str] | None
GroupOption = Annotated[
    Several, typer.Option("--group", help="Of this group (fingerprint). Any option can be repeated.")
]
TopicOption = Annotated[Several, typer.Option("--topic", help="In this dead-letter topic.")]
SourceOption = Annotated[Several, typer.Option("--source", help="Of records of this topic.")]
StageOption = Annotated[Several, typer.Option("--stage", help="That failed in this stage.")]
ErrorOption = Annotated[Several, typer.Option("--error", help="With this error type.")]
RuleOption = Annotated[Several, typer.Option("--rule", help="That failed this rule.")]
StateOption = Annotated[Several, typer.Option("--state", help="open, resolved, parked or replaced.")]
IdOption = Annotated[Several, typer.Option("--id", help="This one, by its id.")]
KeyOption = Annotated[Several, typer.Option("--key", help="With this key.")]
FieldOption = Annotated[Several, typer.Option("--field", help="Whose value has it: customer.country=NO.")]
SinceOption = Annotated[str | None, typer.Option(help='That failed since: "2 hours", or an ISO 8601 time.')]
UntilOption = Annotated[str | None, typer.Option(help="That failed before: the same forms.")]


def letter_filter(
    text: str | None = None,
    *,
    group: Several = None,
    topic: Several = None,
    source: Several = None,
    stage: Several = None,
    error: Several = None,
    rule: Several = None,
    state: Several = None,
    key: Several = None,
    id: Several = None,
    field: Several = None,
    since: str | None = None,
    until: str | None = None,
) -> LetterFilter:
    """What the options mean. Raises ConfigError."""
    clock = SystemClock()
    return LetterFilter(
        group=tuple(group or ()),
        topic=tuple(topic or ()),
        source=tuple(source or ()),
        stage=tuple(stage or ()),
        error=tuple(error or ()),
        rule=tuple(rule or ()),
        state=tuple(state or ()),
        key=tuple(key or ()),
        id=tuple(id or ()),
        since=None if since is None else moment_of(since, clock, "--since"),
        until=None if until is None else moment_of(until, clock, "--until"),
        text=text,
        field=tuple(FieldIs.parse(written) for written in field or ()),
    )


def actor() -> str:
    """Who is at the keyboard, for the history."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
