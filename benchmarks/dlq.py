"""`python -m benchmarks.dlq`: what dead letters cost, measured, into benchmarks/RESULTS.md."""

from __future__ import annotations

from benchmarks.runner import main

PARTS = {
    "index": "benchmarks.dlq_index",
    "replay": "benchmarks.dlq_replay",
    "publish": "benchmarks.dlq_publish",
}

if __name__ == "__main__":
    main("python -m benchmarks.dlq", __doc__ or "", PARTS, unit="letters", number=1_000_000, quick_number=100_000)
