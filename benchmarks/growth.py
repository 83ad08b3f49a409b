"""Whether a record costs the same however many have gone before: processor time of each tenth of a long run."""

from __future__ import annotations

import itertools

import numpy as np

from benchmarks.process import Sample, Worker, job, running, watch
from benchmarks.results import Section, thousands
from benchmarks.stack import Bench

_KEYS = 10_000
_TIMES = 5  # as many records as a run of the throughput
_TENTHS = 10
_RATIO = 1.15


def run(bench: Bench) -> Section:
    records = bench.records * _TIMES
    topic = bench.events(_KEYS, records)
    with running(Worker(job(bench, topic), bench.directory)) as worker:
        samples = watch(worker, records, every=0.2)
    costs, rates = tenths(samples, records)
    peaks = [max(s.rss for s in samples if s.done <= records * (n + 1) / _TENTHS) / 2**20 for n in range(_TENTHS)]
    section = Section("growth", "Cost of a record as the log grows")
    section.text(
        f"{thousands(records)} records of {thousands(_KEYS)} users in one run, the job of the throughput: "
        f"{records // 600_000 + 1} windows open and close. Processor time of the worker per record, tenth by tenth; the first "
        "has the imports of the first batch in it, so that the last is compared with the cheaper of the first two."
    )
    rows = [
        [f"up to {thousands(records * (n + 1) / _TENTHS)}", f"{costs[n]:.2f}", thousands(rates[n]), f"{peaks[n]:.0f}"]
        for n in range(_TENTHS)
    ]
    section.table(["records", "CPU µs/record", "records/s", "peak RSS MiB so far"], rows)
    ratio = costs[-1] / min(costs[:2])
    section.target(f"last tenth ≤ {_RATIO} × first", f"{ratio:.2f} ×", ratio <= _RATIO)
    return section


def tenths(samples: list[Sample], records: int) -> tuple[list[float], list[float]]:
    """Processor microseconds per record, and records per second, of each tenth; between two looks by interpolation."""
    first = next(i for i, (_, b) in enumerate(itertools.pairwise(samples)) if b.taken > 0)
    looks = samples[first:]
    done = [s.done for s in looks]
    edges = np.linspace(0, records, _TENTHS + 1)
    cpu, at = (np.diff(np.interp(edges, done, values)) for values in ([s.cpu for s in looks], [s.at for s in looks]))
    each = records / _TENTHS
    return (cpu / each * 1e6).tolist(), (each / at).tolist()
