"""Is a topic still the one that the state speaks of? A topic that is deleted and made anew has its name and another id.

The partition row holds the id of the source topic (tidegate/store/identity.py), the local state the id of its changelog,
and the changelog a row with its own id, which says that it is whole.
"""

from __future__ import annotations

import structlog

from tidegate.errors import TopicRecreated
from worker import keys
from worker.statedb import PartitionDB

log = structlog.get_logger(__name__)


def changelog_rows(db: PartitionDB, changelog: tuple[str, int], topic_id: str) -> list[tuple[bytes, bytes]]:
    """The rows by which a restored changelog says that it is whole: to be written with the next commit; mostly none.

    The first commit to a changelog writes one. A changelog that has a partition row and no such row was made anew while
    a worker wrote to it: what was there before is lost. Raises TopicRecreated then.
    """
    found, partition = db.get([keys.CHANGELOG, keys.PARTITION])
    own = topic_id.encode()
    if not topic_id or found == own:
        return []
    if found is None and partition is not None:
        raise TopicRecreated(
            f"the state's changelog {changelog[0]!r} (partition {changelog[1]}) was deleted and made anew while a worker "
            "wrote to it: it has only what was written since\n"
            "  hint:     take a new pipelineId\n"
            "            or, if the source still has all its records, stop the workers and delete the changelog: "
            "everything is then counted again from the beginning of the source"
        )
    if found is not None:  # a copy of the whole, with its rows: of another cluster, or from a backup
        log.warning("changelog.copied", topic=changelog[0], partition=changelog[1], of=found.decode(), now=topic_id)
    return [(keys.CHANGELOG, own)]


def require_same(known: dict[str, str], now: dict[str, str]) -> None:
    """Raises TopicRecreated when a topic has another id than when the worker began with it."""
    for topic, topic_id in now.items():
        before = known.get(topic, "")
        if before and topic_id and before != topic_id:
            raise TopicRecreated(
                f"topic {topic!r} was deleted and made anew while the worker ran (its id was {before}, it is {topic_id})\n"
                "  hint:     the next start says what can be done"
            )
