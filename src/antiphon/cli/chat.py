"""``antiphon chat``: an interactive conversation at a terminal, else one question and answer.

The interactive prompt itself is ``terminal``. A one-shot question writes nothing but the answer
to standard output, for scripts.
"""

from __future__ import annotations

import asyncio
import select
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from antiphon import __version__
from antiphon.cli import terminal_output
from antiphon.cli.engine_runner import Flags
from antiphon.cli.interrupt import InterruptHandler, run_interruptible
from antiphon.cli.options import ApiKeyEnv, BaseUrl, Config, Model, Store
from antiphon.core.events import Ended, Event, RefusalDelta, TextDelta
from antiphon.core.items import Message
from antiphon.core.turns import DEFAULT_TENANT, Options, Response, TurnRequest
from antiphon.errors import (
    ConfigError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
)
from antiphon.settings import Settings, load_settings
from antiphon.turn.service import TurnService

EXIT_INTERRUPTED = 130
#: Seconds of silence on stdin after which a note says what is being waited for.
_STDIN_NOTICE_DELAY = 3.0


class ChatCommandOptions(msgspec.Struct, frozen=True):
    """The options of ``antiphon chat`` that are no settings."""

    prompt: str | None
    system: str | None
    newest: bool
    response_id: str | None
    temperature: float | None
    max_tokens: int | None
    has_model_flag: bool


def chat(
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p", metavar="TEXT", help="Ask this once, print the answer and leave."
        ),
    ] = None,
    newest: Annotated[
        bool, typer.Option("--continue", "-c", help="Go on with the newest conversation.")
    ] = False,
    response_id: Annotated[
        str | None,
        typer.Option("--from", metavar="ID", help="Go on from any response: this may branch."),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Instructions for the model; a continued conversation keeps its own.",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, max=2, metavar="T", help="0: the likeliest words; more: freer ones."),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Longest answer, in tokens.")
    ] = None,
    model: Model = None,
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Talk to a model; the conversation is stored.

    At a terminal: Ctrl-C stops an answer, Alt-Enter starts a new line, and exit, quit or
    Ctrl-D leave. Text piped in is the question, or with -p is added to it; then nothing
    but the answer goes to standard output.
    """
    if newest and response_id is not None:
        raise typer.BadParameter("--continue and --from exclude each other")
    options = ChatCommandOptions(
        prompt=prompt,
        system=system,
        newest=newest,
        response_id=response_id,
        temperature=temperature,
        max_tokens=max_tokens,
        has_model_flag=model is not None,
    )
    flags = {
        "model": model,
        "base_url": base_url,
        "api_key_env": api_key_env,
        "store": store,
        "config": config,
    }
    raise typer.Exit(run_chat(flags, options))


def run_chat(flags: Flags, options: ChatCommandOptions) -> int:
    """Run the chat to its end; returns the exit code."""
    settings = load_settings(flags)
    if options.prompt is None and sys.stdin.isatty() and sys.stdout.isatty():
        run_interruptible(partial(_run_interactive, settings, options, flags.get("store")))
        return 0
    return run_interruptible(partial(_run_one_shot, settings, options, read_prompt(options.prompt)))


async def _run_one_shot(
    settings: Settings, options: ChatCommandOptions, text: str, interrupt: InterruptHandler
) -> int:
    async with _open_session(settings, options, interrupt) as session:
        return await ask_once(session, text)


async def _run_interactive(
    settings: Settings, options: ChatCommandOptions, store: str | None, interrupt: InterruptHandler
) -> None:
    from antiphon.cli import terminal  # loaded on first use

    async with _open_session(settings, options, interrupt) as session:
        terminal_output.print_note(
            f"antiphon {__version__}, {session.model}; Ctrl-C stops an answer, Ctrl-D leaves"
        )
        if session.head:
            await terminal.print_last_turn(session)
        await terminal.run_chat_loop(session)
    if session.head and settings.store != "memory:":
        option = f" --store {shlex.quote(store)}" if store else ""
        terminal_output.print_note(f"go on with: {_program_name()} chat --continue{option}")


@asynccontextmanager
async def _open_session(
    settings: Settings, options: ChatCommandOptions, interrupt: InterruptHandler
) -> AsyncIterator[ChatSession]:
    """A chat session on an open engine, its model loading in the background."""
    from antiphon.bootstrap import open_engine  # loaded on first use

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
            # A model that would not load has failed the turn that needed it, with its error.
            await asyncio.gather(loading, return_exceptions=True)


def _choose_model(service: TurnService, options: ChatCommandOptions, head: Response | None) -> str:
    """The model to use: the one of --model, else the conversation's own, else the default.

    Raises ``ConfigError`` or ``ModelNotFoundError``, before the first prompt.
    """
    if head is not None and not options.has_model_flag:
        try:
            return service.models.get(head.header.model)[0]
        except ModelNotFoundError:
            terminal_output.print_note(f"the model {head.header.model} is not there now")
    try:
        return service.models.get(None)[0]
    except InvalidRequestError as error:
        raise ConfigError(
            f"{error.message} That is done with --model or ANTIPHON_MODEL."
        ) from error


def _program_name() -> str:
    """This program's name, as a shell in this folder would find it."""
    here = Path(sys.argv[0])
    on_path = shutil.which(here.name)
    if on_path and Path(on_path).resolve() == here.resolve():
        return here.name
    return sys.argv[0]


def read_prompt(prompt: str | None) -> str:
    """The question: ``prompt`` and the text piped in. Raises ``InvalidRequestError`` if empty."""
    piped = _read_stdin() if prompt is None or not sys.stdin.isatty() else ""
    text = "\n\n".join(part for part in (prompt, piped.strip("\n")) if part)
    if not text.strip():
        raise InvalidRequestError("there is nothing to ask: the prompt is empty")
    return text


async def ask_once(session: ChatSession, text: str) -> int:
    """Run one turn, print the answer, and return the exit code."""
    response = await session.send(text)
    if note := status_note(response):
        terminal_output.print_note(note)
    return EXIT_INTERRUPTED if response.status == "cancelled" else 0


def _read_stdin() -> str:
    if sys.stdin.isatty():
        terminal_output.print_note("type what to ask; Ctrl-D ends it")
    elif sys.platform != "win32" and not select.select([sys.stdin], [], [], _STDIN_NOTICE_DELAY)[0]:
        # An open pipe without a writer looks like a hang otherwise.
        terminal_output.print_note("waiting for standard input to end (< /dev/null for none)")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            "standard input is not text in the terminal's encoding"
        ) from error


class ChatSession:
    """Chat session: a chain of turns, each streamed to stdout and continuing the last.

    ``head`` is the id of the response that the next turn continues, None at first. A
    failed turn leaves it where it was. ``loading`` is done when the model is ready.
    """

    def __init__(
        self,
        service: TurnService,
        interrupt: InterruptHandler,
        *,
        model: str,
        instructions: str | None,
        options: Options,
        head: str | None,
        loading: asyncio.Task[None],
    ) -> None:
        self.service = service
        self._interrupt = interrupt
        self._instructions = instructions
        self._options = options
        self._loading = loading
        self.model = model
        self.head = head

    async def send(self, text: str) -> Response:
        """Run one turn: prints the answer as it arrives and returns the response.

        Raises the error of a failed turn.
        """
        _check_encodable(text, self._instructions or "")
        turn = await self.service.start(
            TurnRequest(
                input=(Message("user", text),),
                model=self.model,
                previous_response_id=self.head,
                instructions=self._instructions,
                options=self._options,
                stream=True,
            )
        )
        printer = _AnswerPrinter()
        with (
            self._interrupt.stop_on_interrupt(turn),
            terminal_output.show_spinner(self._spinner_text()) as spinner,
        ):
            self._loading.add_done_callback(lambda _: spinner.update(""))
            async for batch in turn.events():
                text = "".join(map(_event_text, batch))
                if text:
                    spinner.stop()
                    printer.write(text)
                if any(isinstance(event, Ended) for event in batch):
                    spinner.stop()
        printer.end_line()
        response = await turn.result()
        if turn.error is not None:
            raise turn.error
        self.head = response.id
        return response

    async def turns(self) -> list[Response]:
        """The turns so far, oldest first."""
        return await self.service.reader.chain(DEFAULT_TENANT, self.head) if self.head else []

    def _spinner_text(self) -> str:
        return "" if self._loading.done() else f"loading {self.model} ..."


def _check_encodable(*texts: str) -> None:
    """Bytes that are no text arrive as lone surrogates from a shell: no model can be sent those."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError("what is asked is not valid text") from error


class _AnswerPrinter:
    """Writes a streamed answer, word-wrapped on a terminal, and ends it with a newline."""

    def __init__(self) -> None:
        self._line_open = False
        columns = terminal_output.terminal_width()
        self._wrap = terminal_output.WordWrapper(columns) if columns else None

    def write(self, text: str) -> None:
        terminal_output.print_output(text, self._wrap)
        self._line_open = not text.endswith("\n")

    def end_line(self) -> None:
        if self._line_open:
            terminal_output.print_output("\n")


def _event_text(event: Event) -> str:
    return event.text if isinstance(event, TextDelta | RefusalDelta) else ""


async def find_head(service: TurnService, newest: bool, response_id: str | None) -> Response | None:
    """The response to continue: of the newest conversation, by its id, or none.

    Raises ``NotFoundError``.
    """
    if newest:
        recent = await service.reader.recent_threads(DEFAULT_TENANT, 1)
        if not recent:
            raise NotFoundError(
                "there is no conversation to continue: begin one with `antiphon chat`"
            )
        response_id = recent[0].response_id
    return (
        await service.reader.response(DEFAULT_TENANT, response_id)
        if response_id is not None
        else None
    )


def status_note(response: Response) -> str | None:
    """A note on an answer that is cancelled, cut off or incomplete; None for a whole one."""
    if response.status == "cancelled":
        return "stopped; what arrived is kept" if response.output else "stopped"
    if response.end is not None and response.end.reason == "max_output_tokens":
        return "cut off: the answer reached its maximum of tokens"
    if response.status == "incomplete":
        return "the answer is incomplete"
    return None
