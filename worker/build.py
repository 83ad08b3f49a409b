"""From a pipeline to a Faust app: the agents, and what all partitions share."""

from __future__ import annotations

import asyncio
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import structlog

from dlq.s3.uploader import Uploader, open_uploader
from tidegate.clock import SystemClock
from tidegate.config.kafka import aiokafka_options, confluent_options
from tidegate.config.pipeline import Pipeline
from tidegate.config.secrets import secret_values
from tidegate.config.topics import (
    changelog_topic,
    partials_topic,
    result_topics,
    watermarks_topic,
)
from tidegate.errors import ConfigError, DependencyError, TidegateError, TopicRecreated
from tidegate.garbage import quieten_garbage_collection
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.handle import HandlerChain
from tidegate.stages.plan import Plan, compile_plan
from tidegate.telemetry.logs import logging_config
from tidegate.topics import ensure_topics, partition_counts, reached_partitions, topic_ids
from transport import BatchApp, TransportSettings, add_agent, faust_settings, use_transport
from transport.lifecycle import Lifecycle
from worker.beginning import settle
from worker.context import Consumer, Context
from worker.identity import require_same
from worker.memory import spare_memory
from worker.naming import merged_aggregations, needed_topics
from worker.observe import Observer
from worker.owner import Owner, delivery
from worker.sinks import leave_to_spark, open_database, require_no_complete
from worker.watermarks import WatermarkBoard, watermark_of_all

log = structlog.get_logger(__name__)
_THREADS = 4  # store and local state run here; more threads than cores, since the store's wait is not work
_FLUSH = 3.0  # seconds for dead letters that are gathered for S3; what it does not take stays in the topic
_READERS = 6  # partitions that are restored at once: a reader has some 30 MB of what librdkafka has fetched ahead


class WorkerApp(BatchApp):
    """The worker's app."""

    tide: Runtime
    tide_ownership: Owner


class Runtime:
    """Everything of one worker process that is not Faust's."""

    def __init__(self, pipeline: Pipeline) -> None:
        if pipeline.source is None or not pipeline.schema_:
            missing = "source" if pipeline.source is None else "schema"
            raise ConfigError(
                f"a worker needs `{missing}`",
                field=missing,
                hint="`tidegate init` writes a complete example to start from",
            )
        require_no_complete(pipeline)
        self.pipeline = pipeline
        self.plan: Plan = compile_plan(pipeline)
        self._handlers = HandlerChain(pipeline, self.plan.decoded)
        self.topics = pipeline.source.topics
        self.clock = SystemClock()
        self.owner: Owner | None = None
        spare_memory()
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="tidegate")
        self._stages = ThreadPoolExecutor(_stage_threads(pipeline), thread_name_prefix="stages")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="restore")
        self._confluent: dict[str, Any] = confluent_options(pipeline.kafka)
        self._store = open_database(self.plan)
        self._board = WatermarkBoard(self._confluent, watermarks_topic(pipeline))
        self._partitions: dict[str, int] = {}
        self._topic_ids: dict[str, str] = {}  # of the sources and of the changelogs
        self._refresh: asyncio.Task[None] | None = None
        self._uploader: Uploader | None = None
        self.observer = Observer(self.plan)
        self.lifecycle = Lifecycle("worker", pipeline.telemetry, self.observer, pipeline.worker)

    async def set_up(self, app: WorkerApp) -> None:
        """1. health and metrics  2. topics  3. dead letters to S3  4. store  5. watermarks of the other partitions
        6. the owner of partitions."""
        await asyncio.to_thread(Path(app.conf.datadir).mkdir, parents=True, exist_ok=True)
        self.lifecycle.start()
        leave_to_spark(self.pipeline)
        self._partitions = await reached_partitions(self.pipeline.kafka, self.topics)
        counts = await self._ensure_topics()
        self._topic_ids = await self._ids()
        self._uploader = await asyncio.to_thread(open_uploader, self.pipeline, metrics=self.observer.metrics)
        if self._uploader is not None:
            self._uploader.start()
        guard = None
        if self._store is not None:
            guard = Guard("store", self.pipeline.error_handling)
            await guard.call_async(asyncio.to_thread, self._store.prepare)
            await guard.call_async(asyncio.to_thread, self._store.expect, self._sources(), self._topic_ids)
        self._board.start()
        self.lifecycle.health.check_ready("watermarks", self._board.check)
        if self.pipeline.source is not None and self.pipeline.source.start_at == "latest":
            await settle(self._board, self._confluent, watermarks_topic(self.pipeline), self.topics)
        context = Context(
            plan=self.plan,
            handlers=self._handlers,
            clock=self.clock,
            owner=f"worker:{socket.gethostname()}:{os.getpid()}",
            state_dir=Path(self.pipeline.worker.state_dir) / self.pipeline.pipeline_id,
            executor=self._executor,
            stages=self._stages,
            readers=self._readers,
            kafka=aiokafka_options(self.pipeline.kafka),
            confluent=self._confluent,
            store=self._store,
            store_guard=guard,
            observer=self.observer,
            consumer=cast(Consumer, app.consumer),
            fail=lambda error: self.lifecycle.fail(app, error),
            sources=self._sources,
            pipeline_watermark=lambda: watermark_of_all(self._board.known, self._sources()),
            beginning=self._beginning,
            partition_counts=counts,
        )
        context.grow = lambda: self._grow(context)
        self.owner = app.tide_ownership = Owner(context)
        self.lifecycle.watch(self.owner, app.consumer)
        quieten_garbage_collection()
        self._refresh = asyncio.create_task(self._watch_partitions(context))

    def offer(self, stream: Any, event: Any) -> None:
        """A batch for its partition's task, which acknowledges it when it is committed."""
        assert self.owner is not None
        self.owner.offer(event.value.tp, delivery(stream, event))

    async def take_down(self) -> None:
        if self._refresh is not None:
            self._refresh.cancel()
        await asyncio.to_thread(self._board.stop)
        if self._uploader is not None:
            await asyncio.to_thread(self._uploader.stop, _FLUSH)
        for pool in (self._executor, self._stages, self._readers):
            pool.shutdown(wait=False, cancel_futures=True)
        if not (self.owner and self.owner.left_behind):  # else a call still uses them
            self._handlers.close()
            if self._store is not None:
                self._store.close()

    def _beginning(self, tp: TopicPartition) -> int | None:
        return (self._board.beginning(tp.topic) or {}).get(tp.partition)

    def _sources(self) -> list[TopicPartition]:
        return [TopicPartition(topic, p) for topic, count in self._partitions.items() for p in range(count)]

    async def _ensure_topics(self) -> dict[str, int]:
        """Create or grow what the pipeline writes to; returns the partition count of every such topic as it now is."""
        partials = await self._merge_partitions(max(self._partitions.values()))
        return await ensure_topics(self._confluent, needed_topics(self.plan, self._partitions, partials))

    async def _merge_partitions(self, most: int) -> int:
        """What the partials topic has, or shall have when it is made."""
        topic = partials_topic(self.pipeline)
        try:
            return (await partition_counts(self._confluent, [topic]))[topic]
        except ConfigError:  # it does not exist yet
            return most

    async def _watch_partitions(self, context: Context) -> None:
        """Look for new partitions for as long as the worker lives. A topic that has gone, or cannot be made, ends it."""
        while True:
            await asyncio.sleep(self.pipeline.kafka.metadata_max_age / 1000)
            try:
                await self._grow(context)
                require_same(self._topic_ids, await self._ids())
            except (ConfigError, TopicRecreated) as error:
                context.fail(error)
                return
            except Exception as error:  # whatever it is, the next look may be luckier; to end here would go unnoticed
                expected = isinstance(error, TidegateError)
                log.warning("partitions.unknown", error=str(error), exc_info=None if expected else error)

    async def _ids(self) -> dict[str, str]:
        """The ids of the topics that the state's offsets are of, and of the one that the board reads."""
        read = [*self.topics, *([partials_topic(self.pipeline)] if merged_aggregations(self.plan) else [])]
        changelogs = [changelog_topic(self.pipeline.pipeline_id, topic) for topic in read]
        return await topic_ids(self._confluent, [*read, *changelogs, watermarks_topic(self.pipeline)])

    async def _grow(self, context: Context) -> None:
        """A source topic that grew: its changelog and dead-letter topics grow with it, before its records are read. None becomes
        smaller: a broker that says so has not heard of it yet, or the topic is another one, which its id tells."""
        found = await partition_counts(self._confluent, self.topics)
        now = {topic: max(count, self._partitions.get(topic, 0)) for topic, count in found.items()}
        if now != self._partitions:
            _say_that_they_grew(self.plan, self._partitions, now)
            self._partitions = now
            context.partition_counts.update(await self._ensure_topics())
            await self._expect_partitions()

    async def _expect_partitions(self) -> None:
        """Rows for the new partitions, before their owners make them: until then they hold windows open."""
        if self._store is None:
            return
        try:
            await asyncio.to_thread(self._store.expect, self._sources(), self._topic_ids)
        except DependencyError as error:  # their owners' claims will do it, once the database is back
            log.warning("partitions.not_expected", error=str(error))


def _stage_threads(pipeline: Pipeline) -> int:
    """Each batch in the stages takes some 50 MB: no more of them than can compute at once. A handler may wait, though."""
    return _THREADS if pipeline.handlers else min(os.cpu_count() or 1, _THREADS)


def _say_that_they_grew(plan: Plan, before: dict[str, int], now: dict[str, int]) -> None:
    """A key that moves to another partition is in two of them for the windows that are open at that moment."""
    split = [a.name for a in plan.aggregations if not a.spreads and a.name in result_topics(plan.pipeline)]
    if not split:
        log.info("partitions.grew", before=before, now=now)
        return
    log.warning(
        "partitions.grew",
        before=before,
        now=now,
        aggregations=split,
        meaning="keys move to other partitions: results on Kafka of windows that are open now come in two parts, one "
        "per partition, under one key; those in a database are whole",
    )


def create_app(pipeline: Pipeline) -> WorkerApp:
    """The Faust app of a pipeline: agent `process` on its source topics, agent `merge` on its partials."""
    runtime = Runtime(pipeline)
    app = WorkerApp(
        pipeline.pipeline_id,
        **faust_settings(pipeline.kafka),
        datadir=str(Path(pipeline.worker.state_dir) / "faust"),
        logging_config=logging_config(
            pipeline.telemetry.log_level, pipeline.telemetry.log_format, secrets=secret_values(pipeline)
        ),
    )
    app.tide = runtime
    settings = pipeline.worker
    use_transport(
        app,
        TransportSettings(
            max_batch_records=settings.max_batch_records,
            max_batch_bytes=settings.max_batch_bytes,
            drain_timeout=settings.drain_timeout / 1000,
            committed=runtime.observer.told_the_group,
            kafka_options=aiokafka_options(pipeline.kafka),
        ),
    )
    add_agent(app, "process", runtime.topics, runtime.offer)
    if merged_aggregations(runtime.plan):
        add_agent(app, "merge", [partials_topic(pipeline)], runtime.offer)
    return app
