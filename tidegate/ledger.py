"""The account of one source partition: every record read is in exactly one of seven places; replays are counted apart."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields


@dataclass(frozen=True, slots=True)
class Ledger:
    """Counters of records, moved in the same atomic write as the results.

    `read` = `accepted` + `dead_lettered` + `late` + `deferred` + `duplicate` + `filtered` + `skipped`. `replayed`: how many of
    those that were read are replays of dead letters, whatever has become of them. Delayed retries are not among them.
    """

    read: int = 0
    accepted: int = 0
    dead_lettered: int = 0
    late: int = 0
    deferred: int = 0
    duplicate: int = 0
    filtered: int = 0
    skipped: int = 0
    replayed: int = 0

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def accounted(self) -> int:
        """Records that are in one of the seven places."""
        return sum(getattr(self, name) for name in LEDGER_OUTCOMES)

    @property
    def balanced(self) -> bool:
        return self.read == self.accounted


LEDGER_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Ledger))

LEDGER_OUTCOMES = tuple(name for name in LEDGER_COLUMNS if name not in ("read", "replayed"))
"""The seven places."""
