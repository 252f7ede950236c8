"""Command line entry point: registers the commands; errors become one line and an exit code."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from antiphon import __version__
from antiphon.errors import AntiphonError

FAILURE = 1
#: Of the garbage collector's three generations. What is loaded stays, and a turn's objects die
#: with it: a collector that runs as often as by default takes a tenth of the start.
_GC_THRESHOLDS = (20_000, 20, 50)
#: Each command's module below ``antiphon.cli``, and its function there, or its group of commands.
_COMMANDS = {
    "chat": ("chat", "chat"),
    "serve": ("serve", "serve"),
    "mcp": ("mcp", "mcp"),
    "nodes": ("nodes", "nodes"),
    "list": ("conversations", "list_"),
    "show": ("conversations", "show"),
    "search": ("search_command", "search"),
    "approvals": ("search_command", "approvals"),
    "usage": ("usage_command", "usage"),
    "delete": ("conversations", "delete"),
    "export": ("transfer", "export"),
    "import": ("transfer", "import_"),
}
_GROUPS = {"model": ("models", "app"), "key": ("keys", "app"), "store": ("store_command", "app")}


def build_app(arguments: Sequence[str] = ()) -> typer.Typer:
    """The command line. Where ``arguments`` begin with a command's name it has that one alone.

    The modules of the others would take longer to load than the first prompt.
    """
    app = typer.Typer(
        name="antiphon",
        help="Durable memory for chat models: talk, leave, and go on where you were.",
        add_completion=False,
        rich_markup_mode=None,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    first = arguments[0] if arguments else None
    is_known = first in _COMMANDS or first in _GROUPS
    for name, (module, function) in _COMMANDS.items():
        if not is_known or name == first:
            app.command(name)(getattr(import_module(f"antiphon.cli.{module}"), function))
    for name, (module, group) in _GROUPS.items():
        if not is_known or name == first:
            app.add_typer(getattr(import_module(f"antiphon.cli.{module}"), group), name=name)
    return app


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"antiphon {__version__}")
        raise typer.Exit


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
    _open_closed_streams()
    gc.set_threshold(*_GC_THRESHOLDS)
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks is written as a question mark.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        build_app(sys.argv[1:2])(prog_name="antiphon")
    except AntiphonError as error:
        sys.exit(_print_failure(error.message))
    except Exception as error:
        if os.environ.get("ANTIPHON_DEBUG"):
            raise
        from antiphon.cli.interrupt import drop_unwritten_output  # loaded on first use

        drop_unwritten_output()
        sys.exit(_print_failure(_describe(error)))


def _open_closed_streams() -> None:
    """Have those standard streams lead nowhere that the program was started without.

    Otherwise the first files and sockets would get their numbers, and what is written to a stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It gets the lowest number that is free: the stream's own.
            stream = open(os.devnull, mode)  # noqa: SIM115 - for as long as the process
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def _describe(error: Exception) -> str:
    """What the system refused, as a full disk; anything else is a mistake of this program."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    description = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"something unforeseen: {description} (ANTIPHON_DEBUG=1 shows where)"


def _print_failure(message: str) -> int:
    from antiphon.cli import terminal_output  # loaded on first use

    terminal_output.print_error(message)
    return FAILURE
