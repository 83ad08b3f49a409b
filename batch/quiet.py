"""Warnings of Spark's that say nothing to whoever runs a pipeline."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_WARNINGS = threading.Lock()


@contextmanager
def silent_about_pandas() -> Iterator[None]:
    """Spark looks at the version of pandas and warns of any from 3 on; nothing here uses pandas. For short calls: one thread at a
    time, since the filters are the process's, and each would put back what the other had found."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        yield
