"""How long the dead-letter topics keep what is in them, so that a warning comes before the broker deletes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]  # its stubs do not re-export them

from dlq.index.database import IndexDatabase
from tidegate.clock import Clock, SystemClock
from tidegate.errors import BrokerUnavailable, ConfigError

_TIMEOUT = 15.0  # seconds


def retentions(options: Mapping[str, Any], topics: Iterable[str]) -> dict[str, int | None]:
    """`retention.ms` of each topic; None: kept for ever, or compacted only. `options`: confluent's.

    Raises ConfigError for a topic that does not exist, BrokerUnavailable.
    """
    admin = AdminClient(dict(options))
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    found: dict[str, int | None] = {}
    for resource, future in admin.describe_configs(resources, request_timeout=_TIMEOUT).items():
        try:
            config = future.result()
        except KafkaException as error:
            raise _refused(resource.name, error.args[0]) from error
        ms = int(config["retention.ms"].value)
        deletes = "delete" in config["cleanup.policy"].value
        found[resource.name] = ms if deletes and ms >= 0 else None
    return found


def note_retentions(database: IndexDatabase, found: Mapping[str, int | None], clock: Clock | None = None) -> None:
    """Write them to the index, where everybody who shows dead letters reads them."""
    now = int((clock or SystemClock()).time() * 1000)
    statement = database.insert(database.tables.topics)
    statement = statement.on_conflict_do_update(
        index_elements=[database.tables.topics.c.topic],
        set_={name: statement.excluded[name] for name in ("retention_ms", "checked_at")},
    )
    rows = [{"topic": topic, "retention_ms": found[topic], "checked_at": now} for topic in sorted(found)]
    with database.transaction() as connection:
        connection.execute(statement, rows)


def _refused(topic: str, error: KafkaError) -> ConfigError | BrokerUnavailable:
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return ConfigError(
            f"the dead-letter topic {topic!r} does not exist",
            field="deadLetters.topics",
            value=topic,
            expected="a topic of this cluster",
            hint="a pipeline's own is made by its worker's first start; the others by the tools that write to them",
        )
    return BrokerUnavailable(f"cannot read the configuration of topic {topic!r}: {error.str()}")
