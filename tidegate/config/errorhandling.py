"""errorHandling: retries, circuit breaker, dead-letter queue, flood guard. The user's own JSON works as it stands."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tidegate.config.base import Flag, Millis, Model, Number, Problem, Whole, refuse
from tidegate.config.queue import DeadLetterQueue

Delay = Annotated[Millis, Field(gt=0)]


class Retry(Model):
    """How a failing call is tried again."""

    strategy: Literal["exponential-backoff", "fixed-delay", "none"] = "exponential-backoff"
    max_attempts: Whole = Field(default=5, ge=1)
    """Calls in all, the first one included."""
    initial_delay_ms: Whole = Field(default=1000, ge=0)
    max_delay_ms: Whole = Field(default=60_000, ge=0)
    backoff_multiplier: Number = Field(default=2.0, ge=1.0)
    jitter: Flag = True
    """Waits are 50 to 100 % of the delay."""
    delay_seconds: Number | None = Field(default=None, ge=0)
    """For fixed-delay: the wait between attempts (default: `initialDelayMs`). Alone it means fixed-delay."""
    max_total_ms: Whole | None = Field(default=None, gt=0)
    """No new attempt is started that could not begin within this time of the first."""
    attempt_timeout_ms: Whole | None = Field(default=None, gt=0)
    """How long one attempt may take."""

    @model_validator(mode="before")
    @classmethod
    def _older_form(cls, value: Any) -> Any:
        if (
            isinstance(value, dict)
            and "strategy" not in value
            and ("delaySeconds" in value or "delay_seconds" in value)
        ):
            return {"strategy": "fixed-delay", **value}
        return value

    @model_validator(mode="after")
    def _delay_is_used(self) -> Retry:
        if self.delay_seconds is not None and self.strategy != "fixed-delay":
            refuse(
                Problem(
                    f"`{self.strategy}` has no fixed delay",
                    ("delay_seconds",),
                    "`strategy: fixed-delay`, or `initialDelayMs`",
                )
            )
        return self


class CircuitBreaker(Model):
    """One breaker per dependency."""

    enabled: Flag = True
    failure_threshold: Whole = Field(default=5, ge=1)
    """Failures in a row that open it."""
    reset_timeout_seconds: Number = Field(default=60, gt=0)
    """How long it stays open before a call may try again."""
    half_open_max_attempts: Whole = Field(default=1, ge=1)
    """Calls at once that may try while it is half-open."""


class RetryTopics(Model):
    """Delayed retries: a record that fails waits in a topic and goes back to its source topic, and so on down the ladder;
    after the last delay it is a dead letter. `tidegate dlq agent` sends back what is due."""

    delays: tuple[Delay, ...] = ()
    """Such as `[10 seconds, 1 minute, 10 minutes]`. Default: none, so that what fails is a dead letter at once."""
    stages: tuple[Literal["handle", "aggregate", "sink"], ...] = ("handle",)
    """What is worth trying again: failures of these stages. Malformed records and broken rules stay as they are."""
    keep_order: Flag = False
    """Later records of a key wait behind the one that failed. Handlers get one record of a key at a time then."""

    @model_validator(mode="after")
    def _order_of_handlers(self) -> RetryTopics:
        if self.keep_order and not self.delays:
            refuse(Problem("there is no order to keep without delays", ("keep_order",), "`delays`, or no `keepOrder`"))
        if self.keep_order and self.stages != ("handle",):
            refuse(
                Problem(
                    "the order of a key is kept where handlers refuse: when a sink or an aggregation does, later records have "
                    "been handled already",
                    ("stages",),
                    "`[handle]`, or no `keepOrder`",
                )
            )
        return self

    @model_validator(mode="after")
    def _different(self) -> RetryTopics:
        if len(set(self.delays)) < len(self.delays):
            refuse(Problem("the same delay twice", ("delays",), "each once, since each has a topic of its own"))
        return self


class FloodGuard(Model):
    """Stops the worker, offsets unmoved, when too much is dead-lettered."""

    enabled: Flag = True
    max_ratio: Number = Field(default=0.5, gt=0, le=1)
    """The share of records that may fail."""
    window: Whole = Field(default=1000, ge=1)
    """The ratio is taken over this many records of one partition; fewer never trip it."""
    max_consecutive: Whole | None = Field(default=None, ge=1)
    """So many failures in a row trip it."""


class ErrorHandling(Model):
    """The user's errorHandling block."""

    retry: Retry = Retry()
    circuit_breaker: CircuitBreaker = CircuitBreaker()
    dead_letter_queue: DeadLetterQueue = DeadLetterQueue()
    retry_topics: RetryTopics = RetryTopics()
    flood_guard: FloodGuard = FloodGuard()
