"""From the store to the sinks that follow it. Whoever asks "can a sink lose a result?" reads this file.

A micro-batch is in the store before any other sink hears of it. Then, for each of them:

1. plan     what it is to have next, written down in the store (tidegate/store/published.py)
2. write    the newest results of what has changed, and of windows that have closed since, confirmed by the sink
3. done     the store's rows for the sink move on

What is not done when a query begins, after a crash, after workers were there, or for a sink that is new, is found in the store
and published first. So whatever stops a run loses nothing; what was written and not yet done is written again, with the same
keys and revisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from batch.claims import Claims
from batch.publish.target import Target
from tidegate.config.pipeline import Pipeline
from tidegate.config.sinks import Follower as FollowerSink
from tidegate.config.sinks import KafkaSink, OutputMode
from tidegate.errors import ConfigError
from tidegate.record import TopicPartition
from tidegate.resilience.guard import Guard
from tidegate.stages.plan import AggregationPlan, Plan
from tidegate.store.publication import Publication
from tidegate.store.published import Published


@dataclass(slots=True)
class Follower:
    """A sink. `modes`: of each aggregation. `shared`: workers write to it as well. `upto`: how far the store was when it was last
    seen to have all of that; None: it may lack some."""

    target: Target
    modes: Mapping[str, OutputMode]
    guard: Guard
    shared: bool
    upto: Mapping[TopicPartition, int] | None = None

    @classmethod
    def of(cls, target: Target, sink: FollowerSink, pipeline: Pipeline) -> Follower:
        modes = {aggregation.name: sink.mode(aggregation.emit) for aggregation in pipeline.aggregations}
        return cls(target, modes, Guard(f"sink.{target.name}", pipeline.error_handling), isinstance(sink, KafkaSink))


class Publisher:
    """All followers of one pipeline. Not for use by two threads at once."""

    def __init__(
        self,
        plan: Plan,
        published: Published,
        store: Guard,
        claims: Claims,
        followers: Sequence[Follower],
        told: Callable[[str, Mapping[str, int]], None],
    ) -> None:
        """`told`: sink and, for each aggregation, how many results it was given."""
        self._plan, self._published, self._store, self._claims = plan, published, store, claims
        self._followers, self._told = followers, told
        self._promoted = False  # whether a sink has got what a promotion had written down for it

    def catch_up(self) -> None:
        """Give every sink what it lacks. Raises DependencyError, StoreFenced, and what a sink says of a result it refuses."""
        self._give_all(None)

    def follow(self, touched: Mapping[str, pa.Table]) -> None:
        """After a micro-batch: `touched`, aggregation → windows and groups that it has added to. Raises as `catch_up`."""
        self._give_all(touched)

    def _give_all(self, touched: Mapping[str, pa.Table] | None) -> None:
        for follower in self._followers:
            self._give(follower, touched)
        if self._promoted:
            self._store.call(self._published.forget_promotions)
            self._promoted = False

    def _give(self, follower: Follower, touched: Mapping[str, pa.Table] | None) -> None:
        """Until there is nothing left."""
        known, upto, follower.upto = touched, follower.upto, None
        name, shared = follower.target.name, follower.shared
        while (
            publication := self._store.call(self._published.plan, name, self._claims.epochs, shared=shared)
        ) is not None:
            # An overtaken run sets a sink's rows back (Published.done): then a micro-batch is not all that there is to give.
            is_all = upto is not None and publication.begins_at(upto) and not publication.amended
            self._publish(follower, publication, known if is_all else None)
            known = None
        follower.upto = {tp: state.upto for tp, state in self._claims.states.items()}

    def _publish(self, follower: Follower, publication: Publication, touched: Mapping[str, pa.Table] | None) -> None:
        """One version of one sink. Nothing is written of an aggregation without results to tell."""
        given: dict[str, int] = {}
        written: dict[str, pa.Table] = {}
        for aggregation in self._plan.aggregations:
            results = self._results(follower, publication, aggregation, touched)
            if results.num_rows:
                self._write(follower, publication, aggregation, results)
                given[aggregation.name] = results.num_rows
                if follower.shared:  # in the others, a result's last revision is right
                    written[aggregation.name] = results.select(_key_and_place(aggregation))
        self._store.call(self._published.done, publication, written)
        self._promoted |= publication.promoted != publication.promoted_before
        self._told(follower.target.name, given)

    def _write(
        self, follower: Follower, publication: Publication, aggregation: AggregationPlan, results: pa.Table
    ) -> None:
        """Raises StoreFenced where a sink finds fault with the file only because another run has been there meanwhile, as with
        a table that is ahead: its advice would be wrong."""
        complete = follower.modes[aggregation.name] == "complete"
        try:
            follower.guard.call(follower.target.write, aggregation, publication.version, results, complete=complete)
        except ConfigError:
            self._store.call(self._published.require_claims, self._claims.epochs)
            raise

    def _results(
        self,
        follower: Follower,
        publication: Publication,
        aggregation: AggregationPlan,
        touched: Mapping[str, pa.Table] | None,
    ) -> pa.Table:
        of = None if touched is None else touched.get(aggregation.name, _nothing(aggregation))
        mode = follower.modes[aggregation.name]
        return self._store.call(self._published.results, publication, aggregation, mode, of)


def _key_and_place(aggregation: AggregationPlan) -> list[str]:
    return ["window_start", "window_end", *(column.name for column in aggregation.group), "upto", "revision"]


def _nothing(aggregation: AggregationPlan) -> pa.Table:
    fields = [("window_start", pa.int64()), ("window_end", pa.int64())]
    return pa.schema([*fields, *((column.name, column.type) for column in aggregation.group)]).empty_table()
