"""What the API answers of the pipeline itself."""

from __future__ import annotations

from dlq.console.api import shapes
from dlq.console.api.shapes import Shape


class Step(Shape):
    """A stage. `does`: nothing, where every record passes. `leaving`: what a record that does not pass becomes."""

    stage: str
    does: list[str]
    leaving: str | None


class Partition(Shape):
    """As `tidegate status --json` has it. Offsets; null: not known. `note`: why nobody reads it any more."""

    topic: str
    partition: int
    committed: int | None
    upto: int | None
    end: int | None
    lag: int | None
    watermark: str | None
    idle: bool
    open_windows: int | None
    late_missing: int | None
    late_refused: int | None
    late_amended: int | None
    late_expired: int | None
    epoch: int | None
    owner: str | None
    note: str | None


class Member(Shape):
    client: str
    host: str
    partitions: int


class WorkerGroup(Shape):
    """The workers, as Kafka knows them."""

    state: str
    members: list[Member]


class PipelineLive(Shape):
    """`source`: where the partitions were read. `missing`: what the file lacks to run a pipeline."""

    pipeline: str
    missing: list[str]
    stages: list[Step]
    outcomes: dict[str, str]
    source: str | None
    partitions: list[Partition]
    group: WorkerGroup | None
    problems: list[str]


class Overview(Shape):
    """`workers`: null when Kafka does not say, or not in time."""

    letters: int
    open: int
    oldest_open: str | None
    groups: dict[str, int]
    stages: dict[str, dict[str, int]]
    topics: list[shapes.Topic]
    expiring: list[shapes.Expiring]
    top: list[shapes.GroupWithBars]
    rates: list[shapes.Bar]
    agent: shapes.Agent
    jobs: dict[str, int]
    workers: WorkerGroup | None
