"""What ``list``, ``show`` and ``delete`` do with the store."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import TypeVar

import msgspec
import typer
from rich.text import Text

from antiphon.bootstrap import open_engine
from antiphon.cli import terminal_output
from antiphon.cli.interrupt import InterruptHandler, run_interruptible
from antiphon.core.items import (
    Compaction,
    ErasedItem,
    FunctionCall,
    FunctionCallOutput,
    Item,
    McpApproval,
    McpListTools,
    Message,
    Reasoning,
    decode_item,
    has_image,
    text_of,
)
from antiphon.core.turns import DEFAULT_TENANT, Response
from antiphon.settings import load_settings
from antiphon.turn.protocols import RecentThread
from antiphon.turn.service import TurnService

T = TypeVar("T")
Flags = Mapping[str, str | None]


def list_conversations(flags: Flags, limit: int, *, as_json: bool) -> None:
    """Print the newest conversations: a table, JSON, or tab-separated to a pipe."""
    found = _with_store(flags, lambda service: service.reader.recent_threads(DEFAULT_TENANT, limit))
    if as_json:
        rows = [
            {
                "id": recent.response_id,
                "created_at": recent.created_at,
                "model": recent.model,
                "turns": recent.turns,
                "opening": _opening_text(recent),
            }
            for recent in found
        ]
        terminal_output.print_output(_indent_json(msgspec.json.encode(rows)))
    elif not sys.stdout.isatty():
        for recent in found:
            cells = (
                recent.response_id,
                _format_time(recent.created_at),
                recent.model,
                str(recent.turns),
            )
            terminal_output.print_output("\t".join((*cells, _opening_text(recent))) + "\n")
    elif not found:
        terminal_output.print_note("no conversations yet: begin one with `antiphon chat`")
    else:
        _print_table(found)


def show_conversation(flags: Flags, response_id: str, *, as_json: bool) -> None:
    """Print a response's whole chain. Raises ``NotFoundError``."""
    if as_json:
        messages = _with_store(
            flags, lambda service: service.reader.messages(DEFAULT_TENANT, response_id)
        )
        terminal_output.print_output(_indent_json(msgspec.json.encode(messages)))
        return
    console = terminal_output.stdout_console()
    for turn in _with_store(
        flags, lambda service: service.reader.chain(DEFAULT_TENANT, response_id)
    ):
        about = f"{turn.id}  {_format_time(turn.created_at)}  {turn.header.model}"
        if turn.status != "completed":
            about += f"  {turn.status}"
        console.print(Text(about, style="dim"))
        for who, said in _turn_lines(turn):
            console.print(
                Text.assemble((f"{who}: ", "bold"), terminal_output.strip_control_chars(said))
            )
        console.print()


def delete_response(flags: Flags, response_id: str, *, cascade: bool, confirm: bool) -> bool:
    """Erase; at a terminal only after asking. False: the person said no. Raises ``NotFoundError``."""
    if confirm and sys.stdin.isatty():
        turn = _with_store(
            flags, lambda service: service.reader.response(DEFAULT_TENANT, response_id)
        )
        said = " / ".join(text for _, text in _turn_lines(turn))
        what = "this turn and all that continue it" if cascade else "this turn"
        terminal_output.print_note(_shorten(said, 200))
        if not typer.confirm(f"Erase {what}?", err=True):
            return False
    _with_store(flags, lambda service: service.delete(DEFAULT_TENANT, response_id, cascade=cascade))
    return True


def _with_store(flags: Flags, work: Callable[[TurnService], Awaitable[T]]) -> T:
    return run_interruptible(partial(_run_with_service, flags, work))


async def _run_with_service(
    flags: Flags, work: Callable[[TurnService], Awaitable[T]], _: InterruptHandler
) -> T:
    async with open_engine(load_settings(flags, resolve_keys=False)) as engine:
        return await work(engine.service)


def _print_table(found: list[RecentThread]) -> None:
    """One line each; the opening words get what is left of it, the id is never cut."""
    rows = [("id", "when", "model", "turns", "begins")]
    for one in found:
        when, model = _format_time(one.created_at, short=True), _shorten(one.model, 24)
        rows.append((one.response_id, when, model, str(one.turns), _opening_text(one)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    console = terminal_output.stdout_console()
    for number, (*cells, begins) in enumerate(rows):
        before = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        line = Text(
            terminal_output.strip_control_chars(f"{before}  {begins}"),
            style="" if number else "dim",
        )
        line.truncate(max(console.width, len(rows[1][0])), overflow="ellipsis")
        console.print(line)


def _turn_lines(turn: Response) -> list[tuple[str, str]]:
    """Who said what in a turn, in order."""
    return [line for item in (*turn.input, *turn.output) for line in _item_lines(item)]


def _item_lines(item: Item) -> list[tuple[str, str]]:
    match item:
        case Message(role=role, content=content):
            return [(role, text_of(content) + (" [image]" if has_image(item) else ""))]
        case FunctionCall(name=name, arguments=arguments):
            return [("call", f"{name}({arguments})")]
        case FunctionCallOutput(output=output):
            return [("result", text_of(output))]
        case Reasoning(summary=summary):
            return [("thought", part.text) for part in summary]
        case Compaction(summary=text):
            return [("summary", text)]
        case McpListTools() | McpApproval() | ErasedItem():
            return []


def _opening_text(recent: RecentThread) -> str:
    if recent.first_item is None:
        return ""
    return _shorten(" ".join(said for _, said in _item_lines(decode_item(recent.first_item))), 200)


def _shorten(text: str, max_length: int) -> str:
    words = " ".join(text.split())
    return words if len(words) <= max_length else words[: max_length - 3] + "..."


def _format_time(seconds: float, *, short: bool = False) -> str:
    """Local time; ``short`` leaves the year to the reader."""
    moment = datetime.fromtimestamp(seconds).astimezone()
    return moment.strftime("%b %d %H:%M") if short else moment.isoformat(" ", "seconds")


def _indent_json(data: bytes) -> str:
    return msgspec.json.format(data, indent=2).decode() + "\n"
