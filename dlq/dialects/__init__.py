"""Header dialects: what other tools' dead letters carry, written for them and read from them."""

from __future__ import annotations

from dlq.dialects.arroyo import Arroyo
from dlq.dialects.base import UNKNOWN, Dialect, Foreign, Origin, Reader, last_values
from dlq.dialects.connect import Connect
from dlq.dialects.none import NoDialect
from dlq.dialects.share import Share
from dlq.dialects.smallrye import SmallRye
from dlq.dialects.spring import Spring
from dlq.dialects.streams import Streams

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (Connect(), Spring(), Streams(), NoDialect())}
"""Those that can be written."""

READERS: tuple[Reader, ...] = (*DIALECTS.values(), Share(), SmallRye(), Arroyo())
"""All that are read, in the order in which they are tried."""

DIALECT_PREFIXES: tuple[str, ...] = tuple(prefix for reader in READERS for prefix in reader.prefixes)


def read_foreign(values: dict[str, bytes]) -> Foreign | None:
    """What some dialect's headers tell (`values`: the last value of each name), or None if there is no whole origin."""
    found = _read(values)
    return None if found is None else found[1]


def dialect_of(values: dict[str, bytes]) -> str | None:
    """The name of the dialect that `read_foreign` reads, or None."""
    found = _read(values)
    return None if found is None else found[0]


def _read(values: dict[str, bytes]) -> tuple[str, Foreign] | None:
    for reader in READERS:
        if (foreign := reader.read(values)) is not None:
            return reader.name, foreign
    return None


__all__ = [
    "DIALECTS",
    "DIALECT_PREFIXES",
    "READERS",
    "UNKNOWN",
    "Dialect",
    "Foreign",
    "Origin",
    "Reader",
    "dialect_of",
    "last_values",
    "read_foreign",
]
