"""Hypothesis strategies for whole pipelines, as plain values in the shape of a file."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tidegate.config.durations import format_duration

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}x", fullmatch=True)
DURATIONS = st.integers(min_value=1, max_value=10**10).map(format_duration)
TEXTS = st.text(min_size=1, max_size=12).filter(lambda text: "${" not in text)
SCALAR_TYPES = st.sampled_from(["string", "int", "bigint", "double", "boolean", "date", "decimal(12,2)"])


@st.composite
def columns(draw: st.DrawFn, name: str, depth: int = 2) -> dict[str, Any]:
    """One column of any type, nested to `depth`."""
    kind = draw(st.sampled_from(["scalar", "timestamp", "array", "struct"] if depth else ["scalar"]))
    column: dict[str, Any] = {"name": name, "nullable": draw(st.booleans())}
    if kind == "scalar":
        return {**column, "type": draw(SCALAR_TYPES)}
    if kind == "timestamp":
        form = draw(st.sampled_from([{"unit": "ms"}, {"unit": "ns"}, {"format": "iso8601"}, {"format": "%Y-%m-%d"}]))
        return {**column, "type": "timestamp", **form}
    if kind == "array":
        return {**column, "type": "array", "items": draw(st.one_of(SCALAR_TYPES, columns("item", depth - 1)))}
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    return {**column, "type": "struct", "fields": [draw(columns(name, depth - 1)) for name in names]}


def rules(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """One rule on one of the columns."""
    column = st.sampled_from(names)
    common = {"severity": st.sampled_from(["error", "warning", "info"])}
    numbers = st.one_of(st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False), TEXTS)
    kinds: list[dict[str, Any]] = [
        {"type": st.just("notNull"), "column": column},
        {"type": st.just("range"), "column": column, "min": numbers},
        {"type": st.just("regex"), "column": column, "pattern": TEXTS},
        {
            "type": st.just("allowedValues"),
            "column": column,
            "values": st.lists(st.one_of(TEXTS, st.integers(), st.booleans()), min_size=1),
        },
        {"type": st.just("length"), "column": column, "max": st.integers(0, 100)},
        {"type": st.just("expect"), "expression": TEXTS, "nullPasses": st.booleans()},
    ]
    optional = {"onFailure": st.sampled_from(["deadLetter", "warn", "abort", "continue"])}
    return st.one_of([st.fixed_dictionaries({**common, **kind}, optional=optional) for kind in kinds])


def aggregations(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """One aggregation over some of the columns."""
    size = st.integers(1, 10**6)
    window = st.one_of(
        st.fixed_dictionaries({"size": size.map(format_duration)}),
        size.map(lambda ms: {"type": "hopping", "size": format_duration(ms * 3), "hop": format_duration(ms)}),
    )
    measure = st.one_of(
        st.just("count"),
        st.fixed_dictionaries({"type": st.sampled_from(["sum", "avg", "first", "approxDistinct"]), "of": TEXTS}),
    )
    return st.fixed_dictionaries(
        {
            "name": NAMES,
            "window": window,
            "groupBy": st.lists(st.sampled_from(names), max_size=2, unique=True),
            "measures": st.dictionaries(NAMES.map(lambda name: f"m_{name}"), measure, min_size=1, max_size=3),
            "emit": st.sampled_from(["updates", "final"]),
        }
    )


@st.composite
def pipeline_files(draw: st.DrawFn) -> dict[str, Any]:
    """A whole valid pipeline file without secrets."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    file: dict[str, Any] = {
        "pipelineId": draw(NAMES),
        "source": {"topics": draw(st.lists(NAMES.map(lambda name: f"t.{name}"), min_size=1, max_size=3, unique=True))},
        "schema": [draw(columns(name)) for name in names],
        "eventTime": {"column": names[0], "delay": draw(DURATIONS), "allowedLateness": draw(DURATIONS)},
        "rules": draw(st.lists(rules(names), max_size=4)),
        "aggregations": draw(st.lists(aggregations(names), max_size=2, unique_by=lambda each: each["name"])),
        "sinks": draw(st.sampled_from([[], [{"type": "kafka"}]])),
        "lateData": {"strategy": draw(st.sampled_from(["drop", "logAndDrop", "sendToDLQ", "separateStream"]))},
        "errorHandling": {
            "retry": {"maxAttempts": draw(st.integers(1, 9)), "backoffMultiplier": draw(st.floats(1, 10))},
            "circuitBreaker": {"resetTimeoutSeconds": draw(st.floats(0.1, 1e6))},
        },
    }
    if draw(st.booleans()):
        file["dedupe"] = {"key": draw(TEXTS), "horizon": draw(DURATIONS)}
    return file
