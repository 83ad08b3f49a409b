"""Health: is the process alive (else restart it), and is it ready (else it is not at work, and here is why).

Alive means that the loop has beaten lately and that work moves on. An outage elsewhere never makes a process dead: a
restart does not mend a database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tidegate.clock import Clock
from tidegate.resilience import PROCESS, BreakerState, Registry

Check = Callable[[], str | None]
"""None: fine. Else the reason why not, for a person."""

HEARTBEAT_TIMEOUT = 30.0  # seconds; one batch at the size limit on a slow machine takes about a second of the loop


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of /live or /ready: fine if there are no reasons. `reasons`: name of the check → why it fails."""

    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def fine(self) -> bool:
        return not self.reasons

    @property
    def status(self) -> str:
        return "ok" if self.fine else "unavailable"


class Progress:
    """Tells what is stuck from what is idle or held up on purpose: there is work, and no step forward for `timeout` s.

    Every piece of work (a partition) has a clock of its own: one that is stuck is noticed while the others move on.
    """

    def __init__(self, clock: Clock, timeout: float) -> None:
        self._clock, self._timeout = clock, timeout
        self._since: dict[str, tuple[int, float]] = {}  # work → steps done, and when the last of them was seen

    def observe(self, work: Mapping[str, int]) -> None:
        """What there is to do now, and how many steps of each have been done. Idle or paused work is left out."""
        now, before = self._clock.monotonic(), self._since
        self._since = {
            name: before[name] if name in before and before[name][0] == steps else (steps, now)
            for name, steps in work.items()
        }

    @property
    def stuck(self) -> dict[str, float]:
        """What has not moved for the timeout, and for how many seconds: the process should exit, so that another can have
        its partitions."""
        now = self._clock.monotonic()
        waited = {name: now - since for name, (_, since) in self._since.items()}
        return {name: seconds for name, seconds in waited.items() if seconds >= self._timeout}

    def check(self) -> str | None:
        """The reason for /live."""
        stuck = [f"{name} has not moved for {seconds:.0f} s" for name, seconds in sorted(self.stuck.items())]
        return f"{'; '.join(stuck)}, although there is work and nothing is paused" if stuck else None


class Health:
    """Named checks and conditions. Safe under threads.

    A condition is what the worker knows by itself (`not_ready("restoring", "…")`, later `is_ready("restoring")`); a
    check is asked.
    """

    def __init__(self, clock: Clock, *, stuck_timeout: float, heartbeat_timeout: float = HEARTBEAT_TIMEOUT) -> None:
        """Timeouts in seconds. Until the first beat the process is alive: it is starting."""
        self._clock = clock
        self._heartbeat_timeout = heartbeat_timeout
        self._beaten: float | None = None
        self._conditions: dict[str, str] = {}
        self.progress = Progress(clock, stuck_timeout)
        self._live: dict[str, Check] = {"heartbeat": self._heartbeat, "progress": self.progress.check}
        self._ready: dict[str, Check] = {}

    def beat(self) -> None:
        """The process's loop is turning. Call it about once a second, from the loop itself."""
        self._beaten = self._clock.monotonic()

    def not_ready(self, name: str, reason: str) -> None:
        """From now on /ready says `reason`, until `is_ready(name)`."""
        self._conditions[name] = reason

    def is_ready(self, name: str) -> None:
        """The condition is over."""
        self._conditions.pop(name, None)

    def check_ready(self, name: str, check: Check) -> None:
        """Ask `check` for /ready, too."""
        self._ready[name] = check

    def watch_breakers(self, registry: Registry = PROCESS) -> None:
        """Not ready while a breaker is open: its dependency is away, and records wait."""
        self.check_ready("breakers", lambda: _open_breakers(registry))

    def live(self) -> Report:
        """Whether the process should go on running."""
        return Report(_ask(self._live))

    def ready(self) -> Report:
        """Whether the process is at work. What is not alive is not ready."""
        return Report({**_ask(self._live), **dict(self._conditions), **_ask(self._ready)})

    def _heartbeat(self) -> str | None:
        if self._beaten is None:
            return None
        age = self._clock.monotonic() - self._beaten
        return None if age < self._heartbeat_timeout else f"the process's loop has not turned for {age:.0f} s"


def _ask(checks: Mapping[str, Check]) -> dict[str, str]:
    """The reasons of the checks that fail. A check that raises fails, with its error as the reason."""
    reasons = {}
    for name, check in list(checks.items()):
        try:
            reason = check()
        except Exception as error:
            reason = f"the check itself failed: {type(error).__name__}: {error}"
        if reason is not None:
            reasons[name] = reason
    return reasons


def _open_breakers(registry: Registry) -> str | None:
    away = [seen for breaker in registry.breakers() if (seen := breaker.snapshot()).state is BreakerState.OPEN]
    return "; ".join(f"'{seen.name}' is open, next try in {seen.retry_after_ms} ms" for seen in away) or None
