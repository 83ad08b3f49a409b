"""A pipeline can be written and read back, as JSON, as YAML, from code and from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from tests.unit.config.pipelines import pipeline_files
from tidegate.config.loading import parse_pipeline
from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import PostgresSink


class _Quoting(yaml.SafeDumper):
    """Puts text in quotes: PyYAML knows YAML 1.1 only, and leaves them out of what is a number in 1.2, such as 0E0."""


_Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@pytest.mark.slow
@given(pipeline_files())
@settings(deadline=None)
def test_json_round_trip(file: dict[str, Any]) -> None:
    """What a pipeline is dumped as reads back as the same pipeline."""
    pipeline = Pipeline.model_validate(file)
    assert Pipeline.model_validate_json(pipeline.model_dump_json(by_alias=True)) == pipeline


@pytest.mark.slow
@given(pipeline_files())
@settings(deadline=None)
def test_files_agree(file: dict[str, Any]) -> None:
    """The same content gives the same pipeline as YAML, as JSON, and dumped and loaded as a file."""
    as_json = parse_pipeline(json.dumps(file), "a.json", {}, Path())
    as_yaml = parse_pipeline(yaml.dump(file, Dumper=_Quoting), "a.yaml", {}, Path())
    dumped = parse_pipeline(as_json.model_dump_json(by_alias=True), "a.json", {}, Path())
    assert as_json == as_yaml == dumped


def test_dump_holds_no_secret() -> None:
    """A dumped pipeline has stars where its secrets were, and everything else as it was."""
    pipeline = Pipeline(
        pipeline_id="a",
        sinks=(PostgresSink.model_validate({"type": "postgres", "url": "postgresql://u:geheim@h/db"}),),
    )
    dumped = pipeline.model_dump_json(by_alias=True)
    assert "geheim" not in dumped + repr(pipeline) + str(pipeline)
    assert json.loads(dumped)["sinks"][0]["schema"] == "public"


def test_error_from_code_holds_no_secret() -> None:
    """A pipeline that is wrong in code raises an error without its inputs."""
    with pytest.raises(ValueError, match="PostgreSQL") as caught:
        PostgresSink.model_validate({"type": "postgres", "url": "mysql://u:geheim@h/db"})
    assert "geheim" not in str(caught.value)


def test_code_may_give_milliseconds() -> None:
    """A number is a duration in code, where its unit is known."""
    pipeline = Pipeline.model_validate({"pipelineId": "a", "worker": {"drainTimeout": 500}})
    assert pipeline.worker.drain_timeout == 500
