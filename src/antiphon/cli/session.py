"""Opens the engine for a chat, and says how to go on when it is over."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from antiphon import __version__
from antiphon.bootstrap import open_engine
from antiphon.cli import one_shot, terminal_output
from antiphon.cli.chat_loop import ChatSession, find_head
from antiphon.cli.interrupt import InterruptHandler, run_interruptible
from antiphon.core.turns import Options, Response
from antiphon.errors import ConfigError, InvalidRequestError, ModelNotFoundError
from antiphon.settings import Settings, load_settings
from antiphon.turn.service import TurnService


class ChatCommandOptions(msgspec.Struct, frozen=True):
    """What the command line asked of a chat, besides settings."""

    prompt: str | None
    system: str | None
    newest: bool
    response_id: str | None
    temperature: float | None
    max_tokens: int | None
    has_model_flag: bool


def run_chat(flags: Mapping[str, str | None], options: ChatCommandOptions) -> int:
    """Talk until it is over; returns the exit code."""
    settings = load_settings(flags)
    if options.prompt is None and sys.stdin.isatty() and sys.stdout.isatty():
        run_interruptible(partial(_run_interactive, settings, options, flags.get("store")))
        return 0
    return run_interruptible(
        partial(_run_one_shot, settings, options, one_shot.read_prompt(options.prompt))
    )


async def _run_one_shot(
    settings: Settings, options: ChatCommandOptions, text: str, interrupt: InterruptHandler
) -> int:
    async with _open_session(settings, options, interrupt) as talk:
        return await one_shot.ask_once(talk, text)


async def _run_interactive(
    settings: Settings, options: ChatCommandOptions, store: str | None, interrupt: InterruptHandler
) -> None:
    from antiphon.cli import terminal  # loaded on first use

    async with _open_session(settings, options, interrupt) as talk:
        terminal_output.print_note(
            f"antiphon {__version__}, {talk.model}; Ctrl-C stops an answer, Ctrl-D leaves"
        )
        if talk.head:
            await terminal.print_last_turn(talk)
        await terminal.run_chat_loop(talk)
    if talk.head and settings.store != "memory:":
        given = f" --store {shlex.quote(store)}" if store else ""
        terminal_output.print_note(f"go on with: {_program_name()} chat --continue{given}")


@asynccontextmanager
async def _open_session(
    settings: Settings, options: ChatCommandOptions, interrupt: InterruptHandler
) -> AsyncIterator[ChatSession]:
    """A talk on an open engine, its model loading in the background."""
    async with open_engine(settings) as engine:
        await engine.choose_model()
        head = await find_head(engine.service, options.newest, options.response_id)
        model = _choose_model(engine.service, options, head)
        loading = asyncio.create_task(engine.warm(model))
        try:
            yield ChatSession(
                engine.service,
                interrupt,
                model=model,
                instructions=options.system or (head.header.instructions if head else None),
                options=Options(
                    temperature=options.temperature, max_output_tokens=options.max_tokens
                ),
                head=head.id if head else None,
                loading=loading,
            )
        finally:
            loading.cancel()
            # A model that would not load has failed the turn that needed it, and said so.
            await asyncio.gather(loading, return_exceptions=True)


def _choose_model(service: TurnService, options: ChatCommandOptions, head: Response | None) -> str:
    """The model to talk to: the one asked for, else the conversation's own, else the default.

    Raises before a person types: ``ConfigError`` or ``ModelNotFoundError``.
    """
    if head is not None and not options.has_model_flag:
        try:
            return service.models.get(head.header.model)[0]
        except ModelNotFoundError:
            terminal_output.print_note(f"the model {head.header.model} is not there now")
    try:
        return service.models.get(None)[0]
    except InvalidRequestError as undecided:
        raise ConfigError(
            f"{undecided.message} That is done with --model or ANTIPHON_MODEL."
        ) from undecided


def _program_name() -> str:
    """This program's name, as a shell in this folder would find it."""
    here = Path(sys.argv[0])
    on_path = shutil.which(here.name)
    if on_path and Path(on_path).resolve() == here.resolve():
        return here.name
    return sys.argv[0]
