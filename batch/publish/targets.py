"""The sinks of a pipeline that follow its database, opened for a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from batch.claims import Claims
from batch.publish.kafka import open_kafka
from batch.publish.publisher import Follower, Publisher
from batch.publish.target import Target
from tidegate.config.sinks import DeltaSink, KafkaSink, ParquetSink, PostgresSink
from tidegate.config.sinks import Follower as FollowerSink
from tidegate.resilience.guard import Guard
from tidegate.stages.plan import Plan
from tidegate.store.published import Published


@contextmanager
def publishing(
    plan: Plan, sink: PostgresSink, guard: Guard, claims: Claims, told: Callable[[str, Mapping[str, int]], None]
) -> Iterator[Publisher | None]:
    """A publisher, closed when the block ends; None where there is no sink but the store. `sink`, `guard`: of the store.

    Raises ConfigError, DependencyError.
    """
    sources = Counter(tp.topic for tp in claims.states)
    sinks = [one for one in plan.pipeline.sinks if isinstance(one, FollowerSink)]
    if not sinks:
        yield None
        return
    published, followers = Published(plan, sink), list[Follower]()
    try:
        guard.call(published.prepare)
        for one in sinks:
            followers.append(Follower.of(_opened(plan, one, sources), one, plan.pipeline))
        yield Publisher(plan, published, guard, claims, followers, told)
    finally:
        for follower in followers:
            follower.target.close()
        published.close()


def _opened(plan: Plan, sink: FollowerSink, sources: Mapping[str, int]) -> Target:
    """`sources`: partitions of each source topic."""
    pipeline, field = plan.pipeline.pipeline_id, f"sinks[{plan.pipeline.sinks.index(sink)}]"
    if isinstance(sink, DeltaSink):
        from batch.publish.delta import DeltaTarget  # 0.2 s of imports, for those with such a sink

        return DeltaTarget(sink, pipeline, field)
    if isinstance(sink, ParquetSink):
        from batch.publish.parquet import ParquetTarget

        return ParquetTarget(sink, pipeline, field)
    assert isinstance(sink, KafkaSink)
    return open_kafka(plan, sink, sources)
