"""Who may do what: three roles, five rights, and what each route needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Right(StrEnum):
    """`public`: signing in and what the page for it needs, for everybody."""

    PUBLIC = "public"
    VIEW = "view"
    ACT = "act"
    REVEAL = "reveal"
    AUDIT = "audit"


_RIGHTS: dict[str, frozenset[Right]] = {
    "viewer": frozenset({Right.PUBLIC, Right.VIEW}),
    "operator": frozenset({Right.PUBLIC, Right.VIEW, Right.ACT}),
    "admin": frozenset(Right),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `name` stands in the history."""

    name: str
    role: str

    def may(self, right: Right) -> bool:
        return right in _RIGHTS[self.role]


def least_role(right: Right) -> str:
    """The first role that has it."""
    return next(role for role, rights in _RIGHTS.items() if right in rights)


def needs(right: Right) -> Callable[[Endpoint], Endpoint]:
    """Says what an endpoint needs. One that says nothing makes no route (dlq/console/gate.py)."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.needs = right  # type: ignore[attr-defined]  # read by the gate; a function has no such declared attribute
        return endpoint

    return mark
