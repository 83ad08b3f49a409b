"""Paths: from where pydantic found an error to where the user wrote it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tidegate.config.base import Model
from tidegate.config.fields import Path, alias_of, dotted, holds_secret, locate, members_of, secret_names
from tidegate.config.kafka import Kafka
from tidegate.config.pipeline import Pipeline
from tidegate.config.reference import models_below
from tidegate.config.stages import Aggregation


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("aggregations", 0, "window", "size"), "aggregations[0].window.size"),
        (("config", "bootstrap.servers"), 'config["bootstrap.servers"]'),
        ((), ""),
    ],
)
def test_dotted(path: Path, text: str) -> None:
    """Indices in brackets, names that are no words in brackets and quotes."""
    assert dotted(path) == text


def test_tags_are_no_fields() -> None:
    """The tag of a union that pydantic puts into a location is not part of the path."""
    data = {"rules": [{"type": "length", "column": "a", "min": -1}]}
    assert str(locate(Pipeline, data, ("rules", 0, "length", "min"))) == "rules[0].min"


def test_keys_are_as_written() -> None:
    """The path has the names of the reference, the keys those of the file."""
    place = locate(Pipeline, {"event_time": {"idle_timeout": 1}}, ("event_time", "idleTimeout"))
    assert place.path == ("eventTime", "idleTimeout")
    assert place.keys == ("event_time", "idle_timeout")


def test_shorthand_ends_the_path() -> None:
    """Where a string stands for an object, the path ends at the string."""
    data = {"measures": {"n": "coutn"}}
    assert str(locate(Aggregation, data, ("measures", "n", "type"))) == "measures.n"


def test_secret_fields_are_found_at_any_depth() -> None:
    """A field that may hold a secret further down counts as one; the names come in both spellings."""
    assert holds_secret(Kafka)
    assert holds_secret(Pipeline.model_fields["sinks"].annotation) is False  # a list is never shown as such
    assert {"password", "keyPassword", "key_password", "url"} <= secret_names(Pipeline)


_NUMBERS_AND_BOOLEANS = [
    (model, name, kind)
    for model in models_below(Pipeline)
    for name, field in model.model_fields.items()
    for kind in members_of(field.annotation)
    if kind in (bool, int, float) and len(members_of(field.annotation)) == 1
]


@pytest.mark.parametrize(("model", "name", "kind"), _NUMBERS_AND_BOOLEANS)
def test_no_number_or_boolean_is_guessed(model: type[Model], name: str, kind: type) -> None:
    """Of no field of no model: text that looks like one, and one for the other, are refused."""
    field = alias_of(model, name)
    for wrong in ("yes", "true", 1) if kind is bool else ("1", True):
        assert field in _wrong_fields(model, {field: wrong}), wrong


def _wrong_fields(model: type[Model], data: dict[str, Any]) -> list[Any]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return [error["loc"][0] for error in caught.value.errors() if error["loc"] and error["type"] != "missing"]
