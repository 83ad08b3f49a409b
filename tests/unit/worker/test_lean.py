"""What the processes that take records through the stages do not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.harness import ROOT

_TELLS = """
import sys
import MODULE
import pyarrow as pa
print("pandas" in sys.modules, pa.table({"a": [1]}).to_pandas()["a"].sum())
"""


@pytest.mark.parametrize("module", ["worker.build", "dlq.replay.preview"])
def test_pandas_is_not_loaded_before_a_handler_asks_for_it(module: str) -> None:
    """It would take 30 MB of every worker, and a quarter of a second of every preview; who asks for it gets it."""
    done = subprocess.run(
        [sys.executable, "-c", _TELLS.replace("MODULE", module)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["False", "1"]
