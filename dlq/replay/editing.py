"""One dead letter, edited by hand: what is shown of it, what becomes of what somebody wrote, and how it is sent.

The new content is never written down: it is in the memory of the process that sends it, which is that of whoever edits.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from dlq.envelope import Envelope
from dlq.index.filters import LetterFilter
from dlq.index.masking import Masker
from dlq.index.tables import OPEN
from dlq.reader import DeadLetter
from dlq.replay.agent import owner_name
from dlq.replay.hand import by_hand, masked_text, unmasked
from dlq.replay.jobs import STOPPED, Job, Jobs, LeaseLost
from dlq.replay.outgoing import ByHand
from dlq.replay.request import Request
from dlq.replay.run import Run
from tidegate.clock import Clock
from tidegate.config.pipeline import Pipeline
from tidegate.errors import BrokerUnavailable, ConfigError

_PATIENCE = 20.0  # seconds for sending one record


class Shown(NamedTuple):
    """Key and value as somebody edits them, masked. None: null, no text, or not to be looked into."""

    key: str | None
    value: str | None


class Edit(NamedTuple):
    """What is previewed and sent."""

    request: Request
    hand: ByHand


def require_open(letter: Mapping[str, Any]) -> None:
    """Raises ConfigError for a letter that is not open."""
    if letter["state"] != OPEN:
        raise ConfigError(
            f"the dead letter is {letter['state']}", field="ID", value=letter["id"], expected="an open one"
        )


def require_raw(letter: Mapping[str, Any], raw: DeadLetter | None) -> DeadLetter:
    """Raises ConfigError for a letter whose record is nowhere any more."""
    if raw is None:
        raise ConfigError(
            "its record is not in the topic any more, and in no file that the index knows",
            field="ID",
            value=letter["id"],
            hint="retention has deleted it; if S3 has it: tidegate dlq import",
        )
    return raw


def shown(original: Envelope, masker: Masker) -> Shown:
    """`original` as it may be seen by whoever may edit it."""
    return Shown(_shown_key(original, masker), masked_text(original.value, masker))


def written(
    original: Envelope, key: str | None, value: str | None, masker: Masker, *, indented: bool = False
) -> tuple[bytes | None, bytes | None]:
    """Key and value out of what somebody made of `shown`; None, or as it was shown: as it was. Fields that still hold
    their mask keep what was in them. `indented`: for people; JSON is sent without it. Raises ConfigError."""
    before = shown(original, masker)
    new_key, new_value = original.key, original.value
    if key is not None and key != (before.key or ""):
        new_key = key.encode("utf-8", "surrogatepass")
    if value is not None and value != (before.value or ""):
        if not value.strip():
            raise ConfigError("there is no value", field="value", expected="the whole new value")
        new_value = unmasked(_compact(value) if indented else value, original.value, masker)
        if indented and before.value is not None and _compact(value) == _compact(before.value):
            new_value = original.value
    return new_key, new_value


def edited(
    letter: Mapping[str, Any],
    original: Envelope,
    new: tuple[bytes | None, bytes | None],
    masker: Masker,
    to: str | None,
) -> Edit:
    """`new`: key and value. Raises ConfigError when nothing is changed, or a mask would be sent."""
    key, value = new
    if (key, value) == (original.key, original.value):
        raise ConfigError("nothing was changed", field="value", expected="another value, or another key")
    for name, changed in (("key", key != original.key), ("value", value != original.value)):
        if name in original.truncated and not changed:
            raise ConfigError(
                f"the dead letter's {name} did not fit and was cut", field=name, expected=f"the whole {name}"
            )
    hand = by_hand(letter["letter"], original, key, value, masker)
    wanted = LetterFilter(id=(letter["id"],), topic=(letter["dlq_topic"],))
    return Edit(Request(wanted, to, by_hand=True, canary=False), hand)


def send(pipeline: Pipeline, jobs: Jobs, edit: Edit, *, actor: str, clock: Clock) -> Job:
    """Make the job and send its record from this process; an agent follows what becomes of it.

    Raises ConfigError, BrokerUnavailable when it could not be sent; the letter is open then, once an agent has seen that.
    """
    job = jobs.create(edit.request, actor=actor, owner=owner_name())
    try:
        _send(Run(pipeline, jobs, job, by_hand=edit.hand, clock=clock), clock)
    except BaseException:
        jobs.cancel(job.id, actor=actor)
        raise
    finally:
        with contextlib.suppress(LeaseLost):
            jobs.release(job)
    return jobs.get(job.id)


def _send(run: Run, clock: Clock) -> None:
    until = clock.monotonic() + _PATIENCE
    try:
        while run.job.sent < run.job.total and run.job.state != STOPPED:
            after = run.turn()
            if after is None:
                return
            if clock.monotonic() > until:
                raise BrokerUnavailable(f"the record could not be sent within {_PATIENCE:g} s")
            time.sleep(after)
    finally:
        run.close()


def _shown_key(original: Envelope, masker: Masker) -> str | None:
    """A key may repeat what is masked in the value, or be a document itself, which is then not shown."""
    hidden: dict[str, str] = {}
    try:
        text = None if original.key is None else original.key.decode()
        if text is None or not masker.changes_values:
            return text
        masker.value(json.loads(original.value or b"null"), hidden)
    except (ValueError, RecursionError):
        return None
    return None if masker.by_path and text[:1] in ("{", "[", '"') else masker.text(text, hidden)


def _compact(text: str) -> str:
    try:
        return msgspec.json.format(text.encode("utf-8", "surrogatepass"), indent=-1).decode()
    except (ValueError, RecursionError):
        return text
