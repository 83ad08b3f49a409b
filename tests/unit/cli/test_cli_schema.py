"""`tidegate schema`."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner

from tidegate.cli.main import app


def printed() -> dict[str, Any]:
    done = CliRunner().invoke(app, ["schema"])
    assert done.exit_code == 0
    return dict(json.loads(done.stdout))


def test_names_are_those_of_the_file() -> None:
    """Every property is camelCase, but for those that Kafka's clients and boto3 have named, and nothing else is allowed."""
    schema = printed()
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"pipelineId", "schema", "eventTime", "errorHandling", "$schema"} <= set(schema["properties"])
    assert schema["required"] == ["pipelineId"]
    for model, definition in schema["$defs"].items():
        assert definition["additionalProperties"] is False
        assert model in ("DeadLetterConfig", "S3Access") or not any("_" in name for name in definition["properties"])


def test_shorthand_forms_are_in_it() -> None:
    """A bare `count`, a bare column and the bare type of an array's items pass an editor's check."""
    definitions = printed()["$defs"]
    aggregation = definitions["Aggregation"]["properties"]
    assert {"type": "string", "const": "count"} in aggregation["measures"]["additionalProperties"]["anyOf"]
    assert aggregation["groupBy"]["items"]["anyOf"][0]["type"] == "string"
    assert definitions["Column"]["properties"]["items"]["anyOf"][0]["type"] == "string"


def test_durations_are_text() -> None:
    """A duration is text in the schema, and so is its default."""
    worker = printed()["$defs"]["Worker"]["properties"]
    assert (worker["drainTimeout"]["type"], worker["drainTimeout"]["default"]) == ("string", "20 seconds")


def test_seed_words_are_allowed() -> None:
    """The names of the user's own errorHandling block are in it, dots included."""
    definitions = printed()["$defs"]
    assert "bootstrap.servers" in definitions["DeadLetterConfig"]["properties"]
    assert "exponential-backoff" in definitions["Retry"]["properties"]["strategy"]["enum"]
