"""The API against its own OpenAPI document: what Schemathesis makes up is answered as the document says."""

from __future__ import annotations

import pytest

from tests.console_scene import TOKENS, Scene
from tests.openapi import check_operation, operations_of


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_the_api_keeps_its_word(guarded: Scene, mode: str) -> None:
    """No made-up request ends in an error of ours; every answer has a status and a shape that the document names."""
    client = guarded.client(TOKENS["admin"])
    checked = 0
    for operation in operations_of(client):
        if operation.path == "/api/preview":
            continue  # it asks Kafka, which is not here: tests/contract/test_replay_records.py
        if mode == "positive" or operation.query or operation.path_parameters or operation.body:
            check_operation(client, operation, mode)
            checked += 1
    assert checked > 20
