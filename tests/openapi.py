"""An API against its own OpenAPI document, by what Schemathesis makes up."""

from __future__ import annotations

import warnings
from typing import Any

from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis.specs.openapi.checks import positive_data_acceptance

# A text that is no time, or no cursor, is fit for the document and refused all the same.
_MEANING = positive_data_acceptance
_EXAMPLES = 6  # of each operation, valid and invalid ones


def operations_of(client: TestClient) -> list[Any]:
    """All operations of the document that the API gives."""
    document = client.get("/api/openapi.json").json()
    document.pop("security", None)  # tokens: tests/unit/console/test_gate.py
    document["components"].pop("securitySchemes", None)
    return [result.ok() for result in schemathesis.openapi.from_dict(document).get_all_operations()]


def check_operation(client: TestClient, operation: Any, mode: str) -> list[int]:
    """Made-up requests, valid ones or not (`mode`: positive or negative), are answered as the document says. The statuses."""
    statuses: list[int] = []

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
        case = data.draw(operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
        sent = case.as_transport_kwargs(base_url=str(client.base_url))
        sent.pop("cookies", None)
        if "data" in sent:
            sent["content"] = sent.pop("data")
        answer = client.request(**sent)
        case.validate_response(answer, excluded_checks=[_MEANING])
        statuses.append(answer.status_code)

    every()
    return statuses
