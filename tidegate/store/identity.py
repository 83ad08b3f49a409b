"""Is a source topic still the one that a state speaks of? One that is deleted and made anew has its name and another id.

Offsets are of one log. In another with the same name an offset may exist as well, and stand for another record: to go on
there would skip what was written first.
"""

from __future__ import annotations

from dataclasses import replace

from tidegate.errors import TopicRecreated
from tidegate.record import TopicPartition
from tidegate.stages.batch import PartitionState


def of_topic(state: PartitionState, tp: TopicPartition, topic_id: str, where: str, pipeline_id: str) -> PartitionState:
    """The state, marked with the topic's id if it had none or nothing is applied. `where`: whose state it is, for a person.

    Raises TopicRecreated when it is of another topic with this name. An id that is not known ("") says nothing.
    """
    if not topic_id or state.topic_id == topic_id:
        return state
    if state.topic_id and state.upto >= 0:
        raise TopicRecreated(
            f"topic {tp.topic!r} was deleted and made anew: {where} goes on after offset {state.upto} of partition "
            f"{tp.partition} in the topic with id {state.topic_id}, and there is one with id {topic_id} now\n"
            "  hint:     take a new pipelineId: it counts the new topic from its beginning, and what the old one gave "
            "stays as it is\n"
            f"            or forget the old one: delete all topics whose names begin with '{pipeline_id}.' and what the "
            f"database has of pipeline '{pipeline_id}'"
        )
    return replace(state, topic_id=topic_id)
