"""The thread that speaks to Kafka: one aiokafka consumer on an event loop of its own, so that work never delays a
heartbeat."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

import aiokafka
from aiokafka.consumer.subscription_state import TopicPartitionState
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import ConsumerStoppedError, KafkaError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaTopicPartition
from faust.transport.drivers import aiokafka as driver

from tidegate.clock import Deadline
from tidegate.record import LogRecord, TopicPartition
from transport.ownership import EARLIEST, LATEST, TransportSettings
from transport.records import use_unpacked_records

_LEAVE_TIMEOUT = 2.0  # seconds; the others learn of a worker that could not leave from its session's end
_COMMIT_TIMEOUT = 5.0  # group offsets are for monitoring: a broker that is away must not hold up a rebalance or a stop


class End(NamedTuple):
    """What the newest fetch response said of one partition."""

    position: int
    """The offset that is fetched next."""
    stable: int
    """The last stable offset: where a reader of committed records has to stop for now."""
    high_water: int
    answered_ms: int
    """When the response came, ms since the epoch."""
    pending: bool
    """Records were fetched and not yet handed out."""


class Fetched(NamedTuple):
    """One round: records per partition, the partitions' ends, and the offsets that the log does not have."""

    records: dict[TopicPartition, list[LogRecord]]
    ends: dict[TopicPartition, End]
    out_of_range: dict[TopicPartition, int]


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, with reads of committed records only and without silent resets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sought: dict[TopicPartition, tuple[int, Any]] = {}  # the epoch and the assignment of the newest seek

    async def on_thread_stop(self) -> None:
        """Leave the group. With a broker that is away aiokafka waits for ever, or lets the cancellation of its own fetches
        out, after which mode would wait for this thread for ever."""
        leaving = asyncio.ensure_future(super().on_thread_stop())
        await asyncio.wait([leaving], timeout=_LEAVE_TIMEOUT)
        if leaving.done() and not leaving.cancelled() and leaving.exception() is None:
            return
        leaving.cancel()
        self.log.warning("transport.group_not_left meaning='the broker does not answer; the session times out instead'")

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        use_unpacked_records()
        conf, settings = self.app.conf, self._settings
        options: dict[str, Any] = {
            "bootstrap_servers": driver.server_list(transport.url, transport.default_port),
            **driver.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
            **settings.kafka_options,
        }
        return aiokafka.AIOKafkaConsumer(
            **{"client_id": conf.broker_client_id, **options},
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="none",  # where to start is told by the state; a reset would skip or repeat in silence
            isolation_level="read_committed",
            max_poll_interval_ms=int((conf.broker_max_poll_interval or 0) * 1000),
            max_partition_fetch_bytes=settings.fetch_max_bytes,
            fetch_max_wait_ms=settings.fetch_max_wait_ms,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            check_crcs=conf.broker_check_crcs,
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
            connections_max_idle_ms=conf.consumer_connections_max_idle_ms,
        )

    @property
    def _settings(self) -> TransportSettings:
        settings: TransportSettings = self.consumer.settings  # type: ignore[attr-defined]  # ours is the only consumer
        return settings

    async def fetch(self, wanted: Mapping[TopicPartition, int], wait: float, max_records: int) -> Fetched:
        """Up to `max_records` of each wanted partition (with its epoch); waits at most `wait` seconds for the first.

        A partition that was sought or reassigned since the caller looked (its epoch is another) gives nothing: taking
        records would move its position, and the caller would drop them. Runs for an empty `wanted` too: aiokafka leaves
        the group when nobody has fetched for `max.poll.interval`, and a pause is no absence.
        """
        fetched: Fetched = await self.call_thread(self._fetch, wanted, wait, max_records)
        return fetched

    async def _fetch(self, wanted: Mapping[TopicPartition, int], wait: float, max_records: int) -> Fetched:
        consumer = self._ensure_consumer()
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        records: dict[TopicPartition, list[LogRecord]] = {}
        lost: dict[TopicPartition, int] = {}
        deadline = Deadline(wait)
        with fetcher._subscriptions.fetch_context():
            while wanted and self.consumer.flow_active:
                await self._take(wanted, max_records, records, lost)
                if records or lost or deadline.expired:
                    break
                waiter = fetcher._create_fetch_waiter()
                await asyncio.wait([waiter], timeout=deadline.remaining())
                if waiter.done():
                    waiter.result()  # raises what the group's coordinator found to be beyond repair
                else:
                    waiter.cancel()
        return Fetched(records, self._ends(), lost)

    async def _take(
        self,
        wanted: Mapping[TopicPartition, int],
        max_records: int,
        records: dict[TopicPartition, list[LogRecord]],
        lost: dict[TopicPartition, int],
    ) -> None:
        """Move what has been fetched of each wanted partition to `records`, and the offsets that are gone to `lost`.

        Partition by partition: a shared `max_records` would let one starve the others. Not during a rebalance:
        aiokafka would wait for its end, and then give records of the new assignment to a request of the old one.
        """
        fetcher = self._ensure_consumer()._fetcher
        if fetcher._subscriptions.reassignment_in_progress:
            return
        assignment = fetcher._subscriptions.subscription.assignment
        for tp, epoch in wanted.items():
            if self._sought.get(tp) != (epoch, assignment):
                continue
            try:
                found = await fetcher.fetched_records({tp}, timeout=0, max_records=max_records)
            except OffsetOutOfRangeError as error:
                (offsets,) = error.args
                lost[tp] = offsets[tp]
            else:
                records.update((tp, batch) for batch in found.values())

    def _ends(self) -> dict[TopicPartition, End]:
        fetcher = self._ensure_consumer()._fetcher
        subscription = fetcher._subscriptions.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or not assignment.active:
            return {}
        ends = {}
        for tp in assignment.tps:
            state: TopicPartitionState = assignment.state_value(tp)
            if state.has_valid_position and state.lso is not None:
                pending = tp in fetcher._records
                ends[TopicPartition(*tp)] = End(state.position, state.lso, state.highwater, state.timestamp, pending)
        return ends

    async def start_at(self, starts: Mapping[TopicPartition, tuple[int, int]]) -> set[TopicPartition]:
        """Move partitions to (offset, epoch) and drop what was fetched of them. Returns those still assigned."""
        moved: set[TopicPartition] = await self.call_thread(self._start_at, starts)
        return moved

    async def _start_at(self, starts: Mapping[TopicPartition, tuple[int, int]]) -> set[TopicPartition]:
        consumer = self._ensure_consumer()
        assigned = {TopicPartition(*tp) for tp in consumer.assignment()}
        for tp in starts.keys() & assigned:
            offset, epoch = starts[tp]
            assignment = consumer._fetcher._subscriptions.subscription.assignment
            state: TopicPartitionState = assignment.state_value(tp)
            state.lso = state.highwater = state.timestamp = None  # the end is to be learnt from a fetch at `offset`
            consumer.seek(KafkaTopicPartition(*tp), offset)
            self._sought[tp] = (epoch, assignment)
        return starts.keys() & assigned

    async def resolve(self, starts: Mapping[TopicPartition, int | None], reset: str) -> dict[TopicPartition, int]:
        """Real offsets for EARLIEST and LATEST, and for None: what the group has committed, else EARLIEST or LATEST as
        `reset` ("earliest" or "latest") says."""
        offsets: dict[TopicPartition, int] = await self.call_thread(self._resolve, starts, reset)
        return offsets

    async def _resolve(self, starts: Mapping[TopicPartition, int | None], reset: str) -> dict[TopicPartition, int]:
        consumer = self._ensure_consumer()
        offsets: dict[TopicPartition, int] = {}
        ends: dict[int, list[KafkaTopicPartition]] = {EARLIEST: [], LATEST: []}
        for tp, start in starts.items():
            committed = await consumer.committed(KafkaTopicPartition(*tp)) if start is None else None
            if committed is not None:
                offsets[tp] = committed
            else:
                ends[start if start is not None else LATEST if reset == "latest" else EARLIEST].append(
                    KafkaTopicPartition(*tp)
                )
        for ask, tps in ((consumer.beginning_offsets, ends[EARLIEST]), (consumer.end_offsets, ends[LATEST])):
            if tps:
                offsets.update((TopicPartition(*tp), offset) for tp, offset in (await ask(tps)).items())
        return offsets

    async def _commit(self, offsets: Mapping[Any, int]) -> bool:
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        wanted = {KafkaTopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
        wanted = {tp: offset for tp, offset in wanted.items() if tp in assigned}
        try:
            await asyncio.wait_for(consumer.commit(wanted), _COMMIT_TIMEOUT)
        except (KafkaError, TimeoutError) as error:  # for monitoring only: the next commit carries the newer offsets
            self.log.warning("transport.commit_failed error=%r offsets=%r", error, offsets)
            return False
        return True
