"""Header names that the stages themselves read, and how headers are read. All that a dead letter carries is in dlq/headers.py."""

from __future__ import annotations

from collections.abc import Sequence
from operator import methodcaller
from typing import Any, Final, Protocol

REPLAY_OF = "tidegate.replay.of"
"""Id of the dead letter that this record is a replay of: the record is never late and never moves the high water."""

REPLAY_JOB = "tidegate.replay.job"
"""JOB/POSITION: which replay job sent it, and as which of its letters. The stages take only ids as tidegate makes them."""

REPLAY_TO = "tidegate.replay.to"
"""TOPIC/PARTITION/CRC32: where the job sent it, and what (tidegate/stages/repeats.py). Whoever copies it to another record
makes no replay of that. A dead letter does not carry it: another tool may send that back."""

RETRY_OF = "tidegate.retry.of"
"""Id of the record that this one is a delayed retry of: the same exemption from lateness."""

RETRY_ATTEMPT = "tidegate.retry.attempt"
"""The how manieth delayed retry this is, from 1."""

RETRY_FROM = "tidegate.retry.from"
"""The offset at which the record was put away before this attempt: how it is found in its key's line (`keepOrder`)."""

RETRY_BEHIND = "tidegate.retry.behind"
"""Of a record that waited for its turn: the offset at which the first of its line had been put away then."""

UNREADABLE: Final = "\ufffd"
"""The one header, without a value, of a record that has any header whose name is no UTF-8.

Clients in C or Go write such records. Of their headers confluent-kafka tells nothing at all, so the worker, which could know
more, does not use more: both engines see the same record, and a dead letter shows that there was something.
"""

_headers = methodcaller("headers")
"""Called from C on purpose. confluent-kafka returns its list with the error pending and a null pointer for the name in it; a call
from C is checked for that, the bytecode of a call that has run often is not: the error comes somewhere later, or a crash."""


Header = tuple[str, bytes | None]
"""Name and value."""

Headers = list[Header]


class _Message(Protocol):
    """confluent-kafka's; the stages do not know it."""

    def headers(self) -> Any: ...

    def set_headers(self, value: Any, /) -> None: ...


def headers_of(message: _Message) -> Headers:
    """The headers of a record that confluent-kafka has read, in their order. Nothing else may call `message.headers()`, but
    for `headers_of_all`.

    A name ends at its first NUL here, since librdkafka gives names without their lengths; aiokafka, and with it the worker, has
    the whole name. Nothing that librdkafka tells of a record says that a name was longer.
    """
    return headers_of_all([message])[0] or []


def headers_of_all(messages: Sequence[_Message]) -> list[Headers | None]:
    """As `headers_of`, of many at a time, which takes a sixth as long; None: none."""
    found: list[Headers | None] = []
    calls = map(_headers, messages)
    while True:
        try:
            found.extend(calls)  # what came before an error is kept, and the next call is that of the record behind it
        except (SystemError, UnicodeDecodeError) as error:
            if not isinstance(error.__cause__ or error, UnicodeDecodeError):
                raise
            # The next call on this one would give the list with the null pointer, and no error.
            messages[len(found)].set_headers([(UNREADABLE, None)])
            found.append([(UNREADABLE, None)])
        else:
            return found
