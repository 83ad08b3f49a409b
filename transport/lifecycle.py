"""Is the process alive, is it at work, and how does it end: health, metrics over HTTP, the watchdog, the exit code.

The worker and the agent of dead letters live by it: what they have in common is partitions, and progress on them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

import structlog

from tidegate.clock import Deadline, SystemClock
from tidegate.config.loading import placed
from tidegate.config.pipeline import Telemetry, Worker
from tidegate.errors import ConfigError, FloodGuardTripped, OffsetOutOfRange, PipelineAborted, TidegateError
from tidegate.farewell import end
from tidegate.record import TopicPartition
from tidegate.telemetry.health import Health
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.prometheus import PrometheusReporter
from tidegate.telemetry.server import TelemetryServer
from transport.ending import GRACE, Ending

log = structlog.get_logger(__name__)
STUCK = (
    70  # exit code (EX_SOFTWARE): the supervisor starts the worker again, and another takes the partitions meanwhile
)
_BEAT = 1.0  # seconds
_HEARD = 30.0  # seconds; a broker that has answered nothing for so long is away, and its records hold nobody up
_EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (ConfigError, 2),
    (FloodGuardTripped, 65),  # EX_DATAERR: the data is at fault, starting again will not help
    (PipelineAborted, 65),
    (OffsetOutOfRange, 66),  # EX_NOINPUT
)


def exit_code(error: BaseException) -> int:
    """What the process ends with after this error: 2 configuration, 65 data, 66 the log, 1 anything else."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)


class Work(Protocol):
    """One partition: the last offset that is applied, a number that grows with every step, and what it is at, in words."""

    @property
    def tp(self) -> TopicPartition: ...

    @property
    def upto(self) -> int: ...

    @property
    def steps(self) -> int: ...

    @property
    def doing(self) -> str: ...


class Partitions(Protocol):
    """What the process has: its partitions, those that it is opening, and those that it has given up while a call of
    theirs still runs."""

    @property
    def tasks(self) -> Mapping[TopicPartition, Work]: ...

    @property
    def opening(self) -> set[TopicPartition]: ...

    @property
    def left_behind(self) -> Collection[Work]: ...


class Observed(Protocol):
    """What the process tells of itself. `waiting`: partitions held up on purpose → why."""

    metrics: Metrics
    reporter: PrometheusReporter
    waiting: dict[TopicPartition, str]

    def lag(self, tp: TopicPartition, records: int) -> None: ...


class Lifecycle:
    """One per process. `name`: what it calls itself in its last words. `file`: the pipeline file, where there is one; they name
    it, and the line of what is wrong in it."""

    file: Path | None = None

    def __init__(self, name: str, telemetry: Telemetry, observer: Observed, limits: Worker) -> None:
        self._name, self._telemetry, self._observer = name, telemetry, observer
        self._stuck_timeout, self._drain_timeout = limits.stuck_timeout / 1000, limits.drain_timeout / 1000
        self.health = Health(SystemClock(), stuck_timeout=self._stuck_timeout)
        self.health.not_ready("starting", "topics and store are being prepared")
        self.health.watch_breakers()
        self.health.check_ready("waiting", self._waiting)
        self._owner: Partitions | None = None
        self._beating: asyncio.Task[None] | None = None
        self._ended = threading.Event()
        self._failing: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._ending = Ending(self._drain_timeout, self._say_that_it_ends, self._overdue)

    def start(self) -> None:
        """Answer on HTTP until the process is gone, and watch from threads that no busy loop can hold up."""
        telemetry = self._telemetry
        TelemetryServer(
            self.health, self._observer.metrics, self._observer.reporter, host=telemetry.host, port=telemetry.port
        ).start()
        threading.Thread(target=self._watchdog, name="watchdog", daemon=True).start()
        self._ending.watch_signals()

    def watch(self, owner: Partitions, consumer: Any) -> None:
        """The preparations are over: from now on partitions, lag and progress decide."""
        self._owner = owner
        self.health.is_ready("starting")
        self.health.check_ready("partitions", lambda: _partitions(owner))
        self._beating = asyncio.create_task(self._beat(owner, consumer))

    # The end

    def begin_to_end(self) -> Deadline:
        """The process is to end; what is in hand may be finished until the deadline."""
        return self._ending.begin()

    def fail(self, app: Any, error: BaseException) -> None:
        """Stop the process with a non-zero exit code. What was not committed is read again by whoever comes next."""
        if self._failing is None:
            self._error = error
            expected = isinstance(error, TidegateError)  # a bug is shown with its traceback
            log.error(f"{self._name}.failed", error=type(error).__name__, exc_info=None if expected else error)
            self._failing = asyncio.create_task(self._end(app, error))

    async def _end(self, app: Any, error: BaseException) -> None:
        """Leave the group in good order, then say last what was wrong: it is what the person looks for.

        The process ends here: Faust's own way out of a crash prints its internals over the reason.
        """
        try:
            await app.stop()
        except Exception as trouble:
            log.warning(f"{self._name}.stop_failed", error=f"{type(trouble).__name__}: {trouble}")
        finally:
            self.give_up(error)

    def give_up(self, error: BaseException) -> NoReturn:
        """Say why, and end the process at once."""
        end(exit_code(error), f"\n{self._last_words(error)}")

    def _last_words(self, error: BaseException) -> str:
        if self.file is not None and isinstance(error, ConfigError):
            error = placed(error, self.file)
        return f"{self._name} stopped: {error}\n"

    def stopped(self, code: int) -> None:
        """All is closed that could be. A call that still runs would hold the process up when Python waits for its threads."""
        self._ended.set()
        if self._beating is not None:
            self._beating.cancel()
        if self._error is None and self._owner is not None and self._owner.left_behind:
            self._end_unfinished(f"worker.drainTimeout ({self._drain_timeout:g} s) is over")
        self._ending.close(code)

    def _say_that_it_ends(self) -> None:
        self.health.not_ready("stopping", "the process ends: what is in hand is finished, nothing new is begun")
        log.info(f"{self._name}.stopping", seconds=self._drain_timeout)

    def _overdue(self) -> None:
        self._end_unfinished(f"not within worker.drainTimeout ({self._drain_timeout:g} s) and {GRACE:g} s more")

    def _end_unfinished(self, why: str) -> NoReturn:
        """The last resort: say what is unfinished, and with what the process would have ended."""
        doing = "; ".join(_doing(self._owner)) or "partitions are let go of; the broker's answers are waited for"
        end(
            STUCK if self._error is None else exit_code(self._error),
            f"\n{self._name} ended before it had finished, {why}: {doing}. What was not committed is read again.\n"
            + (self._last_words(self._error) if self._error is not None else ""),
        )

    # Alive, and at work

    async def _beat(self, owner: Partitions, consumer: Any) -> None:
        while True:
            self.health.beat()
            self.health.progress.observe(self._work(owner, consumer))
            await asyncio.sleep(_BEAT)

    def _work(self, owner: Partitions, consumer: Any) -> dict[str, int]:
        """Every partition that has something to do and does not wait on purpose → steps done."""
        work = {f"{task.tp} (given up)": task.steps for task in owner.left_behind}
        if owner.tasks and consumer.flow_active and not self._observer.waiting:
            work["fetching"] = consumer.rounds
        silent = consumer.silent_for
        answers = silent is not None and silent < _HEARD
        for tp in owner.tasks.keys() | owner.opening:
            task, opening = owner.tasks.get(tp), tp in owner.opening or consumer.is_opening(tp)
            behind = _behind(task, consumer, tp) if task is not None else 0
            self._observer.lag(tp, behind)
            has_work = opening or consumer.in_flight(tp) or (behind and answers)
            if has_work and tp not in self._observer.waiting:
                work[str(tp)] = task.steps if task is not None else 0
        return work

    def _watchdog(self) -> None:
        """A process that is stuck holds its partitions for nothing: it goes, and says why."""
        while not self._ended.wait(_BEAT):
            report = self.health.live()
            reason = report.reasons.get("progress") or report.reasons.get("heartbeat")
            if reason is not None and self._beyond_doubt(report.reasons):
                doing = "; ".join(_doing(self._owner))
                end(STUCK, f"{self._name}.stuck: {reason}; exiting with code {STUCK}. At work: {doing or 'nothing'}\n")

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


def _doing(owner: Partitions | None) -> Iterator[str]:
    """What every partition is at, in words, the given up ones included."""
    if owner is not None:
        yield from (f"{task.tp}: {task.doing}" for task in [*owner.tasks.values(), *owner.left_behind])


def _behind(task: Work, consumer: Any, tp: TopicPartition) -> int:
    """Records that wait, those that were delivered and are not committed included."""
    lag, end_offset = consumer.lag(tp) or 0, consumer.end_offset(tp)
    if not consumer.in_flight(tp):
        return int(lag)
    return max(1, int(lag), (end_offset or 0) - 1 - task.upto)


def _partitions(owner: Partitions) -> str | None:
    if owner.opening:
        return f"state is being restored for {', '.join(str(tp) for tp in sorted(owner.opening))}"
    return None if owner.tasks else "no partitions are assigned (yet)"
