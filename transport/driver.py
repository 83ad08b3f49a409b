"""The transport itself, and what an app needs to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faust
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver

from tidegate.config.kafka import Kafka
from transport.batch import BatchSchema
from transport.consumer import Consumer
from transport.ownership import TransportSettings


class Producer(driver.Producer):
    """Faust's own producer (nothing of a pipeline goes through it), with the connection options of the pipeline."""

    def _settings_auth(self) -> Mapping[str, Any]:
        settings = getattr(self.app, "tide_settings", None) or TransportSettings()
        return {**super()._settings_auth(), **settings.kafka_options}


class Transport(driver.Transport):
    """`tide://`: aiokafka, in record batches."""

    Consumer = Consumer
    Producer = Producer


def use_transport(app: faust.App, settings: TransportSettings | None = None) -> None:
    """Give an app this transport, whether or not the package's entry point is installed."""
    app.tide_settings = settings or TransportSettings()  # type: ignore[attr-defined]  # read by the consumer; Faust's app does not declare it
    TRANSPORTS.aliases["tide"] = "transport:Transport"
    transport = Transport(app.conf.broker_consumer, app)
    app.transport = transport
    app.producer_transport = transport


def batch_topic(app: faust.App, *names: str) -> Any:
    """A channel of `SourceBatch`es over source topics, for `app.agent`."""
    return app.topic(*names, schema=BatchSchema())


def faust_settings(kafka: Kafka) -> dict[str, Any]:
    """Settings for `faust.App`."""
    session = kafka.session_timeout / 1000
    servers = [server.strip() for server in kafka.bootstrap_servers.split(",")]
    return {
        "broker": ";".join(f"tide://{server}" for server in servers),
        "broker_session_timeout": session,
        "broker_heartbeat_interval": session / 3,
        "broker_request_timeout": max(40.0, session),
        "broker_rebalance_timeout": max(60.0, session),
        "consumer_metadata_max_age_ms": kafka.metadata_max_age,
        "consumer_auto_offset_reset": "earliest",
        "broker_commit_interval": 1.0,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "table_standby_replicas": 0,
        "stream_wait_empty": True,
        "stream_recovery_delay": 0.0,
    }
