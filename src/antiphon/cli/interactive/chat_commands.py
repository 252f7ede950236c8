"""Chat commands: what shows, saves, searches and erases: /help, /model, /search, /copy, ..."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from antiphon.chat.images import load_image
from antiphon.cli.answer_schema import load_schema
from antiphon.cli.chat_engine import find_response_id
from antiphon.cli.code_blocks import code_blocks
from antiphon.cli.interactive.answer_view import call_text
from antiphon.cli.interactive.chat_loop import ChatLoop, Handler
from antiphon.cli.interactive.chat_session import answer_text
from antiphon.cli.interactive.slash_commands import COMMANDS
from antiphon.cli.terminal_output import format_ago
from antiphon.cli.waiting_calls import find_waiting_calls
from antiphon.core.items import shorten
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import InvalidRequestError
from antiphon.transfer.messages_export import as_json, as_markdown
from antiphon.turn.chat_protocols import ChatUpdate
from antiphon.turn.shares import ShareService

_MAX_HITS = 10
_MAX_ATTACHMENT = 1_000_000
_KEYS = (
    "Alt-Enter starts a new line, Ctrl-X Ctrl-E opens the editor, Ctrl-R searches what was asked,"
    " Esc stops an answer, Esc Esc edits the last question, // sends a slash"
)
_PLAIN_KEYS = (
    "a backslash at the end of a line goes on with it, Ctrl-C stops an answer, // sends a slash"
)


async def show_help(loop: ChatLoop, _: str) -> None:
    width = max(len(f"{one.name} {one.arguments}") for one in COMMANDS) + 2
    for one in COMMANDS:
        loop.output.entry(f"/{f'{one.name} {one.arguments}':{width}}", one.help)
    loop.output.separate()
    loop.output.note(_PLAIN_KEYS if loop.output.terminal.is_plain else _KEYS)


async def model(loop: ChatLoop, argument: str) -> None:
    models = loop.session.service.models
    if argument:
        loop.session.choose_model(argument)
        loop.output.note(f"{loop.session.model} answers from now on")
        return
    for name, one in models.items():
        mark = "→" if name == loop.session.model else " "
        window = f"{one.info.context_window} tokens" if one.info.context_window else ""
        loop.output.text(f"{mark} {name}  {window}".rstrip())


async def system(loop: ChatLoop, argument: str) -> None:
    if argument:
        loop.session.give_instructions(argument)
        loop.output.note("these are the instructions from the next question on")
    else:
        loop.output.text(loop.session.instructions or "no instructions: /system TEXT gives some")


async def schema(loop: ChatLoop, argument: str) -> None:
    """Ask for answers in the form that a file describes."""
    session = loop.session
    if argument:
        form = None if argument == "off" else await asyncio.to_thread(_load_schema, argument)
        session.options = msgspec.structs.replace(session.options, text_format=form)
    form = session.options.text_format
    loop.output.note(
        f"answers are JSON by the schema {form['name']}; /schema off ends it"
        if form
        else "answers are words; /schema FILE has them follow a JSON schema"
    )


def _load_schema(argument: str) -> dict[str, Any]:
    return load_schema(_path_of(argument))


async def search(loop: ChatLoop, argument: str) -> None:
    if not argument:
        raise InvalidRequestError("which words? /search WORDS")
    hits = await loop.engine.stores.search.search(DEFAULT_TENANT, argument, _MAX_HITS)
    for number, hit in enumerate(hits, 1):
        loop.output.entry(f"{number:2}  {format_ago(hit.created_at):10} ", shorten(hit.excerpt, 70))
    if not hits:
        loop.output.note("nothing was found")
        return
    chosen = await loop.read_line("go on from number (Enter: stay here): ")
    if chosen and chosen.isdecimal() and 0 < int(chosen) <= len(hits):
        await loop.go_to(hits[int(chosen) - 1].response_id)


async def open_chat(loop: ChatLoop, argument: str) -> None:
    name = argument or (await loop.session.last_turn()).id
    wanted = await find_response_id(loop.engine, name)
    text = as_markdown(await loop.session.service.reader.messages(DEFAULT_TENANT, wanted))
    if loop.output.terminal.is_plain:
        loop.output.markdown(text)
        return
    pager = shlex.split(os.environ.get("PAGER", "")) or ["less", "-R"]
    try:
        async with loop.suspend_keys():
            # In a thread, so that nodes of the store do not take this process for dead.
            await asyncio.to_thread(subprocess.run, pager, input=text.encode(), check=False)
    except OSError:
        loop.output.markdown(text)


async def copy(loop: ChatLoop, argument: str) -> None:
    text = answer_text(await loop.session.last_turn())
    if argument:
        blocks = code_blocks(text)
        if not argument.isdecimal() or not 0 < int(argument) <= len(blocks):
            plural = "s" * (len(blocks) != 1)
            raise InvalidRequestError(f"the answer has {len(blocks)} code block{plural}")
        text = blocks[int(argument) - 1]
    if loop.output.terminal.is_plain:
        loop.output.text(text)
        return
    loop.output.copy(text)
    loop.output.note(f"copied {len(text)} characters, if the terminal allows it (OSC 52)")


async def context(loop: ChatLoop, _: str) -> None:
    messages = await loop.session.service.preview_context(
        loop.session.request((), loop.session.head)
    )
    for message in messages:
        content = message.get("content") or message.get("tool_calls") or ""
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        loop.output.text(f"{message['role']}: {shorten(text, 300)}")
    loop.output.note(f"{len(messages)} messages, before the next question")


async def cost(loop: ChatLoop, _: str) -> None:
    turn = await loop.session.last_turn()
    found = await loop.chats.chain_usage(DEFAULT_TENANT, turn.id)
    chain = found.chain
    plural = "s" * (chain.turns != 1)
    loop.output.text(
        f"{chain.turns} turn{plural}: {chain.usage.input_tokens} tokens in"
        f" ({chain.usage.cached_tokens} cached), {chain.usage.output_tokens} out"
    )
    if found.uncounted:
        loop.output.note(
            f"without the tokens of {found.uncounted} that ended before the model had counted them"
        )
    if chain.cost is not None:
        loop.output.text(f"cost {chain.cost:.4f}")
    else:
        loop.output.note("no cost: set the models' prices for it")


async def image(loop: ChatLoop, argument: str) -> None:
    if not argument:
        raise InvalidRequestError("which file? /image PATH")
    path = _path_of(argument)
    loop.session.images.append(await load_image(path))
    loop.output.note(f"{path.name} goes along with the next question")


async def attach(loop: ChatLoop, argument: str) -> None:
    if not argument:
        raise InvalidRequestError("which file? /attach PATH")
    path = _path_of(argument)
    try:
        text = await asyncio.to_thread(_read_text, path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidRequestError(f"{path} cannot be read: {reason}") from error
    if not text:
        raise InvalidRequestError(f"{path.name} is empty or larger than a megabyte")
    fence = "~~~~"
    loop.session.attachments.append(f"{path.name}:\n{fence}\n{text.rstrip()}\n{fence}")
    loop.output.note(f"{path.name} goes along with the next question")


async def tools(loop: ChatLoop, _: str) -> None:
    for spec in loop.session.toolbox.specs if loop.session.toolbox else ():
        mark = "  runs without asking" if spec.name in loop.session.approved_tools else ""
        loop.output.text(f"{spec.name}  {shorten(spec.description or '', 80)}{mark}")
    for label in loop.session.mcp_labels:
        loop.output.text(f"{label}  an MCP server of the configuration")
    if not loop.session.toolbox and not loop.session.mcp_labels:
        loop.output.note("no tools: antiphon chat --tools FILE.py, or [mcp.NAME] in the settings")


async def approve(loop: ChatLoop, argument: str) -> None:
    waiting = await find_waiting_calls(loop.engine)
    if not waiting:
        loop.output.note("nothing waits for a decision")
        return
    for number, one in enumerate(waiting, 1):
        loop.output.entry(f"{number:2}  {format_ago(one.created_at):10} ", call_text(one.call))
    chosen = argument or await loop.read_line("decide on number (Enter: later): ")
    if chosen and chosen.isdecimal() and 0 < int(chosen) <= len(waiting):
        one = waiting[int(chosen) - 1]
        if one.response_id != loop.session.head:
            await loop.go_to(one.response_id)
        await loop.decide(await loop.session.last_turn())


async def erase(loop: ChatLoop, argument: str) -> None:
    turn = await loop.session.last_turn()
    what = "the whole chat" if argument == "chat" else "the last turn"
    sure = await loop.read_line(f"erase {what} for good? [y/N] ")
    if not sure or sure[0].lower() != "y":
        loop.output.note("nothing was erased")
        return
    if argument == "chat":
        await loop.chats.delete(DEFAULT_TENANT, turn.id)
        loop.session.leave_chat()
    else:
        before = await loop.session.service.reader.previous(DEFAULT_TENANT, turn.id)
        await loop.session.service.delete(DEFAULT_TENANT, turn.id)
        loop.session.head = before.response_id if before is not None else None
    loop.output.note("erased: from the store and the search index, not from this screen")
    await loop.forget_history()


async def pin(loop: ChatLoop, _: str) -> None:
    chat = await loop.chats.get(DEFAULT_TENANT, (await loop.session.last_turn()).id)
    update = ChatUpdate(is_pinned=not chat.is_pinned)
    await loop.chats.update(DEFAULT_TENANT, chat.id, update)
    loop.output.note("no longer pinned" if chat.is_pinned else "pinned")


async def keep(loop: ChatLoop, _: str) -> None:
    chat = await loop.chats.get(DEFAULT_TENANT, (await loop.session.last_turn()).id)
    update = ChatUpdate(is_permanent=not chat.is_permanent)
    changed = await loop.chats.update(DEFAULT_TENANT, chat.id, update)
    if changed.is_permanent:
        loop.output.note("this chat does not expire any more")
    elif changed.expires_at is None:
        loop.output.note("this chat expires as others do: nothing does here")
    else:
        at = datetime.fromtimestamp(changed.expires_at, UTC).astimezone()
        loop.output.note(f"this chat expires on {at:%Y-%m-%d}, unless it goes on")


async def export(loop: ChatLoop, argument: str) -> None:
    turn = await loop.session.last_turn()
    messages = await loop.session.service.reader.messages(DEFAULT_TENANT, turn.id)
    path = _path_of(argument or "chat.md")
    text = as_json(messages) if path.suffix == ".json" else as_markdown(messages)
    try:
        await asyncio.to_thread(_write_new, path, text)
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be written: {error.strerror}") from error
    loop.output.note(f"saved as {path}")


async def import_file(loop: ChatLoop, argument: str) -> None:
    from antiphon.transfer.chat_file import ChatFile  # loaded on first use
    from antiphon.transfer.chat_importer import ChatImporter  # loaded on first use

    if not argument:
        raise InvalidRequestError("which file? /import FILE")
    path, statuses = _path_of(argument), Counter[str]()
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        store = loop.engine.stores.chat_transfer
        async for report in ChatImporter(store, DEFAULT_TENANT, ChatFile(file)).run():
            statuses[report.status] += 1
            for reason in report.skipped:
                loop.output.note(f"{report.title or 'a chat'}: {reason}")
    counts = ", ".join(f"{count} {status}" for status, count in statuses.items())
    loop.output.text(counts or "there are no chats in it")


async def share(loop: ChatLoop, _: str) -> None:
    turn = await loop.session.last_turn()
    shares = ShareService(loop.session.service, loop.engine.stores.shares)
    record, secret = await shares.create(DEFAULT_TENANT, turn.id)
    loop.output.text(_address(loop, f"/s/{secret}"))
    loop.output.note(f"{record.id}: whoever has the link reads the chat up to here")


async def web(loop: ChatLoop, _: str) -> None:
    head = loop.session.head
    loop.output.text(_address(loop, f"/r/{head}" if head else "/"))
    loop.output.note("as long as `antiphon serve` runs on this store")


def _address(loop: ChatLoop, path: str) -> str:
    settings = loop.engine.settings
    return f"http://{settings.host}:{settings.port}{path}"


async def queue(loop: ChatLoop, argument: str) -> None:
    if argument == "clear":
        loop.prompt.queue.clear()
    for number, text in enumerate(loop.prompt.queue, 1):
        loop.output.entry(f"{number}  ", shorten(text, 100))
    if loop.prompt.queue:
        loop.output.note("they are sent one after another, and are stored only then")
    else:
        loop.output.note("nothing waits")


def _path_of(argument: str) -> Path:
    """A path as it is typed, or dropped on the terminal: between quotes, or as a shell has it."""
    path = Path(argument.strip("\"'")).expanduser()
    if "\\" in argument and not path.exists():
        with suppress(ValueError):
            path = Path(" ".join(shlex.split(argument))).expanduser()
    return path


def _read_text(path: Path) -> str:
    return path.read_text() if path.stat().st_size <= _MAX_ATTACHMENT else ""


def _write_new(path: Path, text: str) -> None:
    with path.open("x") as file:
        file.write(text)


HANDLERS: dict[str, Handler] = {
    "help": show_help,
    "model": model,
    "system": system,
    "schema": schema,
    "search": search,
    "open": open_chat,
    "copy": copy,
    "context": context,
    "cost": cost,
    "image": image,
    "attach": attach,
    "tools": tools,
    "approve": approve,
    "erase": erase,
    "keep": keep,
    "pin": pin,
    "export": export,
    "import": import_file,
    "share": share,
    "web": web,
    "queue": queue,
}
