"""Who else gets what a backfill has changed, and when: for people."""

from __future__ import annotations

from pathlib import Path

from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import Follower


def who_follows(pipeline: Pipeline, file: Path, what: str) -> list[str]:
    """A note on the sinks beside the database; none where there are none. `what` they will be given."""
    names = [sink.name for sink in pipeline.sinks if isinstance(sink, Follower)]
    if not names:
        return []
    return [
        f"{', '.join(names)} will be given what was {what} by `tidegate batch run {file}`: one that is at work does it by "
        "itself, after its micro-batch in hand, or within 10 seconds. Workers do not: stop them, run it once, start them again"
    ]
