"""What computing windows anew has found, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import typer

from tidegate.cli.output import print_table
from tidegate.store.shadow import AggregationDiff, Range

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STATES: Final = {
    "same": "the same",
    "differs": "differ",
    "changed": "changed since",
    "lost": "records lost",
    "promoted": "promoted",
}
_SAMPLES: Final = 5  # of each aggregation, for people


@dataclass(frozen=True, slots=True)
class DiffReport:
    """`whole`: whether the log had its beginning in every partition. `notes`: what else there is to know."""

    pipeline: str
    span: Range
    whole: bool
    aggregations: Sequence[AggregationDiff]
    notes: list[str] = field(default_factory=list)

    @property
    def promoted(self) -> bool:
        """Whether windows were put in place."""
        return any(one.windows.get("promoted") for one in self.aggregations)

    @property
    def complete(self) -> bool:
        """Whether nothing differs any more but what was promoted."""
        return all(one.windows.keys() <= {"same", "promoted"} for one in self.aggregations)

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "pipelineId": self.pipeline,
            "from": _shown(self.span.begin),
            "to": _shown(self.span.end),
            "logHasItsBeginning": self.whole,
            "complete": self.complete,
            "notes": self.notes,
            "aggregations": [
                {
                    "name": one.name,
                    "windows": {state: one.windows.get(state, 0) for state in _STATES},
                    "results": {"differing": one.differing, "added": one.added, "removed": one.removed},
                    "measures": [
                        {"name": m.name, "changed": m.changed, "largestChange": m.largest} for m in one.measures
                    ],
                    "samples": one.samples,
                    "replayedRecords": one.replayed,
                }
                for one in self.aggregations
            ],
        }

    def show(self) -> None:
        rows = [
            {"name": one.name, **{state: one.windows.get(state, 0) for state in _STATES}}
            | {"differing": one.differing, "added": one.added, "removed": one.removed}
            for one in self.aggregations
        ]
        columns = {"name": "aggregation", **_STATES, "differing": "results differ", "added": "new", "removed": "gone"}
        title = f"{self.pipeline}: windows from {_shown(self.span.begin)} to {_shown(self.span.end)}"
        print_table(rows, columns, title=title)
        changed = [
            {"measure": f"{one.name}.{m.name}", "changed": m.changed, "largest": m.largest}
            for one in self.aggregations
            for m in one.measures
            if m.changed
        ]
        if changed:
            print_table(changed, {"measure": "measure", "changed": "changed in", "largest": "largest change"})
        for one in self.aggregations:
            for sample in one.samples[:_SAMPLES]:
                key = ", ".join(str(value) for name, value in sample.items() if name not in ("changed", "window_end"))
                what = "; ".join(f"{name} {v['live']} → {v['recomputed']}" for name, v in sample["changed"].items())
                typer.echo(f"  {one.name} [{key}]: {what}")
        if any(one.windows.get("lost") for one in self.aggregations):
            typer.secho(
                "the log has lost its beginning: windows that would have fewer records than now are left as they are",
                fg=typer.colors.YELLOW, err=True,
            )  # fmt: skip
        if replayed := max((one.replayed for one in self.aggregations), default=0):
            typer.secho(
                f"{replayed} records of the windows that differ are replays or delayed retries: where the pipeline file as it is "
                "accepts the original too, both count (unless the pipeline dedupes)",
                fg=typer.colors.YELLOW, err=True,
            )  # fmt: skip
        if any(one.windows.get("differs") for one in self.aggregations):
            typer.echo("put in place by: tidegate batch backfill PIPELINE --promote")
        for note in self.notes:
            typer.echo(note)


def _shown(milliseconds: int) -> str:
    return (_EPOCH + timedelta(milliseconds=milliseconds)).isoformat()
