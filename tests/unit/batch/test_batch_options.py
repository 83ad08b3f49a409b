"""What a batch run can be told, and which pipelines it takes."""

from __future__ import annotations

from typing import Any

import pytest

from batch.needs import require_runnable
from batch.options import Options, Trigger
from tidegate.config.pipeline import Pipeline
from tidegate.errors import ConfigError

POSTGRES = {"type": "postgres", "url": "postgresql://localhost/x"}


@pytest.mark.parametrize(
    ("text", "trigger", "spark"),
    [
        ("availableNow", Trigger(), {"availableNow": True}),
        ("once", Trigger(single=True), {"availableNow": True}),
        ("processingTime=10 seconds", Trigger(interval=10_000), {"processingTime": "10000 milliseconds"}),
        ("processingTime= PT1M", Trigger(interval=60_000), {"processingTime": "60000 milliseconds"}),
    ],
)
def test_triggers(text: str, trigger: Trigger, spark: dict[str, Any]) -> None:
    """The three triggers, and what Spark is told of each."""
    assert Trigger.parse(text) == trigger
    assert trigger.spark == spark


@pytest.mark.parametrize("text", ["", "processingTime", "processingTime=soon", "availablenow"])
def test_a_trigger_that_does_not_exist(text: str) -> None:
    """The error names the option, what was found and what there is."""
    with pytest.raises(ConfigError, match="--trigger: no such trigger") as error:
        Trigger.parse(text)
    assert error.value.value == text
    assert "processingTime=10 seconds" in str(error.value)


@pytest.mark.parametrize("text", ["continuous", "continuous=1 second"])
def test_continuous_processing(text: str) -> None:
    """Spark has it, and a run cannot use it: the error says why, and what to take instead."""
    with pytest.raises(ConfigError, match=r"--trigger: .*no micro-batch") as error:
        Trigger.parse(text)
    assert error.value.value == text
    assert "processingTime=100 ms" in str(error.value)
    assert "tidegate worker" in str(error.value)


def test_once_has_no_limit() -> None:
    """One micro-batch takes everything, whatever `--max-records` says."""
    assert Options(Trigger.parse("once"), max_records=5).limit is None
    assert Options(max_records=5).limit == 5


@pytest.mark.parametrize(
    ("sinks", "field"),
    [
        ([], "sinks"),
        ([{"type": "sqlite", "path": "x.db"}], "sinks"),
        ([{"type": "kafka"}], "sinks"),
    ],
)
def test_sinks_that_a_run_cannot_write(sinks: list[dict[str, Any]], field: str) -> None:
    """Its state is in PostgreSQL, beside the results; anything else is refused by the name of its field."""
    pipeline = Pipeline.model_validate(
        {"pipelineId": "p", "source": {"topics": ["t"]}, "schema": [{"name": "a", "type": "int"}], "sinks": sinks}
    )
    with pytest.raises(ConfigError) as error:
        require_runnable(pipeline)
    assert error.value.field == field
    assert error.value.hint


def test_a_pipeline_without_a_source() -> None:
    """What is missing to run is named."""
    with pytest.raises(ConfigError, match="a batch run needs `source`"):
        require_runnable(Pipeline.model_validate({"pipelineId": "p", "sinks": [POSTGRES]}))
