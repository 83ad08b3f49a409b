"""What a catch-up says of itself among the runs: it can be watched, and told to hand back, from elsewhere."""

from __future__ import annotations

from batch.catchup.run import CatchupWatch
from batch.runs.recording import Recording
from tidegate.config.pipeline import Pipeline
from tidegate.errors import StoreHeld
from tidegate.store.runs import Runs


class CatchupRecording(Recording):
    """A catch-up's row. All its rounds are one run, whose trigger is `catchup`."""

    def __init__(self, pipeline: Pipeline, watch: CatchupWatch, runs: Runs) -> None:
        super().__init__(pipeline, "catchup", watch, runs)
        self._shown = watch

    def held_by_another(self, error: StoreHeld) -> None:
        self._say(doing=f"waiting: {error}")
        self._shown.held_by_another(error)

    def holding(self) -> None:
        self._say(doing="holding the pipeline: workers wait")
        self._shown.holding()

    def handed_back(self, lag: int | None) -> None:
        self._say(doing="handed back")
        self._shown.handed_back(lag)
