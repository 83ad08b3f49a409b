"""When Spark takes over what the workers have not done."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tidegate.config.base import Millis, Model, Problem, Whole, refuse


class Fallback(Model):
    """When `tidegate batch catchup --watch` takes over from the workers: as soon as one of the conditions holds."""

    mode: Literal["off", "suggest", "auto"] = "off"
    """`suggest` logs the command when it is time, `auto` runs it. By hand `tidegate batch catchup` works with all of them."""
    lag_records: Whole | None = Field(default=1_000_000, ge=1)
    """So many offsets of the source are not applied."""
    lag_seconds: Whole | None = Field(default=None, ge=1)
    """The oldest record that is not applied has been in the topic for so long."""
    worker_down_for: Millis | None = Field(default=120_000)
    """No worker has been in the pipeline's group for so long, and there is work."""
    hold: Millis = Field(default=20_000, ge=1000)
    """How long workers still wait after a catch-up's last sign of life; it gives one four times in this time."""

    @model_validator(mode="after")
    def _conditions(self) -> Fallback:
        if self.mode != "off" and self.lag_records is self.lag_seconds is self.worker_down_for is None:
            refuse(
                Problem(
                    f"mode {self.mode} has no condition",
                    ("mode",),
                    expected="`lagRecords`, `lagSeconds` or `workerDownFor`",
                )
            )
        return self
