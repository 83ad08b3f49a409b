"""`python -m tests.providers.killed_batch PIPELINE WHERE N`: a batch run that is killed in its N-th micro-batch.

WHERE: `before-store`, when its dead letters are confirmed; `after-store`, when the store has it, and neither Kafka nor Spark;
`any-moment`, N ms after its start, if it is not done by then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from batch.claims import Claims
from batch.options import Options
from batch.run import BatchRun
from tests.providers.spark import Quiet
from tidegate.config.loading import load_pipeline
from tidegate.store.base import StoreBatch


def main(file: str, where: str, number: str) -> None:
    """Never returns, unless there are fewer micro-batches."""
    left, write = int(number), Claims.write
    if where == "any-moment":
        moment = threading.Timer(left / 1000, os.kill, (os.getpid(), signal.SIGKILL))
        moment.daemon = True
        moment.start()

    def written(claims: Claims, batches: Sequence[StoreBatch]) -> None:
        nonlocal left
        left -= bool(batches)
        if left == 0 and where == "before-store":
            os.kill(os.getpid(), signal.SIGKILL)
        write(claims, batches)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    Claims.write = written  # type: ignore[method-assign]  # where the test kills the process
    BatchRun(load_pipeline(Path(file)), Options(max_records=700, master="local[2]"), Quiet()).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
