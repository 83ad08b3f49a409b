"""One record, edited by hand: what pages and API share. Nothing is shown that is masked, and nothing sent unchecked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlq.console import queries as q
from dlq.console.desk import Desk, Json
from dlq.console.rights import Principal
from dlq.index.masking import Masker
from dlq.index.reading import Document
from dlq.reader import DeadLetter
from dlq.replay.jobs import Job
from dlq.replay.targets import allowed
from tidegate.config.schema import Column
from tidegate.errors import ConfigError

if TYPE_CHECKING:  # they bring the stages with them
    from dlq.replay.editing import Edit
    from dlq.replay.preview import Preview


class Editing:
    """One letter in somebody's hands. `row`: as the index has it."""

    def __init__(self, desk: Desk, query: q.LetterQuery) -> None:
        """Raises NotFound, ConfigError when it is not open or its record is nowhere any more, BrokerUnavailable,
        BucketUnavailable."""
        from dlq.replay.editing import require_open, require_raw  # brings the stages with it

        self._index = desk.index
        self._masker = Masker(desk.index.pipeline.dead_letters.masking)
        self.row: Document = desk.row(query)
        require_open(self.row)
        self._raw: DeadLetter = require_raw(self.row, desk.index.raw(self.row))

    def document(self) -> Json:
        """What there is to edit, masked, and what the schema says. Null: null, no text, or not to be looked into."""
        from dlq.replay.editing import shown

        key, value = shown(self._raw.envelope, self._masker)
        pipeline = self._index.pipeline
        return {
            "id": self.row["id"],
            "topic": self.row["dlq_topic"],
            "key": key,
            "value": value,
            "masked": self._masker.changes_values,
            "schema": [field for column in pipeline.schema_ for field in _fields(column)],
            "targets": sorted(allowed(pipeline)),
        }

    def preview(self, body: q.EditBody, *, indented: bool = False) -> Preview:
        """What the pipeline would say of it now, and what is changed. Nothing is sent. Raises ConfigError."""
        edit = self._edit(body, indented)
        return self._index.preview(edit.request, edit.hand)

    def send(self, body: q.EditBody, who: Principal, *, indented: bool = False) -> Job:
        """Raises ConfigError when it would fail again, or cannot be sent; BrokerUnavailable."""
        edit = self._edit(body, indented)
        _require_passing(self._index.preview(edit.request, edit.hand))
        return self._index.edit(self.row, edit, actor=who.name)

    def _edit(self, body: q.EditBody, indented: bool) -> Edit:
        from dlq.replay.editing import edited, written

        new = written(self._raw.envelope, body.key, body.value, self._masker, indented=indented)
        return edited(self.row, self._raw.envelope, new, self._masker, body.to or None)


def _require_passing(found: Preview) -> None:
    if found.chosen and not found.failing and not found.unsent:
        return
    whys = [*found.reasons(), *found.not_sent.values()]
    raise ConfigError(
        "it would fail again" if found.failing else "it cannot be sent",
        field="value",
        value="; ".join(f"{why.name}: {why.message}" for why in whys) or "it is in another job that is not finished",
        expected="a record that passes the pipeline's rules as they are now",
    )


def _fields(column: Column, within: str = "") -> list[Json]:
    """A column and what is in it, by path."""
    name = f"{within}{column.name}"
    kind = f"{column.type} of {column.items.type}" if column.items else column.type
    detail = column.unit or column.format
    one = {"name": name, "type": f"{kind} ({detail})" if detail else kind, "nullable": column.nullable}
    return [one, *(inner for field in column.fields for inner in _fields(field, f"{name}."))]
