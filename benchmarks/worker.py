"""`python -m benchmarks.worker`: what the worker costs, measured, into benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks import results
from benchmarks.stack import bench

PARTS = {
    "throughput": "benchmarks.throughput",
}
_RECORDS, _QUICK_RECORDS = 1_000_000, 200_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="these parts, not all")
    parser.add_argument("--quick", action="store_true", help="fewer records, one run; RESULTS.md stays as it is")
    parser.add_argument("--records", type=int, help=f"records of a run; default {_RECORDS}")
    arguments = parser.parse_args()
    records = arguments.records or (_QUICK_RECORDS if arguments.quick else _RECORDS)
    missed = 0
    with bench(records, arguments.quick) as place:
        for name in arguments.only or PARTS:
            print(f"{name} …", flush=True)
            section = importlib.import_module(PARTS[name]).run(place)
            print(section.render(), flush=True)
            if not arguments.quick:
                results.write(section, list(PARTS))
            missed += sum(not met for _, _, met in section.targets)
    if missed:
        print(f"{missed} targets not met", file=sys.stderr)


if __name__ == "__main__":
    main()
