"""`tidegate`: the table of commands, and what a person sees when one of them fails.

A command's module is imported when the command runs, never for `--help`: duckdb, pyarrow, faust, psycopg and
confluent_kafka together take over a second to import. Commands of `worker`, `batch` and `dlq` are reached by name only, so
that imports go one way.
"""

from __future__ import annotations

import importlib
from typing import Annotated, Any, NamedTuple

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from tidegate.cli.pipeline_file import in_its_file
from tidegate.errors import ConfigError, TidegateError

EXIT_FAILED = 1
EXIT_CONFIG = 2


class Command(NamedTuple):
    """Where a command lives (`module:name` of a function or of a `typer.Typer`) and what `--help` says of it."""

    target: str
    help: str


COMMANDS: dict[str, Command] = {
    "init": Command("tidegate.cli.init:init", "Write a commented pipeline file to start from."),
    "check": Command("tidegate.cli.check:check", "Check a pipeline file and print its plan."),
    "schema": Command("tidegate.cli.schema:schema", "Print the JSON Schema of pipeline files."),
    "demo": Command("tidegate.cli.demo:demo", "Stream real flights through Kafka into PostgreSQL."),
    "worker": Command("worker.cli:worker", "Run a pipeline file on a Faust worker."),
    "batch": Command("batch.cli:app", "Run a pipeline file on Spark."),
    "status": Command("tidegate.cli.status:status", "Show how far each partition is."),
    "ledger": Command("tidegate.cli.ledger:ledger", "Audit that every record read is accounted for."),
    "dlq": Command("dlq.cli:app", "Look at dead letters, and work on them."),
    "jars": Command("tidegate.cli.jars:jars", "Fetch the jars of the local Kafka and of Spark."),
}


class LazyCommands(TyperGroup):
    """The commands of `COMMANDS`, imported when called. A `TidegateError` ends in its text and an exit code."""

    def __init__(self, **settings: Any) -> None:
        # What lists, suggestions and completion need of a command is its name and help: nothing is imported for them.
        settings["commands"] = {name: TyperCommand(name, help=entry.help) for name, entry in COMMANDS.items()}
        super().__init__(**settings)

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the table, which is the order in which a newcomer needs them."""
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself, imported. An unknown name is refused with the nearest right one."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name and command else None, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TidegateError as error:
            if ctx.params["debug"]:
                raise
            print_error(in_its_file(error, ctx))
            raise typer.Exit(EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILED) from None


def load_command(name: str) -> Any:
    """Import the command `name` of `COMMANDS` and make it runnable."""
    module, _, attribute = COMMANDS[name].target.partition(":")
    target = getattr(importlib.import_module(module), attribute)
    if isinstance(target, typer.Typer):
        return typer.main.get_group(target)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name)(target)
    return typer.main.get_command(single)


def print_error(error: TidegateError) -> None:
    """`error: …` in red on stderr; the lines below it (found, expected, hint) plain."""
    first, _, rest = str(error).partition("\n")
    typer.secho(f"error: {first}", fg=typer.colors.RED, bold=True, err=True)
    if rest:
        typer.echo(rest, err=True)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("tidegate"))
        raise typer.Exit


# Plain help (no markup mode): Rich's help pulls in markdown and pygments, 0.2 s of 0.4.
app = typer.Typer(
    cls=LazyCommands, rich_markup_mode=None, no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False
)


@app.callback()
def tidegate(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.", envvar="TIDEGATE_DEBUG")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A Kafka-native streaming worker that loses nothing, and can prove it."""


def run() -> None:
    """The entry point `tidegate`."""
    typer.main.get_command(app)(prog_name="tidegate")


if __name__ == "__main__":
    run()
