"""`tidegate ledger`: the proof that every record read is in exactly one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from tidegate.cli.output import AsJson, print_json, print_table
from tidegate.cli.pipeline_file import PipelineFile
from tidegate.config.loading import load_pipeline
from tidegate.ledger import LEDGER_COLUMNS

if TYPE_CHECKING:
    from tidegate.store.audit import PartitionAudit

_UNBALANCED = 1


def ledger(
    file: PipelineFile,
    as_json: AsJson = False,
) -> None:
    """Audit that every record read is accounted for.

    Exit code 1 when a partition does not balance, or when the dead-letter or late topic holds other records than the
    ledger says; each difference is named with its number. 2 when a source topic does not exist.
    """
    from tidegate.store.audit import Audit
    from tidegate.store.progress import read_progress, source_partitions
    from tidegate.store.reading import TopicReader

    pipeline = load_pipeline(file)
    with TopicReader(pipeline.kafka, f"{pipeline.pipeline_id}-ledger") as reader:
        partitions = read_progress(pipeline, reader).rows
        if not partitions:
            source_partitions(pipeline, reader)  # says which topic is missing
        audits = Audit(pipeline, reader).run(partitions)
    balanced = all(audit.balanced for audit in audits)
    if as_json:
        rows = [audit.document() for audit in audits]
        print_json({"pipelineId": pipeline.pipeline_id, "balanced": balanced, "partitions": rows})
    else:
        _print(pipeline.pipeline_id, audits)
    if not balanced:
        raise typer.Exit(_UNBALANCED)


def _print(pipeline: str, audits: list[PartitionAudit]) -> None:
    if not audits:
        typer.echo(f"{pipeline}: no partition has been read yet")
        return
    rows = [{"source": str(audit.row.tp), **audit.document()} for audit in audits]
    total = {name: sum(getattr(audit.row.state.ledger, name) for audit in audits) for name in LEDGER_COLUMNS}
    rows.append({"source": "total", **total, "balanced": all(audit.balanced for audit in audits)})
    columns = {"source": "partition"} | {name: name.replace("_", "-") for name in LEDGER_COLUMNS}
    noted = {"note": "note"} if any(audit.note for audit in audits) else {}
    print_table(rows, columns | {"balanced": "balanced"} | noted, title=f"{pipeline}: the ledger")
    for audit in audits:
        for problem in audit.problems:
            typer.secho(f"✗ {audit.row.tp}: {problem}", fg=typer.colors.RED, err=True)
