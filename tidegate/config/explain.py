"""pydantic's errors in the words of a pipeline file: field, what was found, what was expected, the nearest right name.

No secret is shown: not the value of a secret field, not one that came from `${…}`, not the value of an unknown field
(it may be a misspelt `password`), and no more of a list or mapping than its shape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from tidegate.config.base import Model, did_you_mean
from tidegate.config.fields import (
    Place,
    alias_of,
    field_named,
    holds_secret,
    locate,
    members_of,
    secret_names,
    tags_of,
    value_at,
)
from tidegate.config.pipeline import ID_PATTERN
from tidegate.config.reading import Document
from tidegate.config.references import Resolved
from tidegate.config.schema import TOPIC_PATTERN
from tidegate.config.stages import AGGREGATION_PATTERN, CALLABLE_PATTERN
from tidegate.errors import ConfigError

MASK: Final = "********"
_CREDENTIALS: Final = re.compile(r"://[^/\s@]*@")
_LONGEST_SHOWN: Final = 120
# Shorter values are no secrets, and masking each `1` would garble the text.
_SHORTEST_SECRET: Final = 4

# pydantic's error types: what is wrong, and what was expected.
_KINDS: Final = {
    "string_type": ("wrong type", "text"),
    "int_type": ("wrong type", "a whole number"),
    "int_parsing": ("wrong type", "a whole number"),
    "int_from_float": ("wrong type", "a whole number"),
    "float_type": ("wrong type", "a number"),
    "float_parsing": ("wrong type", "a number"),
    "finite_number": ("out of range", "a finite number"),
    "bool_type": ("wrong type", "true or false"),
    "bool_parsing": ("wrong type", "true or false"),
    "model_type": ("wrong type", "a mapping of fields"),
    "model_attributes_type": ("wrong type", "a mapping of fields"),
    "dict_type": ("wrong type", "a mapping of names to values"),
    "tuple_type": ("wrong type", "a list"),
    "greater_than": ("out of range", "more than {gt}"),
    "greater_than_equal": ("out of range", "at least {ge}"),
    "less_than": ("out of range", "less than {lt}"),
    "less_than_equal": ("out of range", "at most {le}"),
    "string_pattern_mismatch": ("wrong form", "{form}"),
    "string_too_short": ("too short", "at least {min_length} character(s)"),
    "string_too_long": ("too long", "at most {max_length} characters"),
    "too_short": ("too few", "at least {min_length}"),
}

# The patterns of names, in words.
_FORMS: Final = {
    ID_PATTERN: "letters, digits, '.', '_' and '-', beginning with a letter or digit, no '..' and no '.' at the end",
    TOPIC_PATTERN: "letters, digits, '.', '_' and '-', at most 249 characters",
    AGGREGATION_PATTERN: "letters, digits, '.', '_' and '-', beginning with a letter or '_', at most 100 characters",
    CALLABLE_PATTERN: "module:function, such as shop.steps:add_price",
}


class Found(str):
    """A value as it is shown: without Python's quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def explain(
    errors: Iterable[Mapping[str, Any]], root: type[Model], document: Document, resolved: Resolved
) -> list[ConfigError]:
    """One ConfigError per field that is wrong and per reference that leads nowhere, in the order of the file."""
    explained = _Explainer(root, document, resolved)
    listed = dict(resolved.errors)
    for error in errors:
        for place, problem in explained.problems(error):
            listed.setdefault(place.keys, problem)
    return sorted(listed.values(), key=lambda error: error.line or 0)


class _Explainer:
    def __init__(self, root: type[Model], document: Document, resolved: Resolved) -> None:
        self._root, self._document, self._resolved = root, document, resolved
        secrets = {*resolved.values, *_literal_secrets(resolved.data, root)}
        self._secrets = sorted((text for text in secrets if len(text) >= _SHORTEST_SECRET), key=len, reverse=True)

    def problems(self, error: Mapping[str, Any]) -> Iterable[tuple[Place, ConfigError]]:
        """What one error of pydantic's says; one of ours may say several things."""
        place = locate(self._root, self._resolved.data, error["loc"])
        context = error.get("ctx", {})
        match error["type"]:
            case "problems":
                for problem in context["problems"]:
                    inner = locate(self._root, self._resolved.data, (*error["loc"], *problem.at))
                    yield inner, self._error(inner, problem.message, problem.expected, problem.hint)
            case "extra_forbidden":
                yield place, self._unknown(place)
            case "missing":
                if not self._misspelt(place):
                    yield place, self._error(place, "is missing", _what_it_is(place), None, found=False)
            case "union_tag_not_found":
                inner = _below(place, "type")
                yield inner, self._error(inner, "is missing", f"one of {_tags(place)}", None, found=False)
            case "union_tag_invalid":
                inner = _below(place, "type")
                yield inner, self._not_one_of(inner, _quoted(context["expected_tags"]))
            case "literal_error":
                yield place, self._not_one_of(place, _quoted(context["expected"]))
            case "value_error":
                yield place, self._error(place, "wrong form", str(context["error"]).removeprefix("expected "))
            case "too_short" if _has_items(value_at(self._resolved.data, place.keys), context["min_length"]):
                return  # what is wrong with its items is said at each; pydantic has left those out
            case kind:
                wrong, expected = _KINDS.get(kind, ("wrong value", error["msg"]))
                pattern = context.get("pattern")
                form = _FORMS.get(pattern, f"text that matches {pattern}")
                yield place, self._error(place, wrong, expected.format(**context, form=form))

    def _unknown(self, place: Place) -> ConfigError:
        name = str(place.path[-1])
        choices = _names(place.owner)
        hint = did_you_mean(name, choices)
        return self._error(place, "there is no such field", f"one of {', '.join(choices)}", hint, found=False)

    def _misspelt(self, place: Place) -> bool:
        """Whether an unknown field beside a missing one already asks for it."""
        beside = value_at(self._resolved.data, place.keys[:-1])
        if not isinstance(beside, dict) or place.owner is None:
            return False
        known = {*place.owner.model_fields, *_names(place.owner)}
        return any(
            did_you_mean(name, _names(place.owner)) == f"did you mean '{place.path[-1]}'?"
            for name in set(beside) - known
        )

    def _not_one_of(self, place: Place, choices: list[str]) -> ConfigError:
        value = value_at(self._resolved.data, place.keys)
        near = did_you_mean(value, choices) if isinstance(value, str) and not self._masked(place) else None
        return self._error(place, "no such value", f"one of {', '.join(choices)}", near)

    def _error(
        self, place: Place, problem: str, expected: str | None, hint: str | None = None, *, found: bool = True
    ) -> ConfigError:
        return ConfigError(
            self._scrub(problem),
            file=self._document.name,
            line=self._document.line(place.keys),
            field=str(place) or None,
            value=self._found(place) if found else None,
            expected=self._scrub(expected) if expected else None,
            hint=self._scrub(hint) if hint else None,
        )

    def _found(self, place: Place) -> Found | None:
        value = value_at(self._resolved.data, place.keys)
        if value is None and not _is_written(self._resolved.data, place):
            return None
        if self._masked(place):
            origin = self._resolved.origins.get(place.keys)
            return Found(f"{MASK} (from {origin})" if origin else MASK)
        if isinstance(value, dict):
            return Found(f"a mapping of {', '.join(value)}" if value else "an empty mapping")
        if isinstance(value, list):
            return Found(f"a list of {len(value)}")
        shown = _CREDENTIALS.sub(f"://{MASK}@", self._scrub(json.dumps(value, ensure_ascii=False)))
        return Found(shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…")

    def _masked(self, place: Place) -> bool:
        if any(place.keys[:length] in self._resolved.origins for length in range(1, len(place.keys) + 1)):
            return True
        value = value_at(self._resolved.data, place.keys)
        return not isinstance(value, dict | list) and place.annotation is not None and holds_secret(place.annotation)

    def _scrub(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


def _literal_secrets(data: Any, model: type[Model], key: str | None = None) -> Iterator[str]:
    """What stands in the file itself under the name of a secret field, wherever that is."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield from _literal_secrets(value, model, name)
    elif isinstance(data, list):
        for value in data:
            yield from _literal_secrets(value, model, key)
    elif key is not None and data is not None and key in secret_names(model):
        yield str(data)


def _has_items(value: Any, least: int) -> bool:
    return isinstance(value, dict | list) and len(value) >= least


def _what_it_is(place: Place) -> str:
    """The first line of the missing field's description."""
    name = field_named(place.owner, str(place.path[-1])) if place.owner else None
    description = place.owner.model_fields[name].description if place.owner and name else None
    return description.splitlines()[0] if description else "a value"


def _below(place: Place, field: str) -> Place:
    return replace(place, path=(*place.path, field), keys=(*place.keys, field), annotation=None)


def _tags(place: Place) -> str:
    return ", ".join(tag for member in members_of(place.annotation) for tag in tags_of(member))


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _names(owner: type[Model] | None) -> list[str]:
    return [] if owner is None else [alias_of(owner, name) for name in owner.model_fields]


def _is_written(data: Any, place: Place) -> bool:
    around = value_at(data, place.keys[:-1])
    return isinstance(around, dict) and bool(place.keys) and place.keys[-1] in around
