"""`python -m tests.providers.killed_catchup PIPELINE WHERE N`: a catch-up that is killed.

WHERE: `after-hold`; `before-store` and `after-store` in its N-th micro-batch; `before-offsets` of the group; `before-release`
and `after-release` of the hold.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from batch.catchup import run as module
from batch.catchup.cli import MAX_LAG
from batch.catchup.run import Catchup
from batch.catchup.view import View
from batch.claims import Claims
from batch.options import Options
from tidegate.config.loading import load_pipeline
from tidegate.store.postgres import PostgresStore

POINTS: Final = ("after-hold", "before-store", "after-store", "before-offsets", "before-release", "after-release")


def die(*_: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def before_and_after(call: Callable[..., Any], *, before: bool, after: bool, number: int = 1) -> Callable[..., Any]:
    """`call`, but for its `number`-th time."""
    left = number

    def dying(*given: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and before:
            die()
        answer = call(*given)
        if left == 0 and after:
            die()
        return answer

    return dying


def main(file: str, where: str, number: str) -> None:
    """Returns if there are fewer micro-batches."""
    when, _, what = where.partition("-")
    at: dict[str, bool] = {"before": when == "before", "after": when == "after"}
    store: Any = PostgresStore
    if what == "hold":
        store.hold = before_and_after(store.hold, **at)
    elif what == "release":
        store.release_hold = before_and_after(store.release_hold, **at)
    elif what == "offsets":
        module.write_group_offsets = before_and_after(module.write_group_offsets, **at)
    else:
        Claims.write = before_and_after(Claims.write, **at, number=int(number))  # type: ignore[method-assign]  # where the test kills the process
    view = View("killed", None)
    Catchup(load_pipeline(Path(file)), Options(max_records=700, master="local[2]"), MAX_LAG, view).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
