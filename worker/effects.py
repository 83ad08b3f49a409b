"""What one step of a partition changes, computed and not yet written: rows for its transaction, rows for its local state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from worker.records import Rows
from worker.statedb import PartitionDB


@dataclass(slots=True)
class Effects:
    """State rows go to the changelog in the transaction, and to the local database after it; `topics` go out with it."""

    puts: list[tuple[bytes, bytes]] = field(default_factory=list)
    deletes: list[bytes] = field(default_factory=list)
    topics: list[Rows] = field(default_factory=list)

    def put(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self.puts.extend(zip(keys, values, strict=True))

    def send(self, topic: str, partition: int, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
        if keys:
            self.topics.append(Rows(topic, partition, list(keys), list(values)))

    def changelog(self, topic: str, partition: int) -> Rows:
        """The state rows as changelog records: a deleted row is a tombstone."""
        keys: list[bytes | None] = [key for key, _ in self.puts]
        values: list[bytes | None] = [value for _, value in self.puts]
        return Rows(topic, partition, keys + list(self.deletes), values + [None] * len(self.deletes))

    def apply(self, db: PartitionDB, changelog_offset: int) -> None:
        db.write(self.puts, self.deletes, changelog_offset)
