"""Export and import commands: ``antiphon export`` and ``antiphon import``, without a model."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from antiphon.cli import terminal_output
from antiphon.cli.engine_runner import Flags, run_with_engine
from antiphon.cli.options import Config, Json, Store
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import InvalidRequestError

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine
    from antiphon.transfer.chat_exporter import ExportFormat
    from antiphon.transfer.chat_importer import ChatImporter, ImportedChat

_FORMATS = ("json", "markdown", "html")


def export(
    chat_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="A chat, or any response of it. Absent: all chats."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help="json, markdown or html.")
    ] = "json",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Instead of stdout.")
    ] = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Export a chat, or all of them.

    As JSON a chat has all its branches, and can be imported again; all chats are one a line. As
    markdown or html it is the chain up to ID, or to its newest response.
    """
    if form not in _FORMATS:
        raise InvalidRequestError(f"The format is {', '.join(_FORMATS)}, not {form!r}.")
    if chat_id is None and form != "json":
        raise InvalidRequestError(f"Name a chat to export it as {form}: all are exported as json.")
    export_chats({"store": store, "config": config}, chat_id, form, output)  # type: ignore[arg-type]


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="An export of ChatGPT, Claude, Open WebUI, LibreChat, llama.cpp or antiphon, or"
            " messages as JSON; - is stdin.",
        ),
    ],
    as_json: Json = False,
    store: Store = None,
    config: Config = None,
) -> None:
    """Import the chats of an export file, with all their branches.

    Importing a file again adds what is new in it. Exits with 1 where a chat could not be read.
    """
    if not import_chats({"store": store, "config": config}, file, as_json=as_json):
        raise typer.Exit(1)


def export_chats(
    flags: Flags, chat_id: str | None, form: ExportFormat, output: Path | None
) -> None:
    """Write a chat, or all, to a file or stdout. Raises ``NotFoundError``."""
    from antiphon.transfer.chat_exporter import ChatExporter  # loaded on first use
    from antiphon.turn.chats import ChatService  # loaded on first use

    async def work(engine: Engine) -> None:
        service = engine.service
        assert service.stores is not None, "every store has them"
        exporter = ChatExporter(service, ChatService(service, service.stores), DEFAULT_TENANT)
        if chat_id is None:
            await _write(exporter.all_documents(), output)
            return
        chat, newest = await exporter.find(chat_id)
        head = chat_id if chat_id.startswith("resp_") else newest
        await _write(exporter.export(chat, head, form), output)

    run_with_engine(flags, work)


async def _write(pieces: AsyncIterator[bytes], output: Path | None) -> None:
    """Write a file, whole or not at all, or to a device or a pipe, or else to stdout."""
    if output is None:
        async for piece in pieces:
            terminal_output.print_output(piece.decode())
        if sys.stdout.isatty():
            terminal_output.print_output("\n")
        return
    is_device = _is_device(output)
    part = output if is_device else output.with_name(f"{output.name}.part")
    try:
        with part.open("wb") as file:
            async for piece in pieces:
                file.write(piece)
        if not is_device:
            os.replace(part, output)
    except OSError as error:
        raise InvalidRequestError(f"{output} cannot be written: {error.strerror}.") from error
    finally:
        if not is_device:
            with suppress(OSError):  # As is said above, or where it is not there.
                part.unlink()


def _is_device(path: Path) -> bool:
    """Whether a path is something else than a file, which no file can take the place of."""
    return path.exists() and not path.is_file()


def import_chats(flags: Flags, path: Path, *, as_json: bool) -> bool:
    """Import a file and print what became of each chat. False: one could not be read."""
    from antiphon.transfer.chat_file import ChatFile  # loaded on first use
    from antiphon.transfer.chat_importer import ChatImporter  # loaded on first use

    reports: list[ImportedChat] = []

    async def work(engine: Engine) -> ChatImporter:
        assert engine.service.stores is not None, "every store has them"
        importer = ChatImporter(engine.service.stores.chat_transfer, DEFAULT_TENANT, ChatFile(file))
        with _progress() as show:
            async for report in importer.run():
                reports.append(report)
                show(importer.file.progress, len(reports))
        return importer

    with _opened(path) as file:
        importer = run_with_engine(flags, work, creates_store=True)
    if as_json:
        skipped = msgspec.to_builtins(importer.file.skipped_files)
        terminal_output.print_json(
            {"report": msgspec.to_builtins(reports), "skipped_files": skipped}
        )
    else:
        _print_reports(reports)
        for one in importer.file.skipped_files:
            terminal_output.print_note(f"{one.name}: {one.reason}")
    return all(report.status != "failed" for report in reports)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file that can be sought."""
    if str(path) == "-":
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            yield copy
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        yield file


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar on a terminal: a function of how much is done, and of how many chats."""
    if not sys.stderr.isatty():
        yield lambda part, chats: None
        return
    from rich import progress  # loaded on first use

    columns = (
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[chats]} chats"),
    )
    with progress.Progress(
        *columns, console=terminal_output.stderr_console(), transient=True
    ) as bar:
        task = bar.add_task("", total=1.0, chats=0)
        yield lambda part, chats: bar.update(task, completed=part, chats=chats)


def _print_reports(reports: list[ImportedChat]) -> None:
    """A line for each chat of which something was left out, and the sums."""
    for report in reports:
        title = report.title or "untitled"
        if report.status == "failed":
            terminal_output.print_error(f"{title}: {'; '.join(report.skipped)}")
        elif report.skipped:
            terminal_output.print_note(f"{title}: left out {'; '.join(report.skipped)}")
    counts = Counter[str](report.status for report in reports)
    names = ("imported", "updated", "unchanged", "failed")
    found = [f"{counts[name]} {name}" for name in names if counts[name]]
    turns = sum(report.new_turns for report in reports)
    terminal_output.print_output(
        f"{_counted(len(reports), 'chat')}: {', '.join(found) or 'nothing'};"
        f" {_counted(turns, 'new turn')}\n"
    )


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"
