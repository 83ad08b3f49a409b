"""`tidegate dlq preview | replay | edit | park`: dead letters go back, mended or as they were, or are set aside."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlq.cli import options as o
from dlq.cli.following import carry_out
from dlq.cli.previews import print_preview
from dlq.document import safe_json
from dlq.envelope import Envelope
from dlq.index.filters import LetterFilter
from dlq.index.masking import Masker
from dlq.index.search import Document
from dlq.replay.request import MAX_FAILURES, Request
from dlq.service import DeadLetterIndex, open_index
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline
from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from dlq.replay.outgoing import ByHand
    from dlq.replay.preview import Preview

Here = Annotated[bool, typer.Option("--here", help="Carry it out in this process, not in the agent's.")]


@o.choosing(without=["state"])
def preview(
    pipeline: PipelineFile,
    wanted: LetterFilter,
    to: o.ToOption = None,
    assignments: o.SetOption = None,
    index: o.IndexUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Say what a replay of the open dead letters that the options choose would come to: how many would pass now."""
    with open_index(load_pipeline(pipeline), index) as opened:
        found = opened.preview(Request(wanted, to, tuple(assignments or ())))
    _print(found, as_json)


@o.choosing(without=["state"])
def replay(
    pipeline: PipelineFile,
    wanted: LetterFilter,
    to: o.ToOption = None,
    assignments: o.SetOption = None,
    canary: Annotated[
        bool, typer.Option(help="One first, then ten, then the rest, each when the last has passed.")
    ] = True,
    rate: Annotated[int | None, typer.Option(min=1, help="So many a second at most.")] = None,
    max_failures: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Stop when a larger share than this fails again.")
    ] = MAX_FAILURES,
    here: Here = False,
    wait: Annotated[bool, typer.Option(help="Follow it to its end.")] = True,
    index: o.IndexUrl = None,
    yes: o.Yes = False,
    as_json: o.AsJson = False,
) -> None:
    """Send the open dead letters that the options choose back, after a preview and a question.

    Ends with 0 when all of them were accepted, else with 1.
    """
    request = Request(wanted, to, tuple(assignments or ()), canary=canary, rate=rate, max_failures=max_failures)
    o.require_answer(yes, as_json)
    with open_index(load_pipeline(pipeline), index) as opened:
        _ask(opened, request, yes=yes)
        job = opened.replay(request, actor=o.actor())
        carry_out(opened, job, here=here, wait=wait, as_json=as_json)


def edit(
    pipeline: PipelineFile,
    id: Annotated[str, typer.Argument(metavar="ID", help="As `dlq list` shows it.")],
    value: Annotated[str | None, typer.Option(help="The new value. Default: an editor opens on the raw one.")] = None,
    value_file: Annotated[Path | None, typer.Option(help="A file with the new value.")] = None,
    key: Annotated[str | None, typer.Option(help="The new key. Default: as it was.")] = None,
    to: o.ToOption = None,
    index: o.IndexUrl = None,
    yes: o.Yes = False,
    as_json: o.AsJson = False,
) -> None:
    """Mend one dead letter by hand and send it. The original stays in its topic, and the new record names it.

    The new content is in this process only, so it is also sent from here.
    """
    from dlq.replay.editing import edited, require_open, require_raw  # brings the stages with it

    o.require_answer(yes, as_json)
    loaded = load_pipeline(pipeline)
    with open_index(loaded, index) as opened:
        letter = _letter(opened, id)
        require_open(letter)
        raw = require_raw(letter, opened.reveal(letter, actor=o.actor(), reason="to edit it"))
        given = value_file.read_bytes() if value_file is not None else None if value is None else value.encode()
        new = _edited(raw.envelope, given, key)
        one = edited(letter, raw.envelope, new, Masker(loaded.dead_letters.masking), to)
        _ask(opened, one.request, yes=yes, hand=one.hand)
        carry_out(opened, opened.edit(letter, one, actor=o.actor()), here=True, wait=True, as_json=as_json)


@o.choosing(without=["state"])
def park(
    pipeline: PipelineFile,
    wanted: LetterFilter,
    undo: Annotated[bool, typer.Option("--undo", help="Open parked ones again; their replays count anew.")] = False,
    note: o.Note = "",
    index: o.IndexUrl = None,
    yes: o.Yes = False,
    as_json: o.AsJson = False,
) -> None:
    """Set dead letters aside: they are not open any more, and are not replayed."""
    o.require_answer(yes, as_json)
    with open_index(load_pipeline(pipeline), index) as opened:
        if not yes:
            which = "the parked ones" if undo else "the open ones"
            of = ", ".join(f"{name} {given}" for name, given in wanted.to_params()) or "all dead letters"
            typer.confirm(f"{'Open' if undo else 'Park'} {which} of {of}?", abort=True)
        act = opened.lifecycle.unpark if undo else opened.lifecycle.park
        number = act(wanted, actor=o.actor(), note=note)
    typer.echo(
        safe_json({"letters": number}) if as_json else f"{number} dead letters {'are open again' if undo else 'parked'}"
    )


def _ask(opened: DeadLetterIndex, request: Request, *, yes: bool, hand: ByHand | None = None) -> None:
    """The preview, and the question."""
    if yes:
        return
    found = opened.preview(request, hand)
    print_preview(found)
    sent = found.passing + found.failing
    if not sent:
        raise ConfigError("nothing can be replayed", field="the filter", expected="open dead letters that can be sent")
    typer.confirm(f"Send {sent} records?", abort=True)


def _print(found: Preview, as_json: bool) -> None:
    if as_json:
        typer.echo(safe_json(found.document(), indent=2))
    else:
        print_preview(found)


def _letter(opened: DeadLetterIndex, id: str) -> Document:
    letter = opened.reader.letter(id)
    if letter is None:
        raise ConfigError(
            "there is no dead letter with this id", field="ID", value=id, expected="as `dlq list` shows it"
        )
    return letter


def _edited(original: Envelope, value: bytes | None, key: str | None) -> tuple[bytes | None, bytes | None]:
    """The new key and value. Raises ConfigError when nothing is changed."""
    if value is None and key is None:
        text = (original.value or b"").decode("utf-8", "surrogateescape")
        edited = _in_editor(text)
        if edited.rstrip("\n") == text.rstrip("\n"):
            raise ConfigError("nothing was changed", field="--value", expected="another value, or --key")
        value = edited.rstrip("\n").encode("utf-8", "surrogateescape")
    new_key = original.key if key is None else key.encode()
    return new_key, original.value if value is None else value


def _in_editor(text: str) -> str:
    """`text` as $EDITOR leaves it, in a file that only this user can read. Raises ConfigError when it cannot be run."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="tidegate-") as folder:
        file = Path(folder) / "value.json"
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        try:
            subprocess.run([*shlex.split(command), str(file)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            problem = f"the editor cannot be used: {error}"
            raise ConfigError(problem, field="EDITOR", value=command, hint="--value or --value-file") from None
        return file.read_bytes().decode("utf-8", "surrogateescape")
