"""The base of every model in the pipeline file, and the scalar types: durations, secrets."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel

from tidegate.config.durations import format_duration, parse_duration


class Model(BaseModel):
    """camelCase in files, snake_case accepted; unknown fields are errors; values never change."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )


# A length of time, held in milliseconds. "10 minutes", "500 ms", "PT10M"; a bare number is refused.
Millis = Annotated[int, BeforeValidator(parse_duration), PlainSerializer(format_duration, when_used="json")]
