"""From where pydantic found an error to where the user wrote it: the field's path, its type, its line."""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import SecretStr

from tidegate.config.base import Model

Path = tuple[str | int, ...]

_PLAIN: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")


@dataclass(frozen=True, slots=True)
class Place:
    """One field of the file.

    `path` has the names as the reference spells them (camelCase), `keys` as the user did; `annotation` is the type that
    was expected, None where the models know no such field. `owner` is the model that holds it.
    """

    path: Path
    keys: Path
    annotation: Any
    owner: type[Model] | None

    def __str__(self) -> str:
        return dotted(self.path)


def dotted(path: Path) -> str:
    """`aggregations[0].window.size`; names with other characters in brackets: `config["bootstrap.servers"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


def locate(root: type[Model], data: Any, location: Path) -> Place:
    """The field that pydantic means by `location`, which also holds the tags and members of unions."""
    path: list[str | int] = []
    keys: list[str | int] = []
    annotation: Any = root
    owner: type[Model] | None = None
    for part in location:
        annotation = _chosen(annotation, part, data)
        if isinstance(annotation, _Tag):
            annotation = annotation.member
            continue
        model = _model(annotation)
        if model is not None and isinstance(part, str):
            name = field_named(model, part)
            owner, annotation = model, model.model_fields[name].annotation if name else None
            if isinstance(data, str):
                continue  # a shorthand: the string stands for the object, and the path ends there
            written = _written(data, part, model, name)
            path.append(alias_of(model, name) if name else part)
            keys.append(written)
            data = data.get(written) if isinstance(data, Mapping) else None
            continue
        inner = _inner(annotation)
        if inner is None or part == "[key]":
            continue
        owner, annotation = None, inner
        path.append(part)
        keys.append(part)
        data = _element(data, part)
    return Place(tuple(path), tuple(keys), annotation, owner)


@dataclass(frozen=True, slots=True)
class _Tag:
    member: Any


def _chosen(annotation: Any, part: str | int, data: Any) -> Any:
    """Step through `Optional` and unions: a part that names a member (by tag or type) is no field of its own."""
    members = members_of(annotation)
    if len(members) == 1:
        return members[0]
    models = [model for member in members if (model := _model(member)) is not None]
    if not models:
        return _Tag(annotation) if isinstance(part, str) else annotation
    for model in models:
        if part in tags_of(model):
            return _Tag(model)
    # Our own problems come without tags: the file says which member is meant, else the first that has the field.
    written = data.get("type") if isinstance(data, Mapping) else None
    meant = [model for model in models if written in tags_of(model)]
    having = [model for model in models if field_named(model, str(part))]
    return next(iter([*meant, *having]), annotation)


def members_of(annotation: Any) -> list[Any]:
    """The members of a union without None; of anything else itself."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for arg in get_args(annotation) if arg is not type(None) for member in members_of(arg)]
    return [annotation]


def tags_of(model: type[Model]) -> tuple[str, ...]:
    """The values of a model's `type` field, where that tells it from its siblings."""
    field = model.model_fields.get("type")
    return get_args(field.annotation) if field is not None and get_origin(field.annotation) is Literal else ()


def _model(annotation: Any) -> type[Model] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Model) else None


def _inner(annotation: Any) -> Any:
    """The type of a tuple's items or of a mapping's values; None for scalars."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is tuple:
        return args[0]
    return args[1] if origin is dict else None


def alias_of(model: type[Model], name: str) -> str:
    """A field's name in files."""
    return model.model_fields[name].alias or name


def field_named(model: type[Model], word: str) -> str | None:
    """The field of `model` that `word` names, in either spelling."""
    if word in model.model_fields:
        return word
    return next((name for name in model.model_fields if alias_of(model, name) == word), None)


def _written(data: Any, part: str, model: type[Model], name: str | None) -> str:
    if name is None or not isinstance(data, Mapping) or part in data:
        return part
    return next((word for word in (alias_of(model, name), name) if word in data), part)


def _element(data: Any, part: str | int) -> Any:
    if isinstance(data, Mapping):
        return data.get(part)
    if isinstance(data, list) and isinstance(part, int) and part < len(data):
        return data[part]
    return None


def value_at(data: Any, keys: Path) -> Any:
    """What stands at `keys`; where a shorthand stands for a whole object, the shorthand."""
    for part in keys:
        if not isinstance(data, Mapping | list):
            return data
        data = _element(data, part)
    return data


def holds_secret(annotation: Any) -> bool:
    """Whether a secret may stand in a field of this type, directly or further down."""
    return SecretStr in members_of(annotation) or any(
        secret_names(model) for member in members_of(annotation) if (model := _model(member))
    )


@functools.cache
def secret_names(model: type[Model]) -> frozenset[str]:
    """The names, in both spellings, of the secret fields of `model` and of the models below it."""
    names: set[str] = set()
    seen: set[type[Model]] = set()
    waiting = [model]
    while waiting:
        current = waiting.pop()
        seen.add(current)
        for name, field in current.model_fields.items():
            for member in _leaves(field.annotation):
                if member is SecretStr:
                    names |= {name, alias_of(current, name)}
                elif (below := _model(member)) is not None and below not in seen:
                    waiting.append(below)
    return frozenset(names)


def _leaves(annotation: Any) -> list[Any]:
    """The types that stand in a field, through unions, lists and mappings."""
    inner = [_inner(member) for member in members_of(annotation)]
    return [
        leaf
        for member, below in zip(members_of(annotation), inner, strict=True)
        for leaf in ([member] if below is None else _leaves(below))
    ]
