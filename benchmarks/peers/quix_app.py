"""The job in Quix Streams. Run by benchmarks.peers in an environment that has only Quix Streams."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows.aggregations import Count, Max, Min, Sum

WINDOW, GRACE = 60_000, 10_000  # ms
RECORDS = int(os.environ["BENCH_RECORDS"])
CURRENCY = re.compile(r"[A-Z]{3}")

newest: dict[tuple[str, int], dict[str, Any]] = {}
times: list[float] = []  # of the first record, of the last result


def event_time(value: Any, headers: Any, timestamp: float, timestamp_type: Any) -> int:
    if not times:
        times.extend([time.monotonic()] * 2)
    return int(value["event_time"])


def valid(record: dict[str, Any]) -> bool:
    return 0 <= record["amount"] <= 1000 and CURRENCY.fullmatch(record["currency"]) is not None


def keep(result: dict[str, Any], key: str, timestamp: int, headers: Any) -> None:
    newest[key, result["start"]] = result
    times[1] = time.monotonic()


app = Application(
    os.environ["BENCH_SERVERS"],
    consumer_group=os.environ["BENCH_NAME"],
    auto_offset_reset="earliest",
    state_dir=os.environ["BENCH_STATE"],
    producer_extra_config={"linger.ms": 50, "compression.type": "lz4"},
    loglevel="WARNING",
)
source = app.topic(
    os.environ["BENCH_TOPIC"], key_deserializer="str", value_deserializer="json", timestamp_extractor=event_time
)
frame = app.dataframe(source).filter(valid)
measures = {"n": Count(), "total": Sum("amount"), "least": Min("amount"), "most": Max("amount")}
results = frame.tumbling_window(WINDOW, grace_ms=GRACE).agg(**measures).current()
results.update(keep, metadata=True)

if __name__ == "__main__":
    app.run(count=RECORDS)
    rows = [[user, start, *(result[name] for name in measures)] for (user, start), result in newest.items()]
    out = Path(os.environ["BENCH_OUT"])
    out.with_suffix(".part").write_text(json.dumps({"first": times[0], "last": times[1], "windows": rows}))
    out.with_suffix(".part").rename(out)
