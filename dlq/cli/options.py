"""Options that the commands on dead letters share, and what they mean."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterable, Sequence
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Final

import typer

from dlq.index.filters import FieldIs, LetterFilter, moment_of
from tidegate.clock import SystemClock
from tidegate.errors import ConfigError

Command = Callable[..., None]

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
PipelineOption = Annotated[
    Several, typer.Option("--pipeline", help="Of this pipeline (its id), where several share topics.")
]
StageOption = Annotated[Several, typer.Option("--stage", help="That failed in this stage.")]
ErrorOption = Annotated[Several, typer.Option("--error", help="With this error type.")]
RuleOption = Annotated[Several, typer.Option("--rule", help="That failed this rule.")]
StateOption = Annotated[Several, typer.Option("--state", help="open, resolved, parked or replaced.")]
IdOption = Annotated[Several, typer.Option("--id", help="This one, by its id.")]
KeyOption = Annotated[Several, typer.Option("--key", help="With this key.")]
FieldOption = Annotated[Several, typer.Option("--field", help="Whose value has it: customer.country=NO.")]
AfterOption = Annotated[
    str | None, typer.Option("--after", help="Go on where a page ended: what it said behind `more:`.")
]
SinceOption = Annotated[str | None, typer.Option(help='That failed since: "2 hours", or an ISO 8601 time.')]
UntilOption = Annotated[str | None, typer.Option(help="That failed before: the same forms.")]


Words = Annotated[str | None, typer.Option(help="Words of the message, all of them.")]

FILTER: Final[dict[str, Any]] = {
    "group": GroupOption, "topic": TopicOption, "source": SourceOption, "pipeline": PipelineOption, "stage": StageOption,
    "error": ErrorOption, "rule": RuleOption, "state": StateOption, "key": KeyOption, "id": IdOption, "field": FieldOption,
    "text": Words, "since": SinceOption, "until": UntilOption,
}  # fmt: skip
"""The options that choose dead letters, each once."""


def choosing(*, only: Iterable[str] = FILTER, without: Iterable[str] = ()) -> Callable[[Command], Command]:
    """A command's parameter `wanted: LetterFilter`, as options: those of FILTER, or `only` some, `without` others."""
    names = [name for name in FILTER if name in set(only) - set(without)]
    called = {name: f"{name}_" if name == "pipeline" else name for name in names}  # the file's parameter has that name

    def decorate(command: Command) -> Command:
        own = [one for one in signature(command, eval_str=True).parameters.values() if one.name != "wanted"]
        options = [
            Parameter(called[name], Parameter.KEYWORD_ONLY, default=None, annotation=FILTER[name]) for name in names
        ]
        first = [one for one in own if one.default is Parameter.empty]
        rest = [one for one in own if one.default is not Parameter.empty]
        parameters = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in (*first, *options, *rest)]

        def run(**given: Any) -> None:
            command(wanted=letter_filter(**{name: given.pop(called[name]) for name in names}), **given)

        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # Typer reads it; a function has no such declared attribute
        return run

    return decorate


def letter_filter(*, since: str | None = None, until: str | None = None, **given: Any) -> LetterFilter:
    """What the options of FILTER mean. Raises ConfigError."""
    clock = SystemClock()
    text, field = given.pop("text", None), given.pop("field", None)
    return LetterFilter(
        **{name: tuple(values or ()) for name, values in given.items()},
        since=None if since is None else moment_of(since, clock, "--since"),
        until=None if until is None else moment_of(until, clock, "--until"),
        text=text,
        field=tuple(FieldIs.parse(written) for written in field or ()),
    )


def known(states: Several, all_of_them: Sequence[str]) -> tuple[str, ...]:
    """The option's values. Raises ConfigError for one that there is not."""
    for state in states or ():
        if state not in all_of_them:
            raise ConfigError("no such state", field="--state", value=state, expected=", ".join(all_of_them))
    return tuple(states or ())


def require_answer(yes: bool, as_json: bool) -> None:
    """Raises ConfigError where a question could not be asked."""
    if as_json and not yes:
        raise ConfigError(
            "with --json nobody is asked", field="--json", expected="--yes besides it",
            hint="`tidegate dlq preview --json`, or `list --json`, shows what it would be about",
        )  # fmt: skip


def actor() -> str:
    """Who is at the keyboard, for the history."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
