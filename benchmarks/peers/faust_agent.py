"""The job as a plain Faust agent over a Faust table. Run by benchmarks.peers in an environment that has only Faust.

The window is part of the table's key: Faust's windowed tables expire by the clock of the wall, and the records are old.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import faust
import orjson

WINDOW = 60_000  # ms
PARTITIONS = 4
RECORDS = int(os.environ["BENCH_RECORDS"])
CURRENCY = re.compile(r"[A-Z]{3}")

app = faust.App(
    os.environ["BENCH_NAME"],
    broker=f"kafka://{os.environ['BENCH_SERVERS']}",
    store="rocksdb://",
    datadir=os.environ["BENCH_STATE"],
    topic_partitions=PARTITIONS,
    consumer_auto_offset_reset="earliest",
    table_standby_replicas=0,
    stream_buffer_maxsize=32_768,
    stream_wait_empty=False,
    producer_max_batch_size=262_144,
    producer_linger=0.05,
    producer_compression_type="lz4",
    broker_max_poll_records=2_000,
)
source = app.topic(os.environ["BENCH_TOPIC"], key_type=str, value_type=bytes, value_serializer="raw")
windows = app.Table("per_user", partitions=PARTITIONS, schema=faust.Schema(key_type=str, key_serializer="raw"))
seen = {"first": 0.0, "records": 0}


@app.agent(source)
async def process(stream: Any) -> None:
    app.producer.buffer.max_messages = 100_000  # by default 100: the changelog would wait for every hundredth write
    async for key, value in stream.items():
        if not seen["records"]:
            seen["first"] = time.monotonic()
        seen["records"] += 1
        record = orjson.loads(value)
        amount = record["amount"]
        if 0 <= amount <= 1000 and CURRENCY.fullmatch(record["currency"]):
            name = f"{key}|{record['event_time'] // WINDOW * WINDOW}"
            found = windows.get(name)
            if found is None:
                windows[name] = [1, amount, amount, amount]
            else:
                n, total, least, most = found
                windows[name] = [n + 1, total + amount, min(least, amount), max(most, amount)]
        if seen["records"] == RECORDS:
            tell(time.monotonic())


def tell(last: float) -> None:
    rows = [[*name.split("|"), *measures] for name, measures in windows.items()]
    answer = [[user, int(start), *measures] for user, start, *measures in rows]
    out = Path(os.environ["BENCH_OUT"])
    out.with_suffix(".part").write_text(json.dumps({"first": seen["first"], "last": last, "windows": answer}))
    out.with_suffix(".part").rename(out)


if __name__ == "__main__":
    app.main()
