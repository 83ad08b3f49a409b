"""Python's garbage collector, kept quiet."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.harness import ROOT


@pytest.mark.slow
def test_the_end_of_a_process_is_quiet_too() -> None:
    """Everything is taken apart in its order, however long it was not looked at: DuckDB has nothing to complain of on stderr."""
    code = (
        "from tidegate.garbage import quieten_garbage_collection\n"
        "from tidegate.stages.sql import connect\n"
        "connection = connect()\n"
        "quieten_garbage_collection()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
