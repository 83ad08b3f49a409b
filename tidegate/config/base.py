"""The base of every model in the pipeline file, the durations, and how a model says what is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from tidegate.config.durations import format_duration, parse_duration

# The validation context of a pipeline file: there a bare number is no duration. Code may give milliseconds.
FROM_FILE: Final[dict[str, bool]] = {"from_file": True}

# Milliseconds whose microseconds still fit into 64 bits (DuckDB's and Arrow's timestamps).
_LONGEST = 9_000_000_000_000_000


class FromOutside(str):
    """Text that `${…}` stood for. Outside there is only text, so it may be a number or a boolean where one is expected."""

    __slots__ = ()


class Model(BaseModel):
    """camelCase in files, snake_case accepted; unknown fields are errors; values never change."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # a validation error in code must not print a password either
        allow_inf_nan=False,
    )


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong across fields. `at`: the field, from the model that found it, in Python's names."""

    message: str
    at: tuple[str | int, ...] = ()
    expected: str | None = None
    hint: str | None = None


def refuse(*problems: Problem) -> None:
    """Raise one validation error that carries all of `problems`; with none, do nothing."""
    if problems:
        text = "; ".join(f"{problem.message} (expected: {problem.expected})" for problem in problems)
        raise PydanticCustomError("problems", "{text}", {"text": text, "problems": problems})


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was probably meant to be, or None. Case, `-` and `_` count for nothing."""
    by_key = {_bare(choice): choice for choice in choices}
    close = difflib.get_close_matches(_bare(word), by_key, n=1, cutoff=0.6)
    return by_key[close[0]] if close else None


def did_you_mean(word: str, choices: Sequence[str]) -> str | None:
    """The hint for a misspelt name: `did you mean 'size'?`, or None when nothing is near."""
    near = nearest(word, choices)
    return None if near is None else f"did you mean '{near}'?"


@dataclass(frozen=True, slots=True)
class Shorthand:
    """In the JSON Schema: a bare string, described by `schema`, may stand for the whole object."""

    schema: dict[str, Any]

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", **self.schema}, handler(core)]}


def _bare(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def _duration(value: Any, info: ValidationInfo) -> int:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and info.context and info.context.get("from_file"):
        hint = f'write "{value} ms" or "{value} seconds"'
        refuse(Problem("a duration needs a unit", (), 'such as "10 minutes" or "PT10M"', hint))
    return parse_duration(value)


# Marks a duration, for the JSON Schema and the reference.
DURATION: Final = WithJsonSchema({"type": "string", "title": "Duration", "examples": ["10 minutes", "500 ms", "PT10M"]})

# A length of time, held in milliseconds. "10 minutes", "500 ms", "PT10M"; a bare number only from code.
Millis = Annotated[
    int,
    Field(ge=0, le=_LONGEST),
    BeforeValidator(_duration),
    PlainSerializer(format_duration, when_used="json"),
    DURATION,
]

_WORDS: Final[dict[type, str]] = {bool: "true or false", int: "a whole number", float: "a number"}
_BOOLEANS: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def _as_written(kind: type) -> Callable[[Any], Any]:
    """Text is no number and no boolean, and neither is the other: pydantic would read "yes" as true, and true as 1."""

    def check(value: Any) -> Any:
        is_boolean, is_text = isinstance(value, bool), isinstance(value, str) and not isinstance(value, FromOutside)
        is_number = isinstance(value, int | float) and not is_boolean
        if is_text or (is_number if kind is bool else is_boolean):
            refuse(Problem("wrong type", (), _WORDS[kind], _meant(value, kind)))
        return value

    return check


def _meant(value: str | float, kind: type) -> str | None:
    """The hint for a value of the wrong type."""
    text = str(value).strip()
    if kind is bool:
        meant = _BOOLEANS.get(text.lower())
        return None if meant is None else f"write {str(meant).lower()}, without quotes"
    return f"write {text}, without quotes" if text.replace(".", "", 1).isdecimal() else None


# What the file must write as such: pydantic's own types take text for it, and 1 for true.
Flag = Annotated[bool, BeforeValidator(_as_written(bool))]
Whole = Annotated[int, BeforeValidator(_as_written(int))]
Number = Annotated[float, BeforeValidator(_as_written(float))]
