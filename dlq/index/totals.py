"""Totals of the index: how many, the oldest, what expires, how long topics keep what is in them."""

from __future__ import annotations

from sqlalchemy import func, select

from dlq.index.reading import Document, Reading
from dlq.index.tables import OPEN


class TotalsReader(Reading):
    """Totals, from counters and indexes."""

    def stats(self) -> Document:
        """Totals, from counters: letters, open, groups by state, by stage, by topic; the oldest open letter's failure."""
        groups, facets, letters = self._tables.groups.c, self._tables.facets.c, self._tables.letters.c
        total = [func.coalesce(func.sum(groups[name]), 0) for name in ("count", "open")]
        with self._database.transaction(reads=True) as connection:
            count, opened = connection.execute(select(*total)).one()
            states = connection.execute(select(groups.state, func.count()).group_by(groups.state)).all()
            stages = connection.execute(select(groups.stage, *total).group_by(groups.stage)).all()
            topics = connection.execute(
                select(facets.value, func.sum(facets["count"])).where(facets.facet == "topic").group_by(facets.value)
            ).all()
            oldest = [
                connection.execute(
                    select(func.min(letters.dlq_timestamp)).where(letters.dlq_topic == topic, letters.state == OPEN)
                ).scalar()
                for topic, _ in topics
            ]
        return {
            "letters": int(count),
            "open": int(opened),
            "groups": {state: int(number) for state, number in states},
            "stages": {stage: {"letters": int(all_), "open": int(still)} for stage, all_, still in stages},
            "topics": {topic: int(number) for topic, number in topics},
            "oldestOpen": {topic: at for (topic, _), at in zip(topics, oldest, strict=True) if at is not None},
        }

    def expiring(self, before: int, *, within: int) -> list[Document]:
        """Open letters that retention deletes within `within` ms of `before`: fingerprint, dlq_topic, count, at.

        `at`: when the first of them goes (ms; in the past: it may be gone). Letters of acknowledged groups count, too:
        somebody has seen them, nobody has saved them. `seen` tells the two apart.
        """
        letters, groups = self._tables.letters.c, self._tables.groups.c
        found: list[Document] = []
        with self._database.transaction(reads=True) as connection:
            topics = self._tables.topics.c
            kept = connection.execute(select(topics.topic, topics.retention_ms).where(topics.retention_ms.is_not(None)))
            for topic, retention in kept.all():
                query = (
                    select(letters.fingerprint, func.count(), func.min(letters.dlq_timestamp), groups.state)
                    .join_from(self._tables.letters, self._tables.groups, groups.fingerprint == letters.fingerprint)
                    .where(letters.dlq_topic == topic, letters.state == OPEN)
                    .where(letters.dlq_timestamp < before + within - retention)
                    .group_by(letters.fingerprint, groups.state)
                )
                found += [
                    {
                        "fingerprint": name,
                        "dlq_topic": topic,
                        "count": count,
                        "at": at + retention,
                        "seen": state != OPEN,
                    }
                    for name, count, at, state in connection.execute(query)
                ]
        return sorted(found, key=lambda entry: (entry["at"], entry["fingerprint"]))

    def topics(self) -> dict[str, Document]:
        """Each topic that an agent has looked at: retention_ms (None: kept for ever), and when it looked (checked_at)."""
        return {row["topic"]: row for row in self._fetch(select(self._tables.topics))}
