"""Whether a topic is still the one that the state speaks of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.errors import TopicRecreated
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState
from tidegate.store.identity import of_topic
from worker import keys
from worker.identity import changelog_rows, require_same
from worker.statedb import PartitionDB

TP, CHANGELOG = TopicPartition("flights", 0), ("p-changelog", 0)


@pytest.mark.parametrize(("state", "topic", "after"), [("", "A", "A"), ("A", "A", "A"), ("A", "", "A"), ("", "", "")])
def test_a_state_without_an_id_takes_the_first_one(state: str, topic: str, after: str) -> None:
    """As one of an older version does; where the broker gives no ids nothing is said."""
    assert of_topic(PartitionState(7, topic_id=state), TP, topic, "the state", "p") == PartitionState(7, topic_id=after)


def test_a_state_that_has_applied_nothing_takes_any_topic() -> None:
    """No offset of it could be mistaken."""
    assert of_topic(PartitionState(topic_id="A"), TP, "B", "the state", "p") == PartitionState(topic_id="B")


def test_a_state_of_another_topic_is_refused_with_the_ways_out() -> None:
    """Both ids, where it would have gone on, and what can be done."""
    with pytest.raises(
        TopicRecreated, match=r"the state goes on after offset 7(.|\n)*id A(.|\n)*id B(.|\n)*pipelineId"
    ):
        of_topic(PartitionState(7, topic_id="A"), TP, "B", "the state", "p")


def test_the_first_commit_says_which_changelog_it_is(tmp_path: Path) -> None:
    """Once written, nothing more is; a whole copy of the changelog is taken on as such."""
    db = PartitionDB(tmp_path / "p")
    assert changelog_rows(db, CHANGELOG, "A") == [(keys.CHANGELOG, b"A")]
    assert changelog_rows(db, CHANGELOG, "") == []
    db.write([(keys.CHANGELOG, b"A"), (keys.PARTITION, b"row")], [], 1)
    assert changelog_rows(db, CHANGELOG, "A") == []
    assert changelog_rows(db, CHANGELOG, "B") == [(keys.CHANGELOG, b"B")]
    db.close()


def test_a_changelog_without_its_beginning_is_refused(tmp_path: Path) -> None:
    """A partition row, and not the row that the first commit wrote: what was before is lost."""
    db = PartitionDB(tmp_path / "p")
    db.write([(keys.PARTITION, b"row")], [], 1)
    with pytest.raises(TopicRecreated, match="it has only what was written since"):
        changelog_rows(db, CHANGELOG, "A")
    db.close()


def test_a_topic_that_is_made_anew_under_a_running_worker_is_noticed() -> None:
    """By its id; one that is new to the worker, or has none, is not."""
    require_same({"a": "1", "b": ""}, {"a": "1", "b": "2", "c": "3"})
    with pytest.raises(TopicRecreated, match="topic 'a' was deleted and made anew while the worker ran"):
        require_same({"a": "1"}, {"a": "2"})
