"""`python -m benchmarks.batch`: what a run on Spark costs, measured, into benchmarks/RESULTS.md."""

from __future__ import annotations

from benchmarks.batch_jobs import KEYS
from benchmarks.engines import ENGINES
from benchmarks.runner import main

PARTS = {
    "batch": "benchmarks.batch_engines",
    "batch_native": "benchmarks.batch_native",
    "batch_catchup": "benchmarks.batch_catchup",
    "batch_profile": "benchmarks.batch_profile",
}

if __name__ == "__main__":
    main(
        "python -m benchmarks.batch",
        __doc__ or "",
        PARTS,
        unit="records",
        number=1_000_000,
        quick_number=200_000,
        choices={"engines": ENGINES, "keys": list(KEYS)},
    )
