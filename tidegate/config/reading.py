"""YAML or JSON text to plain values, with the line of each. Nothing is guessed: what is written twice is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from tidegate.config.fields import Path, dotted
from tidegate.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Document:
    """A file's content. `lines`: the line (from 1) of each field, by its keys as written."""

    name: str
    data: dict[str, Any]
    lines: dict[Path, int]

    def line(self, keys: Path) -> int | None:
        """The line of the field, or of the nearest one around it."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self.lines:
                return self.lines[keys[:length]]
        return None


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: `NO` is a country, `12:30` and `2013-01-01` are text, `1e3` is a number."""

    yaml_implicit_resolvers: Final[dict[str, list[Any]]] = {}  # type: ignore[misc]  # PyYAML declares it writable; here nobody may


def _resolve(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), list(first))


_resolve("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_resolve("null", "~|null|Null|NULL|", "~nN")
_Loader.yaml_implicit_resolvers.setdefault("", []).extend(_Loader.yaml_implicit_resolvers["~"])
_resolve("int", "[-+]?(?:0|[1-9][0-9]*)", "-+0123456789")
_resolve("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|nan)", "-+.0123456789")
_resolve("merge", "<<", "<")


def read(text: str, name: str) -> Document:
    """Parse the text of the file `name`: JSON when it is called `.json` or begins with `{`, else YAML.

    Raises ConfigError with the line and column of a syntax error, a repeated field, or a text that holds no fields.
    """
    if name.endswith(".json") or (not name.endswith((".yaml", ".yml")) and text.lstrip().startswith("{")):
        return _read_json(text, name)
    return _read_yaml(text, name)


def _read_yaml(text: str, name: str) -> Document:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            _refuse_repeated(node, name)
        data = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, name) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"this is not YAML: {error}", file=name, expected=_YAML) from None
    return Document(name, _fields(data, name), dict(_lines(node)))


_FIELDS: Final = "a mapping that begins with `pipelineId: …`"
_YAML: Final = "YAML 1.2"
_JSON: Final = "JSON (RFC 8259)"
_UNCLOSED: Final = "found unexpected end of stream"
_YAML_HINTS: Final = {
    "'\\t'": "indent with spaces",
    _UNCLOSED: "a quote is opened here and never closed",
    "constructor for the tag": "values are plain text, numbers, lists and mappings: leave the tag (`!…`) out",
    "expected a single document": "a file holds one pipeline: what follows `---` goes to a file of its own",
}


def _syntax_error(error: yaml.MarkedYAMLError, name: str) -> ConfigError:
    what = ", ".join(part for part in (error.context, error.problem) if part)
    # A quote that is never closed is found missing at the file's end; the person looks for where it was opened.
    mark = error.context_mark if _UNCLOSED in what else error.problem_mark or error.context_mark
    where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    hint = next((hint for part, hint in _YAML_HINTS.items() if part in what), None)
    line = mark.line + 1 if mark else None
    return ConfigError(f"this is not YAML{where}: {what}", file=name, line=line, expected=_YAML, hint=hint)


_COMMA: Final = re.compile(r",\s*$")


def _read_json(text: str, name: str) -> Document:
    try:
        data = json.loads(text, object_pairs_hook=_unique(name), parse_constant=_no_constant(name))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        hint = "JSON takes no comma after the last field" if _COMMA.search(text[: error.pos]) else None
        raise ConfigError(
            f"this is not JSON at {where}: {error.msg}", file=name, line=error.lineno, expected=_JSON, hint=hint
        ) from None
    except RecursionError:
        raise ConfigError("nested too deeply", file=name, expected=_FIELDS) from None
    return Document(name, _fields(data, name), _json_lines(text))


def _no_constant(name: str) -> Any:
    def refuse(word: str) -> Any:
        raise ConfigError(f"{word} is no JSON number", file=name, expected="a finite number")

    return refuse


def _unique(name: str) -> Any:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for key, value in pairs:
            if key in fields:
                raise _repeated(key, name, None)
            fields[key] = value
        return fields

    return build


def _repeated(key: str, name: str, line: int | None) -> ConfigError:
    return ConfigError(
        f"the field '{key}' is written twice", file=name, line=line, expected="each field once: the other would be lost"
    )


def _json_lines(text: str) -> dict[Path, int]:
    """JSON is YAML but for its tabs (and what both refuse elsewhere); without lines an error names its field alone."""
    try:
        node = yaml.compose(text.replace("\t", " "), _Loader)
    except yaml.YAMLError:
        return {}
    return dict(_lines(node))


def _fields(data: Any, name: str) -> dict[str, Any]:
    if data is None:
        raise ConfigError(
            "the file is empty", file=name, expected=_FIELDS, hint="`tidegate init` writes one to start from"
        )
    if not isinstance(data, dict):
        raise ConfigError("the file holds no fields", file=name, expected=_FIELDS)
    _refuse_other_keys(data, (), name)
    return {key: value for key, value in data.items() if key != "$schema"}  # which editors read


def _refuse_other_keys(data: Any, path: Path, name: str) -> None:
    if isinstance(data, dict):
        for key, value in data.items():
            if not isinstance(key, str):
                raise ConfigError(
                    f"the name {key!r} is not text",
                    file=name,
                    field=dotted(path),
                    expected="text",
                    hint="put it in quotes",
                )
            _refuse_other_keys(value, (*path, key), name)
    elif isinstance(data, list):
        for index, value in enumerate(data):
            _refuse_other_keys(value, (*path, index), name)


def _refuse_repeated(node: yaml.Node, name: str) -> None:
    """Refuse a key that is written twice in one mapping, and a value that contains itself."""
    _walk(node, name, set(), set())


def _walk(node: yaml.Node, name: str, inside: set[int], done: set[int]) -> None:
    if id(node) in inside:
        raise ConfigError(
            "a value contains itself",
            file=name,
            line=node.start_mark.line + 1,
            expected="anchors of what stands before them",
        )
    if id(node) in done:
        return
    inside.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys and key.value != "<<":
                    raise _repeated(key.value, name, key.start_mark.line + 1)
                keys.add(key.value)
            _walk(value, name, inside, done)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _walk(item, name, inside, done)
    inside.remove(id(node))
    done.add(id(node))


def _lines(node: yaml.Node | None, path: Path = ()) -> Iterator[tuple[Path, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, key.value)
            yield inner, key.start_mark.line + 1
            yield from _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), item.start_mark.line + 1
            yield from _lines(item, (*path, index))
