"""The dry run: what the pipeline would say of a record now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dlq.replay.dry import DryRun
from dlq.replay.outgoing import Outgoing
from dlq.replay.raw import Chosen
from tests.unit.dlq.dead_letters import envelope
from tidegate.clock import ManualClock
from tidegate.config.pipeline import Pipeline
from tidegate.record import TopicPartition

TP = TopicPartition("orders", 0)
DAY = 86_400_000


def pipeline(**settings: Any) -> Pipeline:
    return Pipeline.model_validate(
        {
            "pipelineId": "p",
            "source": {"topics": ["orders"]},
            "schema": [{"name": "amount", "type": "bigint"}, {"name": "at", "type": "timestamp", "unit": "ms"}],
            **settings,
        }
    )


def failing(values: Sequence[bytes | None], high_water: int | None = None, **settings: Any) -> dict[int, str]:
    """Index of the record → error type."""
    dry = DryRun(pipeline(**settings), {TP: high_water}, ManualClock(1_000_000.0))
    records = [
        Outgoing(Chosen(n, "dlq", 0, n, f"id-{n}"), TP, b"k", value, [], envelope(n)) for n, value in enumerate(values)
    ]
    try:
        return {v.record.chosen.letter: v.rejection.reasons[0].error_type for v in dry.check(records)}
    finally:
        dry.close()


def test_decode_and_rules() -> None:
    """Malformed records and those that fail a rule; one that says abort is a failure like any other."""
    rules = [{"type": "range", "column": "amount", "max": 100, "onFailure": "abort"}]
    values = [b'{"amount": 1}', b'{"amount": 1000}', b'{"amount": "x"}', b"{", None]
    assert failing(values, rules=rules) == {1: "RuleViolation", 2: "WrongType", 3: "MalformedJson"}


def handler(name: str, *, preview: bool) -> dict[str, Any]:
    return {"call": f"tests.handlers:{name}", "preview": preview}


@pytest.mark.parametrize(
    ("handlers", "found", "stops"),
    [
        ([handler("refuse_999", preview=True)], {0: "ValueError"}, None),
        ([handler("refuse_999", preview=False)], {}, "tests.handlers:refuse_999"),
        (
            [handler("refuse_999", preview=True), handler("block_for_ever", preview=False)],
            {0: "ValueError"},
            "tests.handlers:block_for_ever",
        ),
    ],
)
def test_handlers(handlers: list[dict[str, Any]], found: dict[int, str], stops: str | None) -> None:
    """Handlers are called up to the first that does not say that a preview may."""
    assert failing([b'{"amount": 999}', b'{"amount": 1}'], handlers=handlers) == found
    assert DryRun(pipeline(handlers=handlers), {}, ManualClock()).stops_before == stops


@pytest.mark.parametrize("preview", [True, False])
def test_windows_that_are_no_longer_kept(preview: bool) -> None:
    """A replay is never late, but its window must still be there, whether or not the handlers can be asked."""
    settings = {
        "eventTime": {"column": "at", "retention": "1 day"},
        "handlers": [handler("refuse_999", preview=preview)],
        "aggregations": [
            {"name": "a", "window": {"size": "1 minute"}, "groupBy": ["amount"], "measures": {"n": "count"}}
        ],
    }
    values = [b'{"amount": 1, "at": 0}', b'{"amount": 1, "at": %d}' % (2 * DAY)]
    assert failing(values, high_water=3 * DAY - 1, **settings) == {0: "WindowExpired"}
    assert failing(values, high_water=None, **settings) == {}
