"""``antiphon chat``: an interactive conversation at a terminal, else one question and answer.

The interactive chat itself is in ``interactive``. A one-shot question writes nothing but the answer
to standard output, for scripts.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from antiphon.cli import terminal_output
from antiphon.cli.engine_runner import Flags
from antiphon.cli.interrupt import InterruptHandler, run_interruptible
from antiphon.cli.options import ApiKeyEnv, BaseUrl, Config, Model, Store
from antiphon.core.events import RefusalDelta, TextDelta
from antiphon.core.turns import DEFAULT_TENANT, Options, Response
from antiphon.errors import (
    ConfigError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
)
from antiphon.settings import Settings, load_settings

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine
    from antiphon.cli.interactive.chat_output import ChatOutput, Terminal
    from antiphon.cli.interactive.chat_session import ChatSession
    from antiphon.tools.toolbox import Toolbox
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
    tools: tuple[Path, ...] = ()
    is_plain: bool = False
    picks: bool = False

    def terminal(self) -> Terminal:
        """What standard output is taken for."""
        from antiphon.cli.interactive.chat_output import (  # loaded on first use
            Terminal,
            is_plain_wanted,
        )

        return Terminal(is_plain=self.is_plain or is_plain_wanted())


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
    picks: Annotated[
        bool, typer.Option("--resume", "-r", help="Choose the chat to go on with from a list.")
    ] = False,
    tools: Annotated[
        list[Path] | None,
        typer.Option(
            "--tools",
            metavar="FILE",
            help="Python file whose @tool functions the model may call; may be repeated.",
        ),
    ] = None,
    is_plain: Annotated[
        bool,
        typer.Option(
            "--plain",
            help="No cursor movement, for screen readers. As ACCESSIBLE=1 or TERM=dumb.",
        ),
    ] = False,
    model: Model = None,
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Talk to a model; the conversation is stored.

    At a terminal: /help lists the commands, Esc or Ctrl-C stops an answer, one types on while it
    comes, and exit, quit or Ctrl-D leave. Text piped in is the question, or with -p is added to
    it; then nothing but the answer goes to standard output.
    """
    if sum((newest, picks, response_id is not None)) > 1:
        raise typer.BadParameter("--continue, --resume and --from exclude each other")
    options = ChatCommandOptions(
        prompt=prompt,
        system=system,
        newest=newest,
        response_id=response_id,
        temperature=temperature,
        max_tokens=max_tokens,
        has_model_flag=model is not None,
        tools=tuple(tools or ()),
        is_plain=is_plain,
        picks=picks,
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
        from antiphon.cli.interactive import opening  # loaded on first use

        run_interruptible(partial(opening.run_interactive, settings, options, flags.get("store")))
        return 0
    return run_interruptible(partial(_run_one_shot, settings, options, read_prompt(options.prompt)))


async def _run_one_shot(
    settings: Settings, options: ChatCommandOptions, text: str, interrupt: InterruptHandler
) -> int:
    from antiphon.cli.interactive.chat_output import ChatOutput  # loaded on first use

    output = ChatOutput(options.terminal()) if sys.stdout.isatty() else None
    async with open_session(settings, options) as (_, session, _loading):
        return await ask_once(session, text, interrupt, output)


@asynccontextmanager
async def open_session(
    settings: Settings, options: ChatCommandOptions
) -> AsyncIterator[tuple[Engine, ChatSession, asyncio.Task[None]]]:
    """A chat session on an open engine, and the task that loads its model meanwhile."""
    from antiphon.bootstrap import open_engine  # loaded on first use
    from antiphon.cli.interactive.chat_session import ChatSession  # loaded on first use

    async with open_engine(settings) as engine:
        await engine.choose_model()
        head = await find_head(engine.service, options.newest, options.response_id)
        model = _choose_model(engine.service, options, head)
        loading = asyncio.create_task(engine.warm(model))
        session = ChatSession(
            engine.service,
            model=model,
            instructions=options.system or (head.header.instructions if head else None),
            options=Options(temperature=options.temperature, max_output_tokens=options.max_tokens),
            head=head.id if head else None,
            toolbox=load_tools(options.tools),
            mcp_labels=[server.label for server in settings.mcp],
        )
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
    from antiphon.cli.interactive.tool_files import load_tool_file  # loaded on first use
    from antiphon.tools.toolbox import Toolbox  # loaded on first use

    return Toolbox([one for path in paths for one in load_tool_file(path)])


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


def read_prompt(prompt: str | None) -> str:
    """The question: ``prompt`` and the text piped in. Raises ``InvalidRequestError`` if empty."""
    piped = _read_stdin() if prompt is None or not sys.stdin.isatty() else ""
    text = "\n\n".join(part for part in (prompt, piped.strip("\n")) if part)
    if not text.strip():
        raise InvalidRequestError("there is nothing to ask: the prompt is empty")
    return text


async def ask_once(
    session: ChatSession, text: str, interrupt: InterruptHandler, output: ChatOutput | None
) -> int:
    """Run one turn, print the answer, and return the exit code.

    ``output`` None: the answer goes to a file or a pipe, as the model wrote it.
    """
    from antiphon.cli.interactive.answer_view import AnswerView  # loaded on first use
    from antiphon.cli.waiting_calls import open_calls  # loaded on first use

    turn = await session.start(text)
    view = AnswerView(output, lambda: session.model) if output else None
    last = "\n"
    with interrupt.stop_on_interrupt(turn):
        async for batch in turn.events():
            for event in batch:
                if view is not None:
                    view.show(event)
                elif isinstance(event, TextDelta | RefusalDelta):
                    terminal_output.print_output(event.text)
                    last = event.text[-1:] or last
    if view is not None:
        view.end()
    elif last != "\n":
        terminal_output.print_output("\n")
    response = await turn.result()
    if turn.error is not None:
        raise turn.error
    if open_calls(response):
        terminal_output.print_note(
            f"a call waits for a decision: antiphon approvals ({response.id})"
        )
    if note := terminal_output.status_note(response):
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
