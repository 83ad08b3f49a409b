"""What a run is told on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tidegate.config.durations import parse_duration
from tidegate.errors import ConfigError

MAX_RECORDS = 500_000
"""Records of a micro-batch, unless told otherwise: what is collected of one fits into the driver's memory."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """When Spark makes micro-batches. `interval` (ms): it goes on for ever; None: it ends where the log ended at its start."""

    interval: int | None = None
    single: bool = False
    """Everything in one micro-batch, whatever its size."""

    @classmethod
    def parse(cls, text: str) -> Trigger:
        """`availableNow`, `once` or `processingTime=10 seconds`. Raises ConfigError."""
        kind, _, interval = text.partition("=")
        if text == "availableNow":
            return cls()
        if text == "once":
            return cls(single=True)
        if kind == "processingTime":
            try:
                return cls(interval=parse_duration(interval.strip()))
            except ValueError:
                pass
        if kind == "continuous":
            raise ConfigError(
                "Spark's continuous processing runs record by record, and knows no micro-batch: results and offsets of one "
                "could not be one transaction",
                field="--trigger",
                value=text,
                expected='availableNow, once or "processingTime=10 seconds"',
                hint='"processingTime=100 ms" looks for records ten times a second; `tidegate worker` takes them as they come',
            )
        raise ConfigError(
            "no such trigger",
            field="--trigger",
            value=text,
            expected='availableNow, once or "processingTime=10 seconds"',
        )

    @property
    def spark(self) -> dict[str, str | bool]:
        """Arguments of `DataStreamWriter.trigger`."""
        if self.interval is not None:
            return {"processingTime": f"{self.interval} milliseconds"}
        return {"availableNow": True}


@dataclass(frozen=True, slots=True)
class Options:
    """`checkpoint`: where Spark keeps its own account while the run lasts; None: in a temporary directory.

    `master`: None is `local[*]`, or what spark-submit was told.
    """

    trigger: Trigger = Trigger()
    max_records: int = MAX_RECORDS
    checkpoint: Path | None = None
    master: str | None = None

    @property
    def limit(self) -> int | None:
        """Records of one micro-batch; None: no limit."""
        return None if self.trigger.single else self.max_records
