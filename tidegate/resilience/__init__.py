"""Calls to the outside: retried, broken off, timed out. `Guard` is all that most callers need."""

from tidegate.resilience.breaker import BreakerSnapshot, CircuitBreaker, Permit
from tidegate.resilience.guard import Guard
from tidegate.resilience.listener import BreakerState, CallOutcome, Listener, RetryKind
from tidegate.resilience.registry import PROCESS, Registry, breakers
from tidegate.resilience.retry import RetryPolicy
from tidegate.resilience.transient import is_transient

__all__ = [
    "PROCESS",
    "BreakerSnapshot",
    "BreakerState",
    "CallOutcome",
    "CircuitBreaker",
    "Guard",
    "Listener",
    "Permit",
    "Registry",
    "RetryKind",
    "RetryPolicy",
    "breakers",
    "is_transient",
]
