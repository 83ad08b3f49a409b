"""`tidegate dlq`: the commands on dead letters.

letters list, show, export: of the index, or of the topics where there is none
agent   agent: fills the index
console console: in a browser
files   import: from S3, or a folder, into the index
index   groups, stats; ack, resolve: by their kind
replay  preview, replay, edit: dead letters go back; park: they do not
audit   audit: who did what
jobs    jobs list, show, pause, resume, cancel: the replays under way
"""

from __future__ import annotations

import typer

from dlq.cli import files, index, letters, replay
from dlq.cli.agent import agent
from dlq.cli.audit import audit
from dlq.cli.console import console
from dlq.cli.jobs import jobs
from tidegate.garbage import collect_rarely

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Look at dead letters, and work on them.")
app.callback()(collect_rarely)
app.command("list")(letters.list_)
app.command()(letters.show)
app.command()(agent)
app.command()(console)
app.command()(index.groups)
app.command()(index.stats)
app.command()(letters.export)
app.command("import")(files.import_)
app.command()(index.ack)
app.command()(index.resolve)
app.command()(replay.preview)
app.command()(replay.replay)
app.command()(replay.edit)
app.command()(replay.park)
app.command()(audit)
app.add_typer(jobs, name="jobs")
