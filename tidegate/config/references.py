"""`${ENV}`, `${ENV:-default}` and `${file:/path}` in the strings of a pipeline file; `$${` is a plain `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final

from tidegate.config.base import FromOutside, did_you_mean
from tidegate.config.fields import Path, dotted
from tidegate.config.reading import Document
from tidegate.errors import ConfigError

_REFERENCE: Final = re.compile(r"\$(\$(?=\{)|\{([^}]*)\}?)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE: Final = "a file of UTF-8 text that this process may read"
_FORMS: Final = "${NAME}, ${NAME:-default} or ${file:/path}"


@dataclass(slots=True)
class Resolved:
    """A document with its references replaced.

    `origins`: for each field that had references, these; such a field's value is shown to nobody. `values`: what came
    from outside. `errors`: the fields whose references lead nowhere.
    """

    data: dict[str, Any]
    origins: dict[Path, str] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)
    errors: dict[Path, ConfigError] = field(default_factory=dict)


def resolve(document: Document, environ: Mapping[str, str], folder: FilePath) -> Resolved:
    """Replace all references. A relative `${file:…}` is looked for in `folder`, where the pipeline file is."""
    resolved = Resolved({})
    resolved.data = _replace(document.data, (), _Sources(document, environ, folder), resolved)
    return resolved


@dataclass(frozen=True, slots=True)
class _Sources:
    document: Document
    environ: Mapping[str, str]
    folder: FilePath

    def error(self, keys: Path, problem: str, expected: str | None = None, hint: str | None = None) -> ConfigError:
        place = {"file": self.document.name, "line": self.document.line(keys), "field": dotted(keys)}
        return ConfigError(problem, **place, expected=expected, hint=hint)  # type: ignore[arg-type]  # the names of the place are ConfigError's

    def value(self, reference: str, keys: Path) -> str:
        """What `${reference}` stands for. Raises ConfigError that names the reference and the field."""
        if reference.startswith("file:"):
            return self._file(reference.removeprefix("file:"), keys)
        name, has_default, default = reference.partition(":-")
        if not _NAME.fullmatch(name):
            raise self.error(keys, f"${{{reference}}} is no reference", _FORMS, "a plain ${ is written $${")
        value = self.environ.get(name)
        if has_default:
            return value or default
        if value is None:
            near = did_you_mean(name, list(self.environ))
            ways = f"export {name}, or write ${{{name}:-default}}"
            problem = f"the environment variable {name} is not set"
            raise self.error(keys, problem, "a variable that is set", f"{near} Else {ways}" if near else ways)
        return value

    def _file(self, path: str, keys: Path) -> str:
        try:
            return (self.folder / path).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
        except OSError as error:
            raise self.error(keys, f"the file {path} cannot be read: {error.strerror}", _FILE) from None
        except UnicodeDecodeError:
            raise self.error(keys, f"the file {path} is not UTF-8 text", _FILE) from None


def _replace(value: Any, keys: Path, sources: _Sources, resolved: Resolved) -> Any:
    if isinstance(value, dict):
        return {key: _replace(inner, (*keys, key), sources, resolved) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replace(inner, (*keys, index), sources, resolved) for index, inner in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def stand_in(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        if not match[0].endswith("}"):
            resolved.errors[keys] = sources.error(keys, "a ${ is never closed", _FORMS, "a plain ${ is written $${")
            return ""
        try:
            found = sources.value(match[2], keys)
        except ConfigError as error:
            resolved.errors[keys] = error
            return ""
        shown = f"${{{match[2].partition(':-')[0]}}}"  # a default may be as secret as what it stands in for
        resolved.origins[keys] = ", ".join(part for part in (resolved.origins.get(keys), shown) if part)
        if found:
            resolved.values.add(found)
        return found

    replaced = _REFERENCE.sub(stand_in, value)
    return FromOutside(replaced) if keys in resolved.origins else replaced
