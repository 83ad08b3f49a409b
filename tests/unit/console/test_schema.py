"""The API against its own OpenAPI document: what Schemathesis makes up is answered as the document says."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.console_scene import TOKENS, Scene

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis.specs.openapi.checks import positive_data_acceptance

# A text that is no time, or no cursor, is fit for the document and refused all the same.
_MEANING = positive_data_acceptance
_EXAMPLES = 6  # of each operation, valid and invalid ones


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_the_api_keeps_its_word(guarded: Scene, mode: str) -> None:
    """No made-up request ends in an error of ours; every answer has a status and a shape that the document names."""
    client = guarded.client(TOKENS["admin"])
    document = client.get("/api/openapi.json").json()
    del document["security"], document["components"]["securitySchemes"]  # tokens: tests/unit/console/test_gate.py
    schema = schemathesis.openapi.from_dict(document)
    generation = schemathesis.GenerationMode(mode)
    checked = 0
    for operation in (result.ok() for result in schema.get_all_operations()):
        if operation.path == "/api/preview":
            continue  # it asks Kafka, which is not here: tests/browser
        if mode == "positive" or operation.query or operation.path_parameters or operation.body:
            _check(client, operation, generation)
            checked += 1
    assert checked > 20


def _check(client: Any, operation: Any, generation: Any) -> None:
    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(data=st.data())
    def every(data: Any) -> None:
        case = data.draw(operation.as_strategy(generation_mode=generation))
        sent = case.as_transport_kwargs(base_url=str(client.base_url))
        sent.pop("cookies", None)
        if "data" in sent:
            sent["content"] = sent.pop("data")
        case.validate_response(client.request(**sent), excluded_checks=[_MEANING])

    every()
