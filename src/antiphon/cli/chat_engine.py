"""Chat engine: the engine of a chat, and the session that it begins with."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.cli.answer_schema import load_schema
from antiphon.core.turns import DEFAULT_TENANT, Options, Response
from antiphon.errors import (
    ConfigError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
)
from antiphon.settings import Settings

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine
    from antiphon.cli.chat import ChatCommandOptions
    from antiphon.cli.interactive.chat_session import ChatSession
    from antiphon.tools.function_tool import Tool
    from antiphon.tools.toolbox import Toolbox
    from antiphon.turn.service import TurnService


@asynccontextmanager
async def open_session(
    settings: Settings,
    options: ChatCommandOptions,
    note: Callable[[str], None],
    pick: Callable[[Engine], Awaitable[str | None]] | None = None,
) -> AsyncIterator[tuple[Engine, ChatSession, asyncio.Task[None]]]:
    """A chat session on an open engine, and the task that loads its model meanwhile.

    ``note`` prints a remark, ``pick`` chooses the response to go on from.
    """
    from antiphon.bootstrap import open_engine  # loaded on first use
    from antiphon.cli.interactive.chat_session import ChatSession  # loaded on first use

    async with open_engine(settings) as engine:
        chosen = await pick(engine) if pick is not None else options.response_id
        await engine.choose_model()
        head = await find_head(engine, options.newest, chosen)
        session = ChatSession(
            engine.service,
            model=_choose_model(engine.service, head, note, has_flag=options.has_model_flag),
            instructions=options.system,
            options=Options(
                temperature=options.temperature,
                max_output_tokens=options.max_tokens,
                text_format=load_schema(options.schema) if options.schema else None,
            ),
            toolbox=load_tools(options.tools),
            mcp_labels=[server.label for server in settings.mcp],
        )
        if head is not None:
            session.enter_chat(
                head,
                keeps_model=options.has_model_flag,
                keeps_instructions=options.system is not None,
            )
        loading = asyncio.create_task(engine.warm(session.model))
        try:
            yield engine, session, loading
        finally:
            loading.cancel()
            # A model that would not load has failed the turn that needed it, with its error.
            await asyncio.gather(loading, return_exceptions=True)


def load_tools(paths: Sequence[Path]) -> Toolbox | None:
    """The ``@tool`` functions of Python files. Raises ``ConfigError``."""
    if not paths:
        return None
    from antiphon.tools.toolbox import Toolbox  # loaded on first use

    return Toolbox([one for path in paths for one in _load_tool_file(path)])


def _load_tool_file(path: Path) -> list[Tool[..., Any]]:
    """Run a Python file and return its tools, in their order. Raises ``ConfigError``."""
    from antiphon.tools.function_tool import Tool  # loaded on first use

    if not path.is_file():
        raise ConfigError(f"--tools {path}: there is no such file")
    name = f"antiphon_tools_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--tools {path}: that is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Type hints of its functions are looked up by the module's name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"--tools {path}: {type(error).__name__}: {error}") from error
    tools = [one for one in vars(module).values() if isinstance(one, Tool)]
    if not tools:
        raise ConfigError(f"--tools {path}: it has no function with @tool")
    return tools


def _choose_model(
    service: TurnService, head: Response | None, note: Callable[[str], None], *, has_flag: bool
) -> str:
    """The model to use where a chat has none: the one of --model, else the default.

    Without a default, that of the chat that is gone on with. Raises ``ConfigError`` or
    ``ModelNotFoundError``, before anything is asked.
    """
    model = None
    if head is not None and not has_flag:
        try:
            model = service.models.get(head.header.model)[0]
        except ModelNotFoundError:
            note(f"the model {head.header.model} is not there now")
    try:
        return service.models.get(None)[0]
    except InvalidRequestError as error:
        if model is not None:
            return model
        raise ConfigError(
            f"{error.message} That is done with --model or ANTIPHON_MODEL."
        ) from error


async def find_head(engine: Engine, newest: bool, name: str | None) -> Response | None:
    """The response to continue: of the newest chat, by its id or its chat's, or none.

    Raises ``NotFoundError``.
    """
    if newest:
        chats = await engine.stores.chats.list_chats(DEFAULT_TENANT, 1)
        if not chats:
            raise NotFoundError("there is no chat to continue: begin one with `antiphon chat`")
        name = chats[0].head
    if name is None:
        return None
    response_id = await find_response_id(engine, name)
    return await engine.service.reader.response(DEFAULT_TENANT, response_id)


def is_response_id(name: str) -> bool:
    """Whether a name is no chat's and no conversation's."""
    return not name.startswith(("chat_", "conv_"))


async def find_response_id(engine: Engine, name: str) -> str:
    """The id of a response: that is given, or the newest one's of a chat or a conversation.

    Raises ``NotFoundError``.
    """
    if is_response_id(name):
        return name
    if name.startswith("conv_"):
        conversation = await engine.stores.conversations.get(DEFAULT_TENANT, name)
        head = conversation.head if conversation is not None else None
    else:
        chat = await engine.stores.chats.get(DEFAULT_TENANT, name)
        head = chat.head if chat is not None else None
    if head is None:
        from antiphon.turn.chats import chat_not_found  # loaded on first use

        raise chat_not_found(name)
    return head
