"""What topics are called: no two pipelines share a topic of tidegate's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tidegate.config.pipeline import Pipeline
from tidegate.config.topics import changelog_topic, dead_letter_topic, late_topic, partials_topic, watermarks_topic

IDS = st.text("ab.-_", min_size=1, max_size=6)
TOPICS = st.text("ab.-_", min_size=1, max_size=8).filter(lambda topic: topic not in (".", ".."))


def pipeline(pipeline_id: str, topic: str) -> Pipeline | None:
    """None: refused."""
    try:
        return Pipeline.model_validate({"pipelineId": pipeline_id, "source": {"topics": [topic]}})
    except ValidationError:
        return None


def own(of: Pipeline) -> set[str]:
    assert of.source is not None
    partials = partials_topic(of)
    return {
        watermarks_topic(of),
        partials,
        *(changelog_topic(of.pipeline_id, t) for t in (*of.source.topics, partials)),
    }


@given(IDS, TOPICS, IDS, TOPICS)
def test_two_pipelines_never_share_a_topic_of_tidegates_own(id_1: str, topic_1: str, id_2: str, topic_2: str) -> None:
    """Whatever they and their topics are called; and neither writes results, dead letters or late records into one."""
    one, other = pipeline(id_1, topic_1), pipeline(id_2, topic_2)
    if one is None or other is None:
        return
    if id_1 != id_2:
        assert own(one) & own(other) == set()
    assert own(one) & {dead_letter_topic(other), late_topic(other)} == set()


def test_one_pipeline_has_a_changelog_for_each_topic() -> None:
    """The state of one source topic is not that of another."""
    assert changelog_topic("delays", "flights") == "delays..changelog.flights"
    assert changelog_topic("delays", "flights") != changelog_topic("delays", "weather")


@pytest.mark.parametrize("pipeline_id", ["a", "a.b", "a-b_c.d1", "1", "a" * 100])
def test_ids_that_are_taken(pipeline_id: str) -> None:
    """Letters, digits, `_`, `-`, and single points inside."""
    assert Pipeline(pipeline_id=pipeline_id).pipeline_id == pipeline_id


@pytest.mark.parametrize("pipeline_id", ["", ".a", "a.", "a..b", "a b", "a" * 101, "ä"])
def test_ids_that_are_not(pipeline_id: str) -> None:
    """They would make a topic that Kafka refuses, or one whose owner cannot be told."""
    with pytest.raises(ValidationError, match="pipeline_id"):
        Pipeline(pipeline_id=pipeline_id)
