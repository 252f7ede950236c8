"""Store commands: ``antiphon store copy`` and ``antiphon store erase-report``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from antiphon.cli import terminal_output
from antiphon.cli.engine_runner import require_store_file
from antiphon.cli.interrupt import InterruptHandler, run_interruptible
from antiphon.cli.options import Json
from antiphon.core.secrets import uri_without_password
from antiphon.errors import ConfigError
from antiphon.settings import store_name

if TYPE_CHECKING:
    from antiphon.core.erase_report import EraseReport
    from antiphon.transfer.store_copy import CopyProgress, CopyReport

app = typer.Typer(
    help="Copy a store, or see what an erasure left.", no_args_is_help=True, rich_markup_mode=None
)

StoreArgument = Annotated[
    str, typer.Argument(metavar="STORE", help="sqlite:PATH or postgresql://…")
]


@app.callback()
def _group() -> None:
    """Copy a store, or see what an erasure left."""


@app.command()
def copy(source: StoreArgument, target: StoreArgument, as_json: Json = False) -> None:
    """Copy a whole store to an empty one.

    The first may be in use meanwhile. Ids, times, keys, links and images stay as they are. At the
    end all chats are compared by their hashes. Ended half-way, it goes on from there when it is run
    again; run again after that, it copies what has changed. Turns that run are copied by the next
    run. Exits with 1 where some chats went on changing.
    """
    report = copy_store(source, target)
    if as_json:
        terminal_output.print_json(msgspec.to_builtins(report))
    else:
        _print_report(report)
    if report.changing:
        raise typer.Exit(1)


@app.command("erase-report")
def erase_report(store: StoreArgument, as_json: Json = False) -> None:
    """Show whether erased words are still in a store's files.

    They are gone from every answer at once. Exits with 1 while some are left.
    """
    from antiphon.bootstrap import read_erase_report  # loaded on first use

    name = store_name(store, Path.cwd())
    require_store_file(name)

    async def run(_: InterruptHandler) -> EraseReport:
        return await read_erase_report(name)

    report = run_interruptible(run)
    if as_json:
        terminal_output.print_json(msgspec.to_builtins(report))
    else:
        terminal_output.print_output(report.describe() + "\n")
    if report.pending:
        raise typer.Exit(1)


def copy_store(source: str, target: str) -> CopyReport:
    """Copy a store and compare the copy. Raises ``ConfigError``, ``StoreError``."""
    from antiphon.bootstrap import open_copy_store  # loaded on first use
    from antiphon.transfer.store_copy import StoreCopy  # loaded on first use

    names = [store_name(name, Path.cwd()) for name in (source, target)]
    if names[0] == names[1]:
        raise ConfigError("These are one store: name another one to copy to.")
    require_store_file(names[0])

    async def run(_: InterruptHandler) -> CopyReport:
        with _progress() as show:
            async with open_copy_store(names[0]) as one, open_copy_store(names[1]) as other:
                return await StoreCopy(one, other, show).run(_shown(names[0]))

    return run_interruptible(run)


def _shown(name: str) -> str:
    """What a store is called in its copy."""
    return uri_without_password(name) if "://" in name else name


@contextmanager
def _progress() -> Iterator[Callable[[CopyProgress], None]]:
    """A bar on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich import progress  # loaded on first use

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("chats"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(
        *columns, console=terminal_output.stderr_console(), transient=True
    ) as bar:
        task = bar.add_task("Copying")

        def show(one: CopyProgress) -> None:
            description = "Comparing" if one.is_check else "Copying"
            bar.update(task, description=description, completed=one.done, total=one.total)

        yield show


def _print_report(report: CopyReport) -> None:
    rows = ", ".join(
        f"{count} {table.replace('_', ' ')}" for table, count in report.rows.items() if count
    )
    lines = [
        f"{report.families} chats with {report.turns} turns are the same in both stores"
        f"{f'; {rows}' if rows else ''}.",
        f"Sum of the SHA-256 of all chains: {report.digest}",
    ]
    if report.changing:
        lines.append(
            f"{report.changing} chats went on changing: run it again once nothing writes to them."
        )
    terminal_output.print_output("\n".join(lines) + "\n")
