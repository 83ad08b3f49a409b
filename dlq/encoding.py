"""How the parts of an envelope are written in headers: times as ISO 8601, reasons as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec
from msgspec.structs import replace

from dlq.limits import MAX_REASONS_BYTES, cut_text, well_formed
from tidegate.stages.batch import Reason

_LONG_TEXT_BYTES = 1024  # of a text in a reason, once the reasons do not fit


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DECODER = msgspec.json.Decoder(tuple[Reason, ...])

encode_reasons: Final[Callable[[Sequence[Reason]], bytes]] = msgspec.json.Encoder().encode
"""The reasons as a JSON list of objects; what a reason does not say is left out."""


def decode_reasons(data: bytes | None) -> tuple[Reason, ...]:
    """What `encode_reasons` wrote; () for something else, which another program may have put there."""
    if data is None:
        return ()
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return ()


def encode_fitting_reasons(reasons: Sequence[Reason]) -> bytes:
    """As many of the first reasons as fit in MAX_REASONS_BYTES, at least one, each with its texts cut to 1 KiB."""
    short = [
        replace(
            reason,
            message=cut_text(reason.message, _LONG_TEXT_BYTES),
            field=None if reason.field is None else cut_text(reason.field, _LONG_TEXT_BYTES),
            found=None if reason.found is None else cut_text(reason.found, _LONG_TEXT_BYTES),
        )
        for reason in reasons
    ]
    while len(encoded := encode_reasons(short)) > MAX_REASONS_BYTES and len(short) > 1:
        # By the average size; at least one goes, so that this ends.
        short = short[: max(1, min(len(short) - 1, len(short) * MAX_REASONS_BYTES // len(encoded)))]
    return encoded


def well_formed_reasons(reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """The reasons with texts that UTF-8 can hold."""
    for reason in reasons:
        if not (
            reason.error_type.isascii()
            and reason.message.isascii()
            and (reason.rule is None or reason.rule.isascii())
            and (reason.field is None or reason.field.isascii())
            and (reason.found is None or reason.found.isascii())
        ):  # written out because a loop over them takes three times as long
            return tuple([well_formed_reason(reason) for reason in reasons])
    return reasons  # nearly always


def well_formed_reason(reason: Reason) -> Reason:
    """The same for one."""
    return Reason(
        well_formed(reason.error_type),
        well_formed(reason.message),
        None if reason.rule is None else well_formed(reason.rule),
        None if reason.field is None else well_formed(reason.field),
        None if reason.found is None else well_formed(reason.found),
    )


def iso_utc(ms: int) -> str:
    """`2026-01-31T12:00:00.123Z`."""
    seconds, millis = divmod(ms, 1000)
    return f"{_second(seconds)}.{millis:03d}Z"


@lru_cache(maxsize=1024)  # the dead letters of one batch share their time, and replays of an outage their seconds
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


@lru_cache(maxsize=1024)
def parse_iso_utc(text: str | None) -> int | None:
    """Milliseconds since the epoch of an ISO 8601 time (UTC when it names no zone), or None when it is none, or in UTC not of the
    years 1 to 9999, which `iso_utc` could not write."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        since = (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)) - _EPOCH
    except (ValueError, OverflowError):
        return None
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
