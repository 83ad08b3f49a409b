"""How tidegate's own topics are kept, and whether one that is there would forget what it must not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

DELETIONS_KEPT: Final = 24 * 3600 * 1000
"""ms for which a changelog keeps the record that something was deleted, at the least: local state that is older than that
could hold rows whose deletion it never hears of. (worker/statedb.py trusts state for half as long.)"""

STATE: Final[Mapping[str, str]] = {
    "cleanup.policy": "compact",
    # Kafka's own default, said here because a broker's may be another.
    "delete.retention.ms": str(DELETIONS_KEPT),
    # The newest segment is never compacted. With Kafka's 1 GiB a restore would read up to that much for each partition,
    # however small the state; 64 MiB are read in about a second.
    "segment.bytes": str(64 << 20),
    # A quiet changelog fills no segment: without this it would be compacted after seven days.
    "segment.ms": str(6 * 3600 * 1000),
    # Compaction begins when so much of the log is new. A restore reads at most 1 / (1 - 0.3) = 1.4 times the state (twice
    # with the default of 0.5), for which each byte of state is rewritten about 2.3 times as often as it grows by one.
    "min.cleanable.dirty.ratio": "0.3",
}
"""Changelogs, and the topic of partials, which is a table as well."""

WATERMARKS: Final[Mapping[str, str]] = {
    **STATE,
    # Every batch of every partition writes a row, and every worker reads the topic at its start: 150 000 rows at most.
    "segment.bytes": str(16 << 20),
}

# For people, and kept for ever: the newest of each window and group. An operator who wants them to go changes the topic's
# settings (cleanup.policy compact,delete and retention.ms): what exists is left as it is.
RESULTS: Final[Mapping[str, str]] = {"cleanup.policy": "compact"}


def topic_settings(admin: AdminClient, topics: Sequence[str], timeout: float) -> dict[str, dict[str, str] | str]:
    """The settings of each topic that exists; or why they cannot be read."""
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]  # its stubs do not re-export them

    if not topics:
        return {}
    asked = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    found: dict[str, dict[str, str] | str] = {}
    for resource, answer in admin.describe_configs(asked, request_timeout=max(timeout, 1.0)).items():
        try:
            found[resource.name] = {name: entry.value or "" for name, entry in answer.result().items()}
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                found[resource.name] = error.args[0].str()
    return found


def trouble_with(found: Mapping[str, str]) -> str | None:
    """Why a topic with these settings cannot hold state; None: it can."""
    policy = found.get("cleanup.policy", "")
    if {word.strip() for word in policy.split(",")} != {"compact"}:
        return f"cleanup.policy is '{policy}', so that it forgets state that is still needed; it must be 'compact'"
    kept = int(found.get("delete.retention.ms", DELETIONS_KEPT))
    if kept < DELETIONS_KEPT:
        return f"delete.retention.ms is {kept}, so that deleted state could come back; it must be {DELETIONS_KEPT} at least"
    return None


def way_out(topic: str) -> str:
    """What mends it."""
    settings = f"cleanup.policy=compact,delete.retention.ms={DELETIONS_KEPT}"
    return f"kafka-configs.sh --alter --topic {topic} --add-config {settings}"
