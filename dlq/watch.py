"""What changes in the index without a dead letter coming in: totals for the metrics, and letters about to expire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import structlog

from dlq.index.database import IndexDatabase
from dlq.index.search import IndexReader
from dlq.index.tables import ACKNOWLEDGED, OPEN, RESOLVED
from dlq.retention import note_retentions, retentions
from tidegate.clock import Clock, SystemClock
from tidegate.config.durations import format_duration
from tidegate.telemetry import metric_defs as m
from tidegate.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)
_SHOWN = 20  # warnings at a time; the metric has them all
_MINUTE = 60_000


class Watch:
    """Looks now and then. A warning is given once per group and topic, and again when more letters are concerned."""

    def __init__(
        self,
        database: IndexDatabase,
        metrics: Metrics,
        options: Mapping[str, Any],
        topics: tuple[str, ...],
        *,
        expiry_warning: int,
        clock: Clock | None = None,
    ) -> None:
        """`options`: confluent's. `expiry_warning` in ms."""
        self._database, self._reader, self._metrics = database, IndexReader(database), metrics
        self._options, self._topics, self._within = options, topics, expiry_warning
        self._clock = clock or SystemClock()
        self._warned: dict[tuple[str, str], int] = {}

    def look(self) -> None:
        """1. retention of the topics 2. totals 3. what expires. Raises StoreUnavailable, BrokerUnavailable, ConfigError."""
        note_retentions(self._database, retentions(self._options, self._topics), self._clock)
        stats = self._reader.stats()
        self._metrics.set(m.DLQ_OPEN_RECORDS, {}, stats["open"])
        for state in (OPEN, ACKNOWLEDGED, RESOLVED):
            self._metrics.set(m.DLQ_GROUPS, {"state": state}, stats["groups"].get(state, 0))
        for topic in self._topics:
            if (at := stats["oldestOpen"].get(topic)) is not None:
                self._metrics.set(m.DLQ_OLDEST_OPEN_TIMESTAMP, {"topic": topic}, at / 1000)
            else:
                self._metrics.drop(m.DLQ_OLDEST_OPEN_TIMESTAMP, {"topic": topic})
        self._warn()

    def _warn(self) -> None:
        now = int(self._clock.time() * 1000)
        expiring = self._reader.expiring(now, within=self._within)
        counts = Counter(dict.fromkeys(self._topics, 0))
        for entry in expiring:
            counts[entry["dlq_topic"]] += entry["count"]
        for topic in self._topics:
            self._metrics.set(m.DLQ_EXPIRING_RECORDS, {"topic": topic}, counts[topic])
        places = {(entry["fingerprint"], entry["dlq_topic"]): entry for entry in expiring}
        fresh = [entry for place, entry in places.items() if entry["count"] > self._warned.get(place, 0)]
        for entry in fresh[:_SHOWN]:
            left = max(0, entry["at"] - now) // _MINUTE * _MINUTE
            log.warning(
                "dlq.expiring",
                group=entry["fingerprint"],
                topic=entry["dlq_topic"],
                letters=entry["count"],
                first_in=format_duration(left),
                seen=entry["seen"],
            )
        self._warned = {place: entry["count"] for place, entry in places.items()}
