"""errorHandling.deadLetterQueue: where failed records go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from tidegate.config.base import Flag, Millis, Model, Problem, Shorthand, Whole, refuse
from tidegate.config.kafka import Servers
from tidegate.config.s3 import S3Access
from tidegate.config.schema import Topic

QueueType = Literal["kafka", "s3", "log", "none"]
_TYPES: Final = get_args(QueueType)


class DeadLetterConfig(S3Access):
    """Settings of the dead-letter topic, by the names of Kafka's clients, and of S3, by those of boto3."""

    bootstrap_servers: Servers | None = Field(default=None, alias="bootstrap.servers")
    """Must be the pipeline's own cluster: dead letters are part of the batch's transaction."""
    topic: Topic | None = None
    """Default `{pipelineId}.dlq`."""
    dialect: Literal["connect", "spring", "streams", "none"] = "connect"
    """Whose header names are written besides tidegate's own, for tools that know them."""
    max_value_bytes: Whole = Field(default=900_000, gt=0, alias="maxValueBytes")
    """A larger value is kept truncated, with its length, its SHA-256 and the pointer to the source offset."""
    max_stack_bytes: Whole = Field(default=8192, gt=0, alias="maxStackBytes")
    bucket: str | None = Field(default=None, min_length=3)
    """S3: where the objects go. It must exist."""
    prefix: str = "dead-letters"
    """S3: what the names of the objects begin with, before `/date=…/hour=…/pipeline=…/`."""
    format: Literal["parquet", "json"] = "parquet"
    """S3: `json` is one document per line."""
    partition_by_stage: Flag = Field(default=False, alias="partitionByStage")
    """S3: one folder more, `stage=…`."""
    buffer_records: Whole = Field(default=100, ge=1, le=100_000, alias="bufferRecords")
    """S3: an object is written when so many records of one partition of the topic wait, …"""
    buffer_bytes: Whole = Field(default=8_388_608, ge=1024, le=268_435_456, alias="bufferBytes")
    """… or so many bytes, …"""
    buffer_age: Millis = Field(default=60_000, gt=0, alias="bufferAge")
    """… or the first of them for so long."""


def _one(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Types = Annotated[tuple[QueueType, ...], Field(min_length=1), BeforeValidator(_one), Shorthand({"enum": list(_TYPES)})]


class DeadLetterQueue(Model):
    """Where failed records go: one type, or a list of several. Without a queue (`enabled: false`) the first record that
    fails stops the pipeline; with `none` failed records are counted and thrown away."""

    enabled: Flag = True
    types: Types = Field(default=("kafka",), alias="type")
    """`kafka`: a topic, in the transaction of the results. `s3`: objects in a bucket. `log`: for people. `none`: nowhere."""
    config: DeadLetterConfig = DeadLetterConfig()

    @property
    def takes_records(self) -> bool:
        """Whether a failed record is kept anywhere that can be read back."""
        return self.goes_to("kafka") or self.goes_to("s3")

    def goes_to(self, kind: QueueType) -> bool:
        """Whether dead letters go there, be it among other places."""
        return self.enabled and kind in self.types

    @model_validator(mode="after")
    def _fits_together(self) -> DeadLetterQueue:
        refuse(*self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        config = self.config
        if len(set(self.types)) < len(self.types):
            yield Problem("the same place twice", ("types",), "each once")
        if "none" in self.types and len(self.types) > 1:
            yield Problem("`none` throws away what the others keep", ("types",), "`none` alone, or the others")
        if "s3" in self.types and config.bucket is None:
            yield Problem("is missing, and `type: s3` cannot do without", ("config", "bucket"), "the name of a bucket")
        if "s3" not in self.types and config.bucket is not None:
            types = ", ".join(self.types)
            yield Problem(f"nothing is written to it with `type: {types}`", ("config", "bucket"), "`type` with `s3`")
