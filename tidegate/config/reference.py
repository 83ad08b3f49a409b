"""docs/configuration.md, rendered from the models: `python -m tidegate.config.reference` writes it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tidegate.config.base import DURATION, Model
from tidegate.config.durations import format_duration
from tidegate.config.fields import alias_of, members_of, tags_of
from tidegate.config.pipeline import Pipeline
from tidegate.config.schema import Column, Item

PAGE: Final = Path("docs/configuration.md")

_INTRODUCTION: Final = """\
# The pipeline file

One YAML or JSON file per pipeline. `tidegate init` writes a commented example, `tidegate check FILE` says everything
that is wrong with a file and draws its plan, `tidegate schema` prints the JSON Schema for editors.

- Names are camelCase; snake_case is accepted. A name that is not listed here is an error.
- `${NAME}`, `${NAME:-default}` and `${file:/path}` are replaced in every text; `$${` is a plain `${`. A relative path
  starts where the pipeline file is. Such values, and all fields of type *secret*, appear in no message and no log.
- A *duration* is `10 minutes`, `1 hour 30 minutes`, `500 ms` or ISO 8601 (`PT10M`). A bare number is refused.
- YAML is read as version 1.2: `NO` is text, and so is `2013-01-01`. A field that is written twice is an error.

*This page is rendered from the models by `python -m tidegate.config.reference`.*
"""

_BAR: Final = "\\|"  # a bar within a cell
_WORDS: Final = {str: "text", int: "integer", float: "number", bool: "boolean", SecretStr: "secret"}


def render() -> str:
    """The whole page."""
    sections = [_section(model) for model in models_below(Pipeline)]
    return "\n".join([_INTRODUCTION, *sections])


def models_below(root: type[Model]) -> list[type[Model]]:
    """`root` and every model that a field below it can hold, in the order in which a reader meets them."""
    found: list[type[Model]] = []

    def visit(model: type[Model]) -> None:
        if model not in found:
            found.append(model)
            for field in model.model_fields.values():
                for below in _models(field.annotation):
                    visit(below)

    visit(root)
    return found


def _models(annotation: Any) -> Iterator[type[Model]]:
    for member in members_of(annotation):
        if isinstance(member, type) and issubclass(member, Model):
            yield _described(member)
        elif get_origin(member) in (tuple, dict):
            yield from _models(get_args(member)[-1 if get_origin(member) is dict else 0])


def _described(model: type[Model]) -> type[Model]:
    """What an array holds is a column that needs no name: one table for both."""
    return Column if model is Item else model


def _section(model: type[Model]) -> str:
    lines = [f"## {model.__name__}", ""]
    text = inspect.getdoc(model) if model.__doc__ else None
    if text:
        lines += [" ".join(text.split()), ""]
    lines += ["| field | type | default | |", "|---|---|---|---|"]
    lines += [_row(model, name, field) for name, field in model.model_fields.items()]
    return "\n".join(lines) + "\n"


def _row(model: type[Model], name: str, field: FieldInfo) -> str:
    is_duration = DURATION in field.metadata or _is_duration(field.annotation)
    cells = (
        f"`{alias_of(model, name)}`",
        "duration" if is_duration else _type(field.annotation),
        _default(field, is_duration),
        " ".join((field.description or "").split()),
    )
    return f"| {' | '.join(cell.replace('|', _BAR) for cell in cells)} |"


def _is_duration(annotation: Any) -> bool:
    """Whether `Millis` stands in the annotation, also behind `| None`."""
    inside = get_args(annotation)
    return DURATION in inside or any(_is_duration(each) for each in inside if get_args(each))


def _default(field: FieldInfo, is_duration: bool) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        return "*required*"
    if default is None:
        return "–"
    if isinstance(default, Model):
        return "as there"
    if is_duration:
        return f"`{format_duration(default)}`"
    return f"`{json.dumps(list(default) if isinstance(default, tuple) else default, ensure_ascii=False)}`"


def _type(annotation: Any) -> str:
    return " or ".join(dict.fromkeys(_word(member) for member in members_of(annotation) if member is not NoneType))


def _word(member: Any) -> str:
    origin, args = get_origin(member), get_args(member)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin is tuple:
        return f"list of {_type(args[0])}"
    if origin is dict:
        return f"mapping of names to {_type(args[1])}"
    if isinstance(member, type) and issubclass(member, Model):
        name, tag = _described(member).__name__, tags_of(member)
        return f"[{name}](#{name.lower()})" + (f" (`{tag[0]}`)" if len(tag) == 1 else "")
    return _WORDS[member]


def main() -> None:
    """Write the page, from the root of the repository."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
