"""`tidegate dlq`: the commands on dead letters.

topic   list, show: straight from the dead-letter topic
agent   agent: fills the index
index   groups, search, stats, export; ack, resolve: on the index
"""

from __future__ import annotations

import typer

from dlq.cli import index, topic
from dlq.cli.agent import agent

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Look at dead letters, and work on them.")
app.command("list")(topic.list_)
app.command()(topic.show)
app.command()(agent)
app.command()(index.groups)
app.command()(index.search)
app.command()(index.stats)
app.command()(index.export)
app.command()(index.ack)
app.command()(index.resolve)
