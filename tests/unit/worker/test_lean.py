"""What a worker's process does not load."""

from __future__ import annotations

import subprocess
import sys

from tests.harness import ROOT

_TELLS = """
import sys
import worker.build
import pyarrow as pa
print("pandas" in sys.modules, pa.table({"a": [1]}).to_pandas()["a"].sum())
"""


def test_pandas_is_not_loaded_before_a_handler_asks_for_it() -> None:
    """It would take 30 MB of every worker; who asks for it gets it."""
    done = subprocess.run([sys.executable, "-c", _TELLS], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["False", "1"]
