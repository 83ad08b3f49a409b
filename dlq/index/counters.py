"""What a batch of new letters adds to the counters of their groups, in the order of the keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dlq.index.letters import Row
from dlq.index.tables import OPEN, RATE_BUCKET


def groups_of(rows: Sequence[Row], now: int) -> list[dict[str, Any]]:
    """One row per fingerprint, to be added up."""
    groups: dict[str, dict[str, Any]] = {}
    for row in rows:
        group = groups.get(row["fingerprint"])
        if group is None:
            group = groups[row["fingerprint"]] = {
                "fingerprint": row["fingerprint"],
                "stage": row["stage"],
                "error_type": row["error_type"],
                "count": 0,
                "open": 0,
                "first_seen": row["first_failed"],
                "last_seen": row["last_failed"],
                "state": OPEN,
                "state_at": now,
                "note": "",
                "reopened": 0,
            }
        group["count"] += 1
        group["open"] += 1
        group["first_seen"] = min(group["first_seen"], row["first_failed"])
        if row["last_failed"] >= group["last_seen"]:
            group["last_seen"] = row["last_failed"]
            group |= {"message": row["message"], "sample_topic": row["dlq_topic"], "sample_id": row["id"]}
    return [groups[name] for name in sorted(groups)]


def facets_of(rows: Sequence[Row]) -> Counter[tuple[Any, ...]]:
    counts: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        name = row["fingerprint"]
        counts[name, "topic", row["dlq_topic"]] += 1
        counts[name, "source", row["origin_topic"]] += 1
        counts[name, "version", row["schema_version"]] += 1
        counts[name, "pipeline", row["pipeline"]] += 1
        for rule in row["rules"].split("|")[1:-1]:
            counts[name, "rule", rule] += 1
    return counts


def rates_of(rows: Sequence[Row]) -> Counter[tuple[Any, ...]]:
    return Counter((row["fingerprint"], row["last_failed"] // RATE_BUCKET * RATE_BUCKET) for row in rows)
