"""`faust -A dlq.app worker`: the agent of the dead letters of the pipeline that TIDEGATE_PIPELINE names.

The index is the pipeline file's, or TIDEGATE_DLQ_INDEX.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import structlog
from pydantic import SecretStr

from dlq.agent import Indexing, Observer
from dlq.index.database import IndexDatabase, index_location
from dlq.index.masking import Masker
from dlq.index.writer import IndexWriter
from dlq.replay.agent import ReplayAgent
from dlq.retry.agent import RetryAgent
from dlq.watch import Watch
from tidegate.config.kafka import aiokafka_options, confluent_options
from tidegate.config.pipeline import Pipeline
from tidegate.config.secrets import secret_values
from tidegate.config.topics import indexed_topics
from tidegate.errors import ConfigError, TidegateError
from tidegate.garbage import quieten_garbage_collection
from tidegate.resilience.guard import Guard
from tidegate.telemetry.bind import bind_resilience
from tidegate.telemetry.logs import logging_config
from transport import BatchApp, TransportSettings, add_agent, faust_settings, use_transport
from transport.environment import app_from_environment
from transport.lifecycle import Lifecycle

log = structlog.get_logger(__name__)
_FETCH_BYTES = 8_388_608  # per partition: counters cost as much for a thousand letters as for ten thousand
_STOP = 5.0  # seconds for a transaction of delayed retries
_LOOK = 30.0  # seconds between looks at totals and retention


class AgentApp(BatchApp):
    """The agent's app."""

    tide: Runtime
    tide_ownership: Indexing


class Runtime:
    """Everything of the agent's process that is not Faust's."""

    def __init__(self, pipeline: Pipeline, index: str | None) -> None:
        self.pipeline, self.topics = pipeline, indexed_topics(pipeline)
        if not self.topics:
            raise ConfigError(
                "there are no dead letters on Kafka to index",
                field="errorHandling.deadLetterQueue.type",
                expected="kafka, or topics in deadLetters.topics",
            )
        self.group = f"{pipeline.pipeline_id}-dlq-index"
        self.database = IndexDatabase(index_location(pipeline, index), pipeline.dead_letters)
        self.observer = Observer(self.group, self.topics)
        self._confluent = confluent_options(pipeline.kafka)
        settings = pipeline.dead_letters
        self._watch = Watch(
            self.database, self.observer.metrics, self._confluent, self.topics, expiry_warning=settings.expiry_warning
        )
        telemetry = pipeline.telemetry.model_copy(update={"port": settings.port})
        self.lifecycle = Lifecycle("agent", telemetry, self.observer, pipeline.worker)
        self._indexing: Indexing | None = None
        self._looking: asyncio.Task[None] | None = None
        self._replaying = ReplayAgent(pipeline, self.database, metrics=self.observer.metrics)
        self._retrying = RetryAgent(pipeline, metrics=self.observer.metrics)
        self._retries = bool(pipeline.error_handling.retry_topics.delays)

    async def set_up(self, app: AgentApp) -> None:
        """1. health and metrics  2. the index's tables  3. the topics and their retention  4. the owner of partitions
        5. replays, and delayed retries."""
        await asyncio.to_thread(Path(app.conf.datadir).mkdir, parents=True, exist_ok=True)
        self.lifecycle.start()
        bind_resilience(self.observer.metrics)
        guard = Guard("index", self.pipeline.error_handling)
        await guard.call_async(asyncio.to_thread, self.database.prepare)
        await guard.call_async(asyncio.to_thread, self._watch.look)
        self._indexing = app.tide_ownership = Indexing(
            IndexWriter(self.database),
            Masker(self.pipeline.dead_letters.masking),
            guard,
            self.observer,
            self._confluent,
            fail=lambda error: self.lifecycle.fail(app, error),
        )
        self.lifecycle.watch(self._indexing, app.consumer)
        quieten_garbage_collection()
        self._looking = asyncio.create_task(self._look())
        self._replaying.start()
        if self._retries:
            self._retrying.start()

    async def take_down(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        self._retrying.stop(0)
        await asyncio.to_thread(self._replaying.stop)
        await asyncio.to_thread(self._retrying.stop, _STOP)
        if self._indexing is not None:
            self._indexing.close()
        if self._indexing is None or not self._indexing.left_behind:
            self.database.close()

    def offer(self, stream: Any, event: Any) -> None:
        async def ack() -> None:
            await stream.ack(event)

        assert self._indexing is not None
        self._indexing.offer(event.value, ack)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            try:
                await asyncio.to_thread(self._watch.look)
            except Exception as error:  # whatever it is, the next look may be luckier; to end here would go unnoticed
                expected = isinstance(error, TidegateError)
                log.warning("index.not_looked_at", error=str(error), exc_info=None if expected else error)


def create_app(pipeline: Pipeline, index: str | None = None) -> AgentApp:
    """The Faust app: agent `index` on every dead-letter topic, and beside it whoever carries out replays. Raises ConfigError."""
    runtime = Runtime(pipeline, index)
    telemetry, settings = pipeline.telemetry, pipeline.worker
    app = AgentApp(
        runtime.group,
        **faust_settings(pipeline.kafka),
        datadir=str(Path(settings.state_dir) / "faust-dlq"),
        logging_config=logging_config(telemetry.log_level, telemetry.log_format, secrets=_secrets(pipeline, index)),
    )
    app.tide = runtime
    use_transport(
        app,
        TransportSettings(
            max_batch_records=10_000,  # a transaction's rows
            max_batch_bytes=settings.max_batch_bytes,
            drain_timeout=settings.drain_timeout / 1000,
            fetch_max_bytes=_FETCH_BYTES,
            kafka_options=aiokafka_options(pipeline.kafka),
        ),
    )
    add_agent(app, "index", runtime.topics, runtime.offer)
    return app


def _secrets(pipeline: Pipeline, index: str | None) -> frozenset[str]:
    return secret_values((pipeline, SecretStr(index or "")))


_INDEX = os.environ.get("TIDEGATE_DLQ_INDEX") or None
app = app_from_environment(
    lambda pipeline: create_app(pipeline, _INDEX),
    module="dlq.app",
    command="dlq agent",
    secrets=lambda pipeline: _secrets(pipeline, _INDEX),
)
