"""Paths: from where pydantic found an error to where the user wrote it."""

from __future__ import annotations

import pytest

from tidegate.config.fields import Path, dotted, holds_secret, locate, secret_names
from tidegate.config.kafka import Kafka
from tidegate.config.pipeline import Pipeline
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
