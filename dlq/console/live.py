"""The pipeline's plan, its partitions and its workers, as far as the store and Kafka tell."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from tidegate.clock import Clock
from tidegate.config.pipeline import Pipeline
from tidegate.diagram import outcomes, steps
from tidegate.errors import TidegateError

if TYPE_CHECKING:
    from tidegate.stages.plan import Plan
    from tidegate.store.status import Status

Json = dict[str, Any]
_FRESH = 3.0  # seconds: however many look at it, Kafka and the store are asked once in this time
_MOMENT = 0.1  # seconds that a page which is about something else waits for Kafka


@dataclass(slots=True)
class Live:
    """One pipeline's plan and counters. Safe under threads. `answer`: seconds that Kafka has for each answer."""

    pipeline: Pipeline
    clock: Clock
    answer: float = 3.0
    _asking: threading.Lock = field(default_factory=threading.Lock)
    _asking_workers: threading.Lock = field(default_factory=threading.Lock)
    _found: Json | None = None
    _until: float = 0.0
    _workers: Json | None = None
    _workers_until: float = 0.0
    _looking: threading.Thread | None = None

    def document(self) -> Json:
        """Nothing is raised for what is away or wrong: `problems` says it."""
        with self._asking:
            if self._found is None or self.clock.monotonic() >= self._until:
                self._found = self._ask()
                self._until = self.clock.monotonic() + _FRESH
            return self._found

    def workers(self) -> Json | None:
        """Who works on the pipeline, as it was last heard; None: unknown. Nobody waits longer than a moment for it."""
        if self.pipeline.missing_to_run:
            return None
        with self._asking_workers:
            looking = self._looking if self._looking is not None and self._looking.is_alive() else None
            if looking is None and self.clock.monotonic() >= self._workers_until:
                looking = self._looking = threading.Thread(target=self._look_for_workers, name="workers", daemon=True)
                looking.start()
        if looking is not None and self._workers is None:
            looking.join(_MOMENT)
        return self._workers

    def _look_for_workers(self) -> None:
        self._workers = self._group([])
        self._workers_until = self.clock.monotonic() + _FRESH

    def _ask(self) -> Json:
        problems: list[str] = []
        plan = self._plan(problems)
        status = None if plan is None else self._status(problems)
        group = None if plan is None else self._group(problems)
        return {
            "pipeline": self.pipeline.pipeline_id,
            "missing": list(self.pipeline.missing_to_run),
            "stages": [
                {"stage": step.stage.value, "does": list(step.does), "leaving": step.leaving}
                for step in steps(self.pipeline, plan)
            ],
            "outcomes": outcomes(self.pipeline),
            "source": None if status is None else status.source,
            "partitions": [] if status is None else status.partitions,
            "group": group,
            "problems": list(dict.fromkeys(problems)),
        }

    def _plan(self, problems: list[str]) -> Plan | None:
        """None for a pipeline that cannot run."""
        from tidegate.stages.plan import compile_plan  # brings the stages with it

        if self.pipeline.missing_to_run:
            return None
        try:
            return compile_plan(self.pipeline)
        except TidegateError as error:
            problems.append(str(error))
            return None

    def _status(self, problems: list[str]) -> Status | None:
        from tidegate.store.reading import TopicReader
        from tidegate.store.status import read_status, stored_status

        try:
            with TopicReader(self.pipeline.kafka, self.pipeline.pipeline_id, answer=self.answer) as reader:
                return read_status(self.pipeline, reader)
        except TidegateError as error:
            problems.append(str(error))
        try:
            return stored_status(self.pipeline)
        except TidegateError as error:
            problems.append(str(error))
            return None

    def _group(self, problems: list[str]) -> Json | None:
        from tidegate.store.group import read_group

        if problems:  # Kafka is away, or has not the topic: one reason is enough
            return None
        try:
            return asdict(read_group(self.pipeline, self.answer))
        except TidegateError as error:
            problems.append(str(error))
            return None


def _live(request: Request) -> Live:
    live: Live = request.app.state.live
    return live


TheLive = Annotated[Live, Depends(_live)]
"""For routes that need no index."""
