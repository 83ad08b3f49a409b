"""The account of one source partition: every record read is in exactly one of seven places."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields


@dataclass(frozen=True, slots=True)
class Ledger:
    """Counters of records, moved in the same atomic write as the results.

    `read` = `accepted` + `dead_lettered` + `late` + `deferred` + `duplicate` + `filtered` + `skipped`.
    """

    read: int = 0
    accepted: int = 0
    dead_lettered: int = 0
    late: int = 0
    deferred: int = 0
    duplicate: int = 0
    filtered: int = 0
    skipped: int = 0

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def accounted(self) -> int:
        """Records that are in one of the seven places."""
        return sum(astuple(self)[1:])

    @property
    def balanced(self) -> bool:
        return self.read == self.accounted


LEDGER_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Ledger))
