"""Windows that leave the store for good, once all sinks have what a micro-batch has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from batch.claims import Claims
from tidegate.resilience.guard import Guard
from tidegate.stages.plan import Plan
from tidegate.store.base import Store
from tidegate.store.timeouts import timed_out_upto

log = structlog.get_logger(__name__)


class Timeouts:
    """`eventTime.stateTimeout` of one run; without it nothing is done."""

    def __init__(
        self, plan: Plan, store: Store, guard: Guard, claims: Claims, told: Callable[[Mapping[str, int]], None]
    ) -> None:
        """`told`: of each aggregation, how many windows have gone."""
        event_time = plan.pipeline.event_time
        self._timeout, self._delay = (event_time.state_timeout, event_time.delay) if event_time else (None, 0)
        self._aggregations, self._store, self._guard, self._claims = plan.aggregations, store, guard, claims
        self._told = told
        self._last: tuple[int, ...] | None = None

    def look(self) -> None:
        """Delete what is due. Raises StoreFenced, DependencyError."""
        ends = self._due()
        if self._timeout is None or ends is None or ends == self._last:
            return
        done = self._guard.call(self._store.time_out, self._claims.epochs, self._timeout)
        self._last = ends
        if done is None:
            return
        for name, windows in done.windows.items():
            log.info("windows.timed_out", aggregation=name, windows=windows)
        if done.late:
            log.warning("late.given_up", records=done.late, because="the windows that missed them have timed out")
        if done.windows:
            self._told(done.windows)

    def _due(self) -> tuple[int, ...] | None:
        """When the last window of each aggregation that is to go ends: the database is asked only when that has moved."""
        if self._timeout is None:
            return None
        upto = timed_out_upto(self._claims.states.values(), self._delay, self._timeout)
        return None if upto is None else tuple((upto - each.size) // each.hop for each in self._aggregations)
