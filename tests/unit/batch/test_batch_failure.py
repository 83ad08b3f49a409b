"""What a person reads when Spark fails."""

from __future__ import annotations

import pytest

from batch.failure import engine_failed

CRASH = """An error occurred while calling o12.getResult.
: org.apache.spark.SparkException: Exception thrown in awaitResult: Job aborted due to stage failure
\tat org.apache.spark.util.SparkThreadUtils$.awaitResult(SparkThreadUtils.scala:70)
Caused by: org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)
Caused by: java.io.EOFException
"""
TRACEBACK = """Job aborted due to stage failure: org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "worker.py", line 1, in main
AssertionError: a task got records of several partitions
\tat org.apache.spark.api.python.BasePythonRunner
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CRASH, "org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)"),
        (TRACEBACK, "AssertionError: a task got records of several partitions"),
        ("no more memory", "no more memory"),
        ("", "RuntimeError"),
    ],
)
def test_one_line_says_why(text: str, reason: str) -> None:
    """Of an executor's traceback the last line, of Java's causes the first, else what there is."""
    assert str(engine_failed("a micro-batch", RuntimeError(text))) == f"Spark ended a micro-batch: {reason}"
