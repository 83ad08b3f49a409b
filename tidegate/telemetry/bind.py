"""Retries and breakers as metrics."""

from __future__ import annotations

from collections.abc import Callable

from tidegate.resilience import PROCESS, BreakerState, CallOutcome, CircuitBreaker, Listener, Registry, RetryKind
from tidegate.telemetry.metric_defs import (
    BREAKER_CALLS,
    BREAKER_OPENED_TIMESTAMP,
    BREAKER_STATE,
    BREAKER_TRANSITIONS,
    RETRY_ATTEMPTS,
    RETRY_CALLS,
    RETRY_WAIT,
    WORKER_TIME,
)
from tidegate.telemetry.metrics import Metrics

_FROM_BEST_TO_WORST = ["disabled", "closed", "half_open", "open"]


def bind_resilience(metrics: Metrics, registry: Registry = PROCESS) -> Callable[[], None]:
    """Count all guarded calls of `registry` from now on, and export each breaker's state as of the moment of export.

    The state is computed then, because a breaker turns half-open by the passing of time, without an event. Returns
    what ends it.
    """
    counting = _Counting(metrics)
    known = [breaker.name for breaker in registry.breakers()]
    metrics.prepare({"breaker": known, "target": known})
    stop_listening = registry.listen(counting)
    stop_refreshing = metrics.before_export(lambda: export_states(metrics, registry))
    export_states(metrics, registry)

    def unbind() -> None:
        stop_listening()
        stop_refreshing()

    return unbind


def export_states(metrics: Metrics, registry: Registry) -> None:
    """Set the state of every breaker; of several with one name the worst."""
    worst: dict[str, str] = {}
    for breaker in registry.breakers():
        seen = breaker.snapshot()
        state = seen.state.value if seen.enabled else "disabled"
        worst[breaker.name] = max(state, worst.get(breaker.name, state), key=_FROM_BEST_TO_WORST.index)
        if seen.opened_at is not None:
            metrics.set(BREAKER_OPENED_TIMESTAMP, {"breaker": breaker.name}, seen.opened_at)
    for name, present in worst.items():
        for state in BREAKER_STATE.labels["state"]:
            metrics.set(BREAKER_STATE, {"breaker": name, "state": state}, float(state == present))


class _Counting(Listener):
    """Counts what it is told."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def on_call(self, breaker: CircuitBreaker, outcome: CallOutcome) -> None:
        self._metrics.inc(BREAKER_CALLS, {"breaker": breaker.name, "outcome": outcome.value})

    def on_transition(self, breaker: CircuitBreaker, before: BreakerState, after: BreakerState) -> None:
        labels = {"breaker": breaker.name, "from": before.value, "to": after.value}
        self._metrics.inc(BREAKER_TRANSITIONS, labels)

    def on_retry(self, target: str, attempt: int, wait: float, error: BaseException) -> None:
        self._metrics.inc(RETRY_ATTEMPTS, {"target": target, "error_type": type(error).__name__})
        self._metrics.inc(RETRY_WAIT, {"target": target}, wait)
        self._metrics.inc(WORKER_TIME, {"activity": "retry_wait"}, wait)

    def on_finish(self, target: str, kind: RetryKind) -> None:
        self._metrics.inc(RETRY_CALLS, {"target": target, "kind": kind.value})
