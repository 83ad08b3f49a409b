"""Masks and the address of the index in the pipeline file."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dlq.index.database import index_location
from tidegate.config.pipeline import Pipeline


def pipeline(**fields: Any) -> Pipeline:
    return Pipeline.model_validate({"pipelineId": "flights", **fields})


@pytest.mark.parametrize(
    "mask", [{}, {"path": "a", "header": "b"}, {"regex": "("}, {"regex": "x*"}, {"path": ""}, {"replacement": "x"}]
)
def test_a_mask_hides_one_thing(mask: dict[str, str]) -> None:
    """A mask that says nothing, two things, no expression or one that matches nothing at all is refused."""
    with pytest.raises(ValidationError):
        pipeline(deadLetters={"masking": [mask]})


@pytest.mark.parametrize("url", ["mysql://u:p@h/d", "postgresql://", "sqlite://", "index.db"])
def test_the_index_is_a_database_that_is_known(url: str) -> None:
    """Another URL is refused, and its password is not repeated."""
    with pytest.raises(ValidationError) as error:
        pipeline(deadLetters={"index": url})
    assert "u:p" not in str(error.value)


def test_where_the_index_is() -> None:
    """What is given on the command line, else in the file, else the PostgreSQL sink's database, else a file."""
    sink = {"type": "postgres", "url": "postgresql://sink/d"}
    own = {"index": "postgresql://index/d"}
    assert index_location(pipeline(deadLetters=own, sinks=[sink]), "sqlite:///x") == "sqlite:///x"
    assert index_location(pipeline(deadLetters=own, sinks=[sink])) == "postgresql://index/d"
    assert index_location(pipeline(sinks=[sink])) == "postgresql://sink/d"
    assert index_location(pipeline(worker={"stateDir": "/s"})) == "sqlite:////s/flights-dlq.sqlite"
