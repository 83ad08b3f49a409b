"""From a pipeline file to a `Pipeline`, or to one error that lists everything that is wrong with it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tidegate.config.base import FROM_FILE
from tidegate.config.explain import MASK, Found, explain
from tidegate.config.fields import Path as Keys
from tidegate.config.fields import dotted, field_named, value_at
from tidegate.config.pipeline import Pipeline
from tidegate.config.reading import Document, read
from tidegate.config.references import resolve
from tidegate.errors import ConfigError, ConfigErrors


def load_pipeline(path: Path, environ: Mapping[str, str] | None = None) -> Pipeline:
    """Read, resolve and validate a pipeline file.

    1. read      YAML or JSON, nothing written twice
    2. resolve   `${ENV}`, `${ENV:-default}`, `${file:…}`, from `environ` (default: the process's environment)
    3. validate  the models, then whether the parts fit together

    Raises ConfigError, or ConfigErrors when several things are wrong. Neither shows a secret.
    """
    return parse_pipeline(_text(path), str(path), os.environ if environ is None else environ, path.parent)


def parse_pipeline(text: str, name: str, environ: Mapping[str, str], folder: Path) -> Pipeline:
    """The same for text that stands in the file `name`; relative `${file:…}` are looked for in `folder`."""
    document = read(text, name)
    resolved = resolve(document, environ, folder)
    pipeline, errors = _validate(resolved.data)
    # Raised out here, where no validation error is in flight: its traceback would carry the values.
    problems = explain(errors, Pipeline, document, resolved)
    if len(problems) == 1:
        raise problems[0]
    if problems or pipeline is None:
        raise ConfigErrors(problems)
    return pipeline


def _validate(data: Mapping[str, Any]) -> tuple[Pipeline | None, list[Any]]:
    try:
        return Pipeline.model_validate(data, context=FROM_FILE), []
    except ValidationError as error:
        return None, list(error.errors(include_url=False))


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"this is not UTF-8 text: byte {error.start} is wrong", file=str(path), expected="a pipeline file in UTF-8"
        ) from None
    except FileNotFoundError:
        raise ConfigError(
            "there is no such file", file=str(path), expected="a pipeline file", hint="`tidegate init FILE` writes one"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the file cannot be read: {error.strerror}",
            file=str(path),
            expected="a pipeline file that this user may read",
        ) from None


def placed(error: ConfigError, path: Path) -> ConfigError:
    """`error`, which names a field, with the file and the line of that field, for what was found after loading.

    A value that the file takes from `${…}` is masked in it. One that names a file already is left as it is, or something that
    is no field of a pipeline file (an option), as are all when the file has gone meanwhile.
    """
    if isinstance(error, ConfigErrors):
        return ConfigErrors([placed(each, path) for each in error.errors])
    if error.file is not None or (error.field and field_named(Pipeline, re.split(r"[.\[]", error.field)[0]) is None):
        return error
    try:
        document = read(_text(path), str(path))
    except ConfigError:
        return error
    keys = _keys_of(error.field or "", document)
    outside = bool(keys) and error.value is not None and "${" in str(value_at(document.data, keys))
    masked = _masked(error) if outside else error
    return ConfigError(
        masked.problem,
        file=str(path),
        line=document.line(keys),
        field=_shorthand(error.field, keys, document) or error.field,
        value=masked.value,
        expected=masked.expected,
        hint=masked.hint,
    )


def _keys_of(field: str, document: Document) -> Keys:
    """The keys of the field, in either spelling, else of the longest part of its path that the file has."""
    written = {_bare(dotted(keys)): keys for keys in document.lines} | {dotted(keys): keys for keys in document.lines}
    while field:
        if (keys := written.get(field, written.get(_bare(field)))) is not None:
            return keys
        field = field[: max(field.rfind("."), field.rfind("["), 0)]
    return ()


def _bare(field: str) -> str:
    return field.replace("_", "").lower()


def _shorthand(field: str | None, keys: Keys, document: Document) -> str | None:
    """Where a bare text stands for an object, the path ends at the text: `groupBy[0]`, and not the name that it gives."""
    if not field or not isinstance(value_at(document.data, keys), str):
        return None
    while len(_bare(field)) > len(_bare(dotted(keys))):
        field = field[: max(field.rfind("."), field.rfind("["), 0)]
    return field


def _masked(error: ConfigError) -> ConfigError:
    def hidden(text: str | None) -> str | None:
        return text.replace(str(error.value), MASK) if text else text

    problem = hidden(error.problem) or error.problem
    return ConfigError(problem, value=Found(MASK), expected=hidden(error.expected), hint=hidden(error.hint))
