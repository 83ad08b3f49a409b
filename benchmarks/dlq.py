"""`python -m benchmarks.dlq`: what dead letters cost, measured, into benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks import results
from benchmarks.stack import bench

PARTS = {
    "index": "benchmarks.dlq_index",
}
_LETTERS, _QUICK_LETTERS = 1_000_000, 100_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dlq", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="these parts, not all")
    parser.add_argument("--quick", action="store_true", help="fewer letters; RESULTS.md stays as it is")
    parser.add_argument("--letters", type=int, help=f"dead letters; default {_LETTERS}")
    arguments = parser.parse_args()
    letters = arguments.letters or (_QUICK_LETTERS if arguments.quick else _LETTERS)
    missed = 0
    with bench(letters, arguments.quick) as place:
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
