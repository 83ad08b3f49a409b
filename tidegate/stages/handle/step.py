"""What every handler step is, and what it gives back."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from dataclasses import dataclass

import pyarrow as pa

from tidegate.record import Stage, TopicPartition
from tidegate.stages.batch import Reason, Rejection


@dataclass(frozen=True, slots=True)
class Handled:
    """`rows`: what came out, in offset order, with what travels beside. `filtered`: records dropped on purpose."""

    rows: pa.Table
    rejected: list[Rejection]
    filtered: int


class Step(ABC):
    """One handler over one batch. `output_schema` is what comes out of it."""

    output_schema: pa.Schema

    @abstractmethod
    def apply(self, rows: pa.Table, tp: TopicPartition) -> Handled:
        """Raises DependencyError when something outside is away and the retries are spent; nothing is decided then."""

    @abstractmethod
    def close(self) -> None:
        """Give back threads and loops."""


def rejection(offset: int, error: BaseException, attempt: int = 1) -> Rejection:
    """The dead letter's reason for a record that a handler raised for."""
    stack = "".join(traceback.format_exception(error))
    reason = Reason(type(error).__name__, str(error) or "the handler gave no message")
    return Rejection(offset, Stage.HANDLE, (reason,), stack=stack, attempt=attempt)


def refusal(offset: int, message: str, *, field: str | None = None, found: str | None = None) -> Rejection:
    """For a record whose handler gave back what the output's schema does not allow."""
    reason = Reason("HandlerError", message, field=field, found=found)
    return Rejection(offset, Stage.HANDLE, (reason,))
