"""Transactions that the coordinator has ended and that some partition has not heard of.

Kafka's coordinator answers a commit when it has written it down, and marks the partitions after that. A partition that has
no leader in that moment (its broker is going down) is taken for deleted and never gets its mark: KAFKA-20734, open in 4.3.
What it holds of the transaction stays invisible, and whatever comes after it too; worse, the end of the next transaction of
this producer decides over it as well. So before a changelog is read:

1. look      the log's committed end is before its written end although our producer's id has been initialised, which
             settles all that the coordinator knows of: nobody else writes there, so what is between was left without a mark
2. decide    committed, if the local state has what is there: a state is written after the commit was confirmed. Else
             aborted: the batch is repeated, with the answers that the store keeps, and readers know its records by their ids
3. mark      an empty transaction over these partitions: its end marks are theirs
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import structlog

from tidegate.clock import Deadline
from tidegate.config.topics import is_changelog
from tidegate.errors import BrokerUnavailable
from worker.producer import PartitionProducer
from worker.restore import LogEnds, log_ends

if TYPE_CHECKING:
    from tidegate.calls import Calls
    from worker.context import Context
    from worker.statedb import PartitionDB

log = structlog.get_logger(__name__)
_MARKED, _LOOK = 10.0, 0.02  # seconds: a broker answers a commit before its marks are in the logs


async def settle(
    context: Context,
    producer: PartitionProducer,
    changelog: tuple[str, int],
    db: PartitionDB,
    in_thread: Calls,
    *,
    after_outage: bool,
) -> None:
    """Give every partition that this producer writes to the mark that it may lack. `producer` has been started.

    `after_outage`: a commit of this producer has failed since; then the topics that it writes to are marked although the
    changelog lacks nothing. Raises BrokerUnavailable, also when the changelog still lacks its mark afterwards.
    """
    stop = threading.Event()

    async def look() -> LogEnds:
        try:
            return await in_thread(lambda: log_ends(context.confluent, *changelog, stop), context.readers)
        except BaseException:
            stop.set()
            raise

    ends = await look()
    outputs = list(_outputs(context.partition_counts, changelog))
    if ends.committed < ends.written:
        committed = db.changelog_offset is not None and db.changelog_offset >= ends.committed
        if not committed:
            await producer.mark([changelog], committed=False)
        await producer.mark([changelog, *outputs], committed=True)
        log.warning("transaction.settled", changelog=changelog, **ends.between, committed=committed)
        deadline = Deadline(_MARKED)
        while (ends := await look()).committed < ends.written:
            if deadline.expired:
                raise BrokerUnavailable(
                    f"{changelog[0]}-{changelog[1]} holds an open transaction after offset {ends.committed}"
                )
            await asyncio.sleep(_LOOK)
    elif after_outage:
        await producer.mark(outputs, committed=True)


def _outputs(counts: Mapping[str, int], changelog: tuple[str, int]) -> Iterator[tuple[str, int]]:
    """What a partition may write to beside its changelog: every partition of every topic of the pipeline's own.

    Committed, since none of it may be lost: a record that belonged to an aborted transaction comes a second time, under the
    same id.
    """
    for topic, count in counts.items():
        if not is_changelog(topic):
            yield from ((topic, partition) for partition in range(count))
