"""docs/native-spark.md says only what runs: both programs on a topic of which one partition is an hour behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.docs.blocks import blocks
from tests.docs.test_readme import shell
from tests.harness import produce

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.providers.kafka import KafkaTopics
    from tests.providers.postgres import Database

PAGE = Path(__file__).parents[2] / "docs" / "native-spark.md"
BLOCKS = {block.name: block.text for block in blocks(PAGE)}
MINUTE, START = 60_000, 1_700_000_040_000
RECORDS = 1_000

pytestmark = [
    pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.spark, pytest.mark.timeout(300),
    pytest.mark.xdist_group("spark"),  # one process, one session
]  # fmt: skip


def native(spark: SparkSession, servers: str, topic: str, micro_batch: int) -> int:
    """How many records the page's program has in its windows in the end."""
    from pyspark.sql import functions

    windows: dict[Any, int] = {}

    def upsert(frame: Any, batch_id: int) -> None:
        windows.update((row["w"]["start"], row["n"]) for row in frame.collect())

    names = {name: getattr(functions, name) for name in dir(functions)}
    exec(BLOCKS["native"], {**names, **locals()})
    return sum(windows.values())


def test_native_drops_what_is_behind_and_we_do_not(
    kafka: KafkaTopics, postgres: Database, spark: SparkSession, tmp_path: Path
) -> None:
    """In one micro-batch Spark counts all; in small ones it leaves out most of the partition that is behind. Ours counts all
    in small ones, and its ledger balances."""
    topic = kafka.topic(partitions=2, config={"retention.ms": "-1"})
    records = (
        {"partition": n % 2, "timestamp": at, "value": json.dumps({"event_time": at, "amount": 1.5}).encode()}
        for n in range(RECORDS)
        for at in [START + n * 100 - (n % 2) * 60 * MINUTE]
    )
    produce(kafka.bootstrap_servers, topic, records)
    assert native(spark, kafka.bootstrap_servers, topic, RECORDS) == RECORDS
    dropped = RECORDS - native(spark, kafka.bootstrap_servers, topic, RECORDS // 4)
    assert RECORDS // 8 < dropped < RECORDS // 2

    pipeline = BLOCKS["pipeline"].replace("topics: [events]", f"topics: [{topic}]")
    (tmp_path / "pipeline.yaml").write_text(pipeline.replace("pipelineId: counted", f"pipelineId: {topic}-counted"))
    said = shell(
        BLOCKS["ours"], tmp_path, {"TIDEGATE_KAFKA": kafka.bootstrap_servers, "TIDEGATE_POSTGRES": postgres.url}
    )
    assert f"read {RECORDS}  accepted {RECORDS}  failed 0  deadLettered 0  late 0" in said
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT sum(n) FROM per_minute").fetchall() == [(RECORDS,)]


def test_every_block_is_run() -> None:
    """A block that nobody runs cannot be added to the page."""
    assert set(BLOCKS) == {"native", "pipeline", "ours"}
