"""Chat commands: ``antiphon list``, ``show`` and ``delete``, without calling a model."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from antiphon.cli import terminal_output
from antiphon.cli.chat_engine import find_response_id, is_response_id
from antiphon.cli.code_blocks import code_blocks
from antiphon.cli.engine_runner import Flags, run_with_engine
from antiphon.cli.options import Config, Json, ResponseId, Store
from antiphon.cli.terminal_output import Column, chat_mark, format_ago, format_time
from antiphon.core.items import Item, Reasoning, item_lines, shorten
from antiphon.core.token_prices import round_cost
from antiphon.core.turns import DEFAULT_TENANT, Response
from antiphon.errors import NotFoundError
from antiphon.turn.store_protocols import Window

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine
    from antiphon.turn.chat_protocols import ChatRecord
    from antiphon.turn.chats import ChatService
    from antiphon.turn.service import TurnService
    from antiphon.turn.turn_reader import TurnReader

T = TypeVar("T")

_MAX_SHOWN = 200
_MAX_TITLE = 200
_MAX_MODEL_LENGTH = 24
_COLUMNS = (
    Column("id"),
    Column("when"),
    Column("model"),
    Column("turns", is_number=True),
    Column("title", is_cropped=True),
)


def list_(
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="N", help="How many at most.")
    ] = 20,
    as_json: Json = False,
    store: Store = None,
    config: Config = None,
) -> None:
    """List the chats, the one with the newest turn first.

    Each by the id of its newest response, which `antiphon chat --from` goes on from.
    """
    list_chats({"store": store, "config": config}, limit, as_json=as_json)


def show(
    response_id: ResponseId,
    as_json: Json = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print it as a page in Markdown.")
    ] = False,
    tree: Annotated[
        bool, typer.Option("--tree", help="Print all branches of its chat, a line for each turn.")
    ] = False,
    code: Annotated[
        bool, typer.Option("--extract", "-x", help="Print the first code block of the answer.")
    ] = False,
    store: Store = None,
    config: Config = None,
) -> None:
    """Print a conversation up to one of its responses.

    With --json as the array of messages that a model is sent. -x exits with 1 where the answer
    has no code.
    """
    flags = {"store": store, "config": config}
    if code:
        show_code(flags, response_id)
    elif tree:
        show_tree(flags, response_id, as_json=as_json)
    elif as_markdown:
        show_page(flags, response_id)
    else:
        show_conversation(flags, response_id, as_json=as_json)


def delete(
    name: ResponseId,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Erase everything that continues it, too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: Store = None,
    config: Config = None,
) -> None:
    """Erase one response, or by its id a whole chat, for good.

    What continues a response goes on without that turn.
    """
    flags = {"store": store, "config": config}
    if delete_stored(flags, name, cascade=cascade, confirm=not yes):
        typer.echo(f"deleted {name}")


def list_chats(flags: Flags, limit: int, *, as_json: bool) -> None:
    """Print the newest chats: a table, JSON, or tab-separated to a pipe."""

    async def read(engine: Engine) -> list[ChatRecord]:
        return await engine.stores.chats.list_chats(DEFAULT_TENANT, limit)

    chats = run_with_engine(flags, read)
    if as_json:
        terminal_output.print_json(list(map(_chat_fields, chats)))
    elif not sys.stdout.isatty():
        terminal_output.print_tsv([_chat_row(chat) for chat in chats])
    elif not chats:
        terminal_output.print_note("no chats yet: begin one with `antiphon chat`")
    else:
        terminal_output.print_table(_COLUMNS, [_chat_row(chat, short=True) for chat in chats])


def show_conversation(flags: Flags, response_id: str, *, as_json: bool) -> None:
    """Print a response's whole chain. Raises ``NotFoundError``."""
    from rich.text import Text  # loaded on first use

    if as_json:
        messages = _read(
            flags, response_id, lambda reader, head: reader.messages(DEFAULT_TENANT, head)
        )
        terminal_output.print_json(messages)
        return
    console = terminal_output.stdout_console()
    for turn in _read(flags, response_id, lambda reader, head: reader.chain(DEFAULT_TENANT, head)):
        title = f"{turn.id}  {format_time(turn.created_at)}  {turn.header.model}"
        if turn.status != "completed":
            title += f"  {turn.status}"
        console.print(Text(title, style="dim"))
        for speaker, text in _turn_lines(turn):
            console.print(
                Text.assemble((f"{speaker}: ", "bold"), terminal_output.strip_control_chars(text))
            )
        console.print()


def show_page(flags: Flags, response_id: str) -> None:
    """Print a response's whole chain in Markdown. Raises ``NotFoundError``."""
    from antiphon.transfer.messages_export import as_markdown  # loaded on first use

    messages = _read(flags, response_id, lambda reader, head: reader.messages(DEFAULT_TENANT, head))
    terminal_output.print_output(as_markdown(messages))


def show_tree(flags: Flags, response_id: str, *, as_json: bool) -> None:
    """Print the turns of a chat with all its branches. Raises ``NotFoundError``."""
    from antiphon.cli.tree_outline import outline  # loaded on first use

    async def read(engine: Engine) -> list[tuple[str, str | None, str, str]]:
        reader = engine.service.reader
        head = await find_response_id(engine, response_id)
        await reader.response(DEFAULT_TENANT, head)
        turns = await engine.stores.chat_transfer.tree(DEFAULT_TENANT, head)
        parents = {one.response_id: one.parent for one in turns}
        questions = await _read_questions(reader, parents)
        return [
            (turn_id, parents[turn_id], prefix, questions[turn_id])
            for turn_id, prefix in outline(turns, head)
            if turn_id in questions  # else it was erased meanwhile
        ]

    lines = run_with_engine(flags, read)
    if as_json:
        keys = ("id", "parent", "question")
        terminal_output.print_json(
            [dict(zip(keys, (one[0], one[1], one[3]), strict=True)) for one in lines]
        )
        return
    terminal_output.print_lines(
        [f"{turn_id}  {prefix}{question}" for turn_id, _, prefix, question in lines]
    )


async def _read_questions(reader: TurnReader, parents: Mapping[str, str | None]) -> dict[str, str]:
    """What was asked in the turns of a tree, on one line each; read by whole branches."""
    questions: dict[str, str] = {}
    for leaf in parents.keys() - set(parents.values()):
        count, turn_id = 0, leaf
        while turn_id in parents and turn_id not in questions:
            count, turn_id = count + 1, parents[turn_id] or ""
        with suppress(NotFoundError):
            for turn in await reader.window(DEFAULT_TENANT, leaf, Window(count)):
                texts = (text for speaker, text in _turn_lines(turn) if speaker == "user")
                questions[turn.id] = shorten(next(texts, ""))
    return questions


def show_code(flags: Flags, response_id: str) -> None:
    """Print the first code block of a response. Raises ``NotFoundError``."""
    turn = _read(flags, response_id, lambda reader, head: reader.response(DEFAULT_TENANT, head))
    text = "\n".join(text for speaker, text in _turn_lines(turn) if speaker == "assistant")
    blocks = code_blocks(text)
    if not blocks:
        raise NotFoundError(f"The answer '{turn.id}' has no code block.")
    terminal_output.print_output(blocks[0])


def delete_stored(flags: Flags, name: str, *, cascade: bool, confirm: bool) -> bool:
    """Erase a response or a chat; at a terminal only after a confirmation.

    False: it was not confirmed. Raises ``NotFoundError``.
    """
    is_chat = not is_response_id(name)
    if confirm and sys.stdin.isatty():
        if is_chat:
            chat = _with_chats(flags, lambda chats: chats.get(DEFAULT_TENANT, name))
            shown, what = chat.title or "", f"this chat with its {chat.turns} turns"
            what = what.removesuffix("s") if chat.turns == 1 else what
        else:
            turn = _read(flags, name, lambda reader, head: reader.response(DEFAULT_TENANT, head))
            shown = " / ".join(line for _, line in _turn_lines(turn))
            what = "this turn and all that continue it" if cascade else "this turn"
        terminal_output.print_note(shorten(shown, _MAX_SHOWN))
        if not typer.confirm(f"Erase {what}?", err=True):
            return False
    if is_chat:
        _with_chats(flags, lambda chats: chats.delete(DEFAULT_TENANT, name))
    else:
        _with_service(flags, lambda service: service.delete(DEFAULT_TENANT, name, cascade=cascade))
    return True


def _read(flags: Flags, name: str, work: Callable[[TurnReader, str], Awaitable[T]]) -> T:
    """What is read of a response, which may be named by its chat."""

    async def run(engine: Engine) -> T:
        return await work(engine.service.reader, await find_response_id(engine, name))

    return run_with_engine(flags, run)


def _with_chats(flags: Flags, work: Callable[[ChatService], Awaitable[T]]) -> T:
    from antiphon.turn.chats import ChatService  # loaded on first use

    async def run(engine: Engine) -> T:
        return await work(ChatService(engine.service, engine.stores))

    return run_with_engine(flags, run)


def _with_service(flags: Flags, work: Callable[[TurnService], Awaitable[T]]) -> T:
    async def run(engine: Engine) -> T:
        return await work(engine.service)

    return run_with_engine(flags, run)


def _chat_fields(chat: ChatRecord) -> dict[str, object]:
    return {
        "id": chat.id,
        "head": chat.head,
        "title": chat.title,
        "created_at": chat.created_at,
        "updated_at": chat.updated_at,
        "model": chat.model,
        "turns": chat.turns,
        "branches": chat.branches,
        "status": chat.status,
        "pinned": chat.is_pinned,
        "permanent": chat.is_permanent,
        "expires_at": chat.expires_at,
        "cost": None if chat.cost is None else round_cost(chat.cost),
    }


def _chat_row(chat: ChatRecord, *, short: bool = False) -> tuple[str, ...]:
    """The cells of a chat's line; ``short`` for a terminal, else nothing is cut off."""
    title = shorten(chat.title or "", _MAX_TITLE)
    return (
        chat.head,
        format_ago(chat.updated_at) if short else format_time(chat.updated_at),
        shorten(chat.model, _MAX_MODEL_LENGTH) if short else chat.model,
        str(chat.turns),
        f"{chat_mark(chat)} {title}".strip() if short else title,
    )


def _turn_lines(turn: Response) -> list[tuple[str, str]]:
    """A turn as (speaker, text) lines, in order."""
    return [line for item in (*turn.input, *turn.output) for line in _item_lines(item)]


def _item_lines(item: Item) -> list[tuple[str, str]]:
    if isinstance(item, Reasoning):
        return [("thought", part.text) for part in item.summary]
    return [*item_lines(item)]
