"""What the headers of a failure tell, of a dead letter as of a replay that fails again."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from dlq import headers as h
from dlq.dialects import DIALECT_PREFIXES, Origin, read_foreign
from dlq.dialects.base import number, text, textual_place
from dlq.encoding import parse_iso_utc
from tidegate.headers import REPLAY_TO

# Headers of an earlier failure. They are taken off when the record fails again: piled up, they end in RecordTooLarge. Where a
# replay was sent goes, too: a tool that sends the dead letter back as it is makes no repeat of that (tidegate/stages/repeats.py).
FAILURE_PREFIXES: tuple[str, ...] = (h.DLQ_PREFIX, h.RETRY_PREFIX, REPLAY_TO, *DIALECT_PREFIXES)


class Earlier(NamedTuple):
    """What stays when a record fails again. None or empty where the headers do not say."""

    origin: Origin | None
    first_failure: int | None
    replays: int
    truncated: tuple[str, ...]
    value_size: int | None
    value_sha256: str | None


@lru_cache(maxsize=4096)  # every record of a topic has the same names
def is_failure_header(name: str) -> bool:
    """Whether a header was written for a failure, by tidegate or in one of the dialects."""
    return name.startswith(FAILURE_PREFIXES)


@lru_cache(maxsize=256)  # and the same ones in the same order, but for some
def kept_headers(names: tuple[str, ...]) -> tuple[int, ...]:
    """Which of these headers (by index) were not written for a failure."""
    return tuple(index for index, name in enumerate(names) if not is_failure_header(name))


def read_earlier(values: dict[str, bytes]) -> Earlier:
    """`values`: the last value of each header. The origin is tidegate's own, else a dialect's."""
    return Earlier(
        origin=_origin(values),
        first_failure=parse_iso_utc(text(values, h.FAILED_FIRST)),
        replays=number(values, h.REPLAYS) or 0,
        truncated=tuple(filter(None, (text(values, h.TRUNCATED) or "").split(","))) if h.TRUNCATED in values else (),
        value_size=number(values, h.VALUE_SIZE),
        value_sha256=text(values, h.VALUE_SHA256),
    )


def _origin(values: dict[str, bytes]) -> Origin | None:
    own = textual_place(values, h.ORIGIN_TOPIC, h.ORIGIN_PARTITION, h.ORIGIN_OFFSET)
    if own is None:
        foreign = read_foreign(values)
        return None if foreign is None else foreign.origin
    return Origin(*own, number(values, h.ORIGIN_TIMESTAMP), text(values, h.ORIGIN_TIMESTAMP_TYPE))
