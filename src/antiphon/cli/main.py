"""Command line entry point: registers the commands; errors become one line and an exit code."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from antiphon import __version__
from antiphon.cli import (
    chat,
    conversations,
    keys,
    mcp,
    models,
    search_command,
    serve,
    store_command,
    terminal_output,
    transfer,
    usage_command,
)
from antiphon.errors import AntiphonError

FAILURE = 1

app = typer.Typer(
    name="antiphon",
    help="Durable memory for chat models: talk, leave, and go on where you were.",
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.command("mcp")(mcp.mcp)
app.command("list")(conversations.list_)
app.command("show")(conversations.show)
app.command("search")(search_command.search)
app.command("approvals")(search_command.approvals)
app.command("usage")(usage_command.usage)
app.command("delete")(conversations.delete)
app.command("export")(transfer.export)
app.command("import")(transfer.import_)
app.add_typer(models.app, name="model")
app.add_typer(keys.app, name="key")
app.add_typer(store_command.app, name="store")


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"antiphon {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and leave.", callback=_print_version),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; exits with 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C.

    typer handles Ctrl-C and a closed pipe: both end the program without a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks is written as a question mark.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="antiphon")
    except AntiphonError as error:
        sys.exit(_print_failure(error.message))
    except Exception as error:
        if os.environ.get("ANTIPHON_DEBUG"):
            raise
        description = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        sys.exit(
            _print_failure(f"something unforeseen: {description} (ANTIPHON_DEBUG=1 shows where)")
        )


def _print_failure(message: str) -> int:
    terminal_output.print_error(message)
    return FAILURE
