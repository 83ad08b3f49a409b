"""`python -m benchmarks.worker`: what the worker costs, measured, into benchmarks/RESULTS.md."""

from __future__ import annotations

from benchmarks.runner import main

PARTS = {
    "throughput": "benchmarks.throughput",
    "peers": "benchmarks.peers",
    "latency": "benchmarks.latency",
    "faults": "benchmarks.faults",
    "recovery": "benchmarks.recovery",
    "growth": "benchmarks.growth",
    "profile": "benchmarks.profile",
}

if __name__ == "__main__":
    main(
        "python -m benchmarks.worker",
        __doc__ or "",
        PARTS,
        unit="records",
        number=1_000_000,
        quick_number=200_000,
    )
