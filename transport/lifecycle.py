"""Is the process alive, is it at work, and how does it end: health, metrics over HTTP, the watchdog, the exit code.

The worker and the agent of dead letters live by it: what they have in common is partitions, and progress on them.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol

import structlog

from tidegate.clock import SystemClock
from tidegate.config.pipeline import Telemetry
from tidegate.errors import ConfigError, FloodGuardTripped, OffsetOutOfRange, PipelineAborted, TidegateError
from tidegate.record import TopicPartition
from tidegate.telemetry.health import Health
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.prometheus import PrometheusReporter
from tidegate.telemetry.server import TelemetryServer

log = structlog.get_logger(__name__)
STUCK = (
    70  # exit code (EX_SOFTWARE): the supervisor starts the worker again, and another takes the partitions meanwhile
)
_BEAT = 1.0  # seconds
_LAST_STOP = 30.0  # seconds for leaving the group after a failure: longer than the drain, shorter than a pod's grace
_EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (ConfigError, 2),
    (FloodGuardTripped, 65),  # EX_DATAERR: the data is at fault, starting again will not help
    (PipelineAborted, 65),
    (OffsetOutOfRange, 66),  # EX_NOINPUT
)


def exit_code(error: BaseException) -> int:
    """What the process ends with after this error: 2 configuration, 65 data, 66 the log, 1 anything else."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)


class Applied(Protocol):
    """One partition: the last offset that is applied."""

    @property
    def upto(self) -> int: ...


class Partitions(Protocol):
    """What the process has: its partitions, and those that it is opening."""

    @property
    def tasks(self) -> Mapping[TopicPartition, Applied]: ...

    @property
    def opening(self) -> set[TopicPartition]: ...


class Observed(Protocol):
    """What the process tells of itself. `waiting`: partitions held up on purpose → why."""

    metrics: Metrics
    reporter: PrometheusReporter
    waiting: dict[TopicPartition, str]
    on_progress: Callable[[], None]

    def lag(self, tp: TopicPartition, records: int) -> None: ...


class Lifecycle:
    """One per process. `name`: what it calls itself in its last words. `stuck_timeout` in seconds."""

    def __init__(self, name: str, telemetry: Telemetry, observer: Observed, *, stuck_timeout: float) -> None:
        self._name, self._telemetry, self._stuck_timeout = name, telemetry, stuck_timeout
        self._observer = observer
        self.health = Health(SystemClock(), stuck_timeout=self._stuck_timeout)
        self.health.not_ready("starting", "topics and store are being prepared")
        self.health.watch_breakers()
        self.health.check_ready("waiting", self._waiting)
        self._server: TelemetryServer | None = None
        self._beating: asyncio.Task[None] | None = None
        self._ended = threading.Event()
        self._failing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Answer on HTTP, and watch from a thread that no busy loop can hold up."""
        telemetry = self._telemetry
        self._server = TelemetryServer(
            self.health, self._observer.metrics, self._observer.reporter, host=telemetry.host, port=telemetry.port
        )
        self._server.start()
        threading.Thread(target=self._watchdog, name="watchdog", daemon=True).start()

    def watch(self, owner: Partitions, consumer: Any) -> None:
        """The preparations are over: from now on partitions, lag and progress decide."""
        self.health.is_ready("starting")
        self.health.check_ready("partitions", lambda: _partitions(owner))
        self._observer.on_progress = self.health.progress.committed
        self._beating = asyncio.create_task(self._beat(owner, consumer))

    def fail(self, app: Any, error: BaseException) -> None:
        """Stop the process with a non-zero exit code. What was not committed is read again by whoever comes next."""
        if self._failing is None:
            expected = isinstance(error, TidegateError)  # a bug is shown with its traceback
            log.error(f"{self._name}.failed", error=type(error).__name__, exc_info=None if expected else error)
            self._failing = asyncio.create_task(self._end(app, error))

    async def _end(self, app: Any, error: BaseException) -> None:
        """Leave the group in good order, then say last what was wrong: it is what the person looks for.

        The process ends here: Faust's own way out of a crash prints its internals over the reason.
        """
        try:
            async with asyncio.timeout(_LAST_STOP):
                await app.stop()
        except Exception as trouble:
            log.warning(f"{self._name}.stop_failed", error=f"{type(trouble).__name__}: {trouble}")
        finally:
            self.give_up(error)

    def give_up(self, error: BaseException) -> NoReturn:
        """Say why, and end the process at once."""
        sys.stderr.write(f"\n{self._name} stopped: {error}\n")
        sys.stderr.flush()
        os._exit(exit_code(error))

    def stop(self) -> None:
        self._ended.set()
        if self._beating is not None:
            self._beating.cancel()
        if self._server is not None:
            self._server.stop()

    async def _beat(self, owner: Partitions, consumer: Any) -> None:
        while True:
            self.health.beat()
            lag, waiting = 0, True
            for tp in list(owner.tasks):
                behind = _behind(owner, consumer, tp)
                self._observer.lag(tp, behind)
                lag += behind
                waiting &= behind == 0 or tp in self._observer.waiting or tp in owner.opening
            self.health.progress.observe(lag, paused=waiting)
            await asyncio.sleep(_BEAT)

    def _watchdog(self) -> None:
        """A process that is stuck holds its partitions for nothing: it goes, and says why."""
        while not self._ended.wait(_BEAT):
            report = self.health.live()
            reason = report.reasons.get("progress") or report.reasons.get("heartbeat")
            if reason is not None and self._beyond_doubt(report.reasons):
                sys.stderr.write(f"{self._name}.stuck: {reason}; exiting with code {STUCK}\n")
                sys.stderr.flush()
                os._exit(STUCK)

    def _beyond_doubt(self, reasons: Any) -> bool:
        """A silent loop is given the whole stuck timeout, as lack of progress is."""
        if "progress" in reasons:
            return True
        deadline = time.monotonic() + max(0.0, self._stuck_timeout - 30.0)
        while time.monotonic() < deadline and not self._ended.wait(_BEAT):
            if "heartbeat" not in self.health.live().reasons:
                return False
        return not self._ended.is_set()

    def _waiting(self) -> str | None:
        waiting = sorted(self._observer.waiting.items())
        return "; ".join(f"{tp} waits: {reason}" for tp, reason in waiting) or None


def _behind(owner: Partitions, consumer: Any, tp: TopicPartition) -> int:
    """Records that wait, those that were delivered and are not committed included."""
    lag, end = consumer.lag(tp) or 0, consumer.end_offset(tp)
    if not consumer.in_flight(tp):
        return int(lag)
    return max(1, int(lag), (end or 0) - 1 - owner.tasks[tp].upto)


def _partitions(owner: Partitions) -> str | None:
    if owner.opening:
        return f"state is being restored for {', '.join(str(tp) for tp in sorted(owner.opening))}"
    return None if owner.tasks else "no partitions are assigned (yet)"


def quieten_garbage_collection() -> None:
    """Records are many, short-lived and free of cycles: looking through them costs a quarter of the throughput (measured:
    104 000 records/s with Python's defaults, 135 000 without collections)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 20)
