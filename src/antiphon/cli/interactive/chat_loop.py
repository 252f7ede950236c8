"""Chat loop: reads what is typed, answers it, runs commands, until the person leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    suppress,
)
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from antiphon.cli.interactive.answer_view import AnswerView, call_text, has_schema, print_turn
from antiphon.cli.interactive.chat_output import ChatOutput
from antiphon.cli.interactive.chat_session import ChatSession, user_text
from antiphon.cli.interactive.slash_commands import parse_command, question_of
from antiphon.cli.interrupt import InterruptHandler
from antiphon.cli.terminal_output import status_note
from antiphon.core.items import FunctionCall, FunctionCallOutput, Message
from antiphon.core.turns import DEFAULT_TENANT, Response
from antiphon.errors import AntiphonError, InvalidRequestError, ModelNotFoundError
from antiphon.turn.chat_protocols import ChainWindow
from antiphon.turn.chats import ChatService
from antiphon.turn.replay import Replay
from antiphon.turn.running_turns import RunningTurn

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine

_EXIT_WORDS = {"exit", "quit", "/exit", "/quit"}
#: Seconds after which the end of an answer is signalled: it may be unseen by then.
_LONG_ANSWER_SECONDS = 15.0
#: Seconds between two looks at a turn that another process runs.
_STORED_TURN_INTERVAL = 0.25
#: Where a prompt's answer begins, for terminals that jump from one to the next (OSC 133).
ANSWER_MARK = "\x1b]133;C\x1b\\"
_RESULTS_NOTE = "tools have run; what they returned is kept: /retry goes on with it"
_TOOLS_HELP = "leave it open (Ctrl-D), and start with its --tools FILE"
_DECISION_HELP = "y runs it, n does not, e edits its arguments, a runs this tool from now on"


class ChatPrompt(Protocol):
    """Where a person types: ``queue`` holds questions that came while an answer streamed."""

    queue: list[str]
    mark: str
    on_stop: Callable[[], None]

    @property
    def has_text(self) -> bool:
        """Whether something is typed that was not sent."""
        ...

    async def read(self, default: str = "") -> str: ...

    def hold_draft(self) -> AbstractAsyncContextManager[None]:
        """Within this what is typed is about something else than what was typed before."""
        ...

    def watch_keys(self) -> AbstractContextManager[None]: ...

    async def flush(self) -> None: ...

    async def close(self) -> None: ...


Handler: TypeAlias = "Callable[[ChatLoop, str], Awaitable[None]]"


class ChatLoop:
    """What commands work on: the session, the output, the prompt and the engine."""

    def __init__(
        self,
        engine: Engine,
        session: ChatSession,
        output: ChatOutput,
        prompt: ChatPrompt,
        interrupt: InterruptHandler,
        *,
        loading: asyncio.Task[None],
        handlers: Mapping[str, Handler],
        reload_history: Callable[[], Awaitable[None]],
    ) -> None:
        self.engine = engine
        self.session = session
        self.output = output
        self.prompt = prompt
        self._interrupt = interrupt
        self._loading = loading
        self._handlers = handlers
        self._reload_history = reload_history
        self.chats = ChatService(engine.service, engine.stores)
        #: The turn whose question the next text replaces.
        self._edited: Response | None = None
        self._draft = ""
        #: The last answer that failed is gone on from: tools have run in it.
        self._has_results = False
        #: A question failed: those that were queued behind it wait for the person.
        self._is_queue_held = False
        self._cancelling: asyncio.Future[None] | None = None
        #: The turn that was shown last.
        self._shown_turn = ""
        #: What the status line says of the last turn.
        self.status = ""

    async def run(self) -> None:
        """Until the person leaves."""
        try:
            while (text := await self._next_text()) is not None:
                if text:
                    await self._take_interruptible(text)
        finally:
            with suppress(OSError):  # The terminal may be gone.
                for unsent in self.prompt.queue:
                    self.output.note(f"not sent: {unsent}")

    async def answer(self, start: Awaitable[RunningTurn]) -> Response | None:
        """Run a turn to its end and show it; None: it failed. Calls that wait are decided on."""
        turn = None
        try:
            turn = await start
            response = await self._follow(turn)
        except AntiphonError as error:
            self.output.error(error.message)
            self._has_results = turn is not None and await self.session.keep_results(turn)
            if self._has_results:
                self.output.note(_RESULTS_NOTE)
            else:
                self.session.take_back()
            self.output.separate()
            if error.code == "approval_already_decided" and error.response_id is not None:
                await self.go_to(error.response_id)
            return None
        self.session.move_to(turn)
        await self.end_turn(response)
        if response.open_calls:
            await self.decide(response)
        return response

    async def go_to(self, response_id: str) -> None:
        """Go on from a turn, which is shown; from another chat's as that chat goes on."""
        turn = await self.session.service.reader.response(DEFAULT_TENANT, response_id)
        if await self._is_elsewhere(turn.id):
            self.session.enter_chat(turn)
        self.session.head = turn.id
        await self.show_last_turn()

    async def show_last_turn(self) -> None:
        """Print the turn that the next one continues; one that runs yet, as it comes."""
        last = await self.session.skip_queued()
        if last is None:
            return
        part = await self.chats.window(DEFAULT_TENANT, last.id, ChainWindow(1), with_images=False)
        plural = "s" * (part.total != 1)
        self.output.note(f"continuing after {part.total} turn{plural}, {self.session.model}")
        self.output.separate()
        if last.end is None:
            await self.attach(last)
        else:
            for turn in await self.session.turns_since_question(last):
                print_turn(self.output, turn, user_text(turn.input))
            self.output.lines([()])
            await self.end_turn(last)

    async def _is_elsewhere(self, response_id: str) -> bool:
        """Whether a turn is in another chat than the present one."""
        head = self.session.head
        if head is None:
            return True
        here, there = await self.chats.find(DEFAULT_TENANT, [head, response_id])
        return here is None or there is None or here.id != there.id

    async def attach(self, turn: Response) -> None:
        """Show a turn that runs, from its first event to its end.

        Of one that another process runs, what is finished is shown as that process stores it.
        """
        self.output.question(user_text(turn.input))
        service = self.session.service
        source = await service.subscribe(DEFAULT_TENANT, turn.id)
        view = AnswerView(
            self.output,
            lambda: "another process answers",
            is_json=has_schema(turn.header.options),
        )
        if isinstance(source, Replay):
            self.output.note("another process answers this; it is shown here as that stores it")
        self.prompt.on_stop = lambda: self._start_cancelling(turn.id)
        with self.prompt.watch_keys():
            view.wait()
            if isinstance(source, Replay):
                await self._follow_stored(turn.id, view)
            else:
                async for batch in source.events(view.pause):
                    view.show(batch)
            view.end()
        await self.prompt.flush()
        await self.end_turn(await service.reader.response(DEFAULT_TENANT, turn.id))

    async def _follow_stored(self, response_id: str, view: AnswerView) -> None:
        """Show the items of a turn as they come into the store, until it ends."""
        shown = 0
        while True:
            response = await self.session.service.reader.response(DEFAULT_TENANT, response_id)
            for index, item in enumerate(response.output[shown:], shown):
                view.show_item(index, item)
                shown = index + 1
            if response.end is not None:
                return
            await asyncio.sleep(_STORED_TURN_INTERVAL)

    def _start_cancelling(self, response_id: str) -> None:
        """Stop a turn that is followed, where it can be stopped from here."""

        async def cancel() -> None:
            try:
                await self.session.service.cancel(DEFAULT_TENANT, response_id)
            except AntiphonError as error:
                self.output.note(error.message)

        self._cancelling = asyncio.ensure_future(cancel())

    async def decide(self, turn: Response) -> None:
        """Ask about each call of a turn that waits, then go on with what was decided."""
        calls = turn.open_calls
        decisions: dict[str, FunctionCall | str] = {}
        for call in calls:
            if call.name in self.session.approved_tools and self.session.can_run(call):
                decisions[call.call_id] = call
                continue
            # The one that was just shown needs no second time.
            is_shown = len(calls) == 1 and turn.id == self._shown_turn
            decision = await self._ask(call, call.name if is_shown else call_text(call))
            if decision is None:
                self.output.note("it waits: /approve decides later, and so does any other program")
                return
            decisions[call.call_id] = decision
            self.output.note(_decision_text(call, decision))
        await self.answer(self.session.start_decided(decisions))

    async def edit(self, turn: Response) -> None:
        """Have the next text replace the question of ``turn``."""
        self._edited, self._draft = turn, user_text(turn.input)
        self.output.note("edit the question; it becomes a branch, the old one stays")

    async def read_line(self, mark: str, default: str = "") -> str | None:
        """One line for a command; None: the person left it open."""
        before = self.prompt.mark
        # Else what is typed of the next question would be the answer.
        async with self.prompt.hold_draft():
            self.prompt.mark = mark
            try:
                return (await self.prompt.read(default)).strip()
            except (EOFError, KeyboardInterrupt):
                return None
            finally:
                self.prompt.mark = before

    @asynccontextmanager
    async def suspend_keys(self) -> AsyncIterator[None]:
        """Within this another program has the terminal, and Ctrl-C is its own."""
        async with self.prompt.hold_draft():
            with self._interrupt.stop_on_interrupt(lambda: None):
                yield

    async def forget_history(self) -> None:
        """Something was erased: it is no longer offered at the prompt either."""
        await self._reload_history()

    async def _next_text(self) -> str | None:
        """The next question or command, stripped; None: leave."""
        if self.prompt.queue and not self._is_queue_held:
            text = self.prompt.queue.pop(0)
            return None if text.lower() in _EXIT_WORDS else text
        for is_last in (False, True):
            draft, self._draft = self._draft, ""
            try:
                text = (await self.prompt.read(draft)).strip()
                self._is_queue_held = False
            except EOFError:
                return None
            except KeyboardInterrupt:
                if is_last:
                    return None
                self._edited = None
                self.output.note("Ctrl-C again or Ctrl-D leaves")
                continue
            return None if text.lower() in _EXIT_WORDS else text
        return None

    async def _take_interruptible(self, text: str) -> None:
        """Answer it or run it; Ctrl-C ends that, and not the chat."""
        work = asyncio.ensure_future(self._take(text))
        # As a key, where a prompt is open below what is printed.
        self.prompt.on_stop = partial(_cancel, work)
        try:
            with self._interrupt.stop_on_interrupt(work.cancel):
                await asyncio.wait({work})
        finally:
            work.cancel()
        if work.cancelled():
            self.output.note("stopped")
            self.output.separate()
        else:
            work.result()

    async def _take(self, text: str) -> None:
        self._shown_turn = ""
        try:
            command = parse_command(text)
        except InvalidRequestError as error:
            self.output.error(error.message)
            if self.output.terminal.is_plain:
                return  # it stands there, and cannot be edited
            is_path = "/" in text[1:].split(maxsplit=1)[0]
            self._keep_draft(f"/{text}" if is_path else text)
            return
        if command is not None:
            await self._run_command(*command)
            return
        edited, self._edited = self._edited, None
        if edited is None and await self.session.open_calls():
            self.output.note("a call waits for a decision first; your question comes back after it")
            self._keep_draft(text)
            await self.decide(await self.session.last_turn())
            return
        question = question_of(text)
        if not self.output.terminal.is_plain:
            self.output.question(question)
        start = (
            self.session.start(question)
            if edited is None
            else self.session.start_edited(edited, question)
        )
        if await self.answer(start) is None:
            if not self._has_results:
                self._edited = edited
            self.give_back(text)

    def give_back(self, text: str) -> None:
        """What was typed had no answer: it is in the prompt again, to be changed or sent again.

        Where tools have run it is not: sent again, it would have them run again.
        """
        if not self._has_results:
            self._keep_draft(text)
        if self.prompt.queue:
            self._is_queue_held = True
            self.output.note("what is queued waits until you send something")

    def _keep_draft(self, text: str) -> None:
        """Have the prompt begin with a text; say where it is, if something else is typed there."""
        if self.prompt.has_text:
            self.output.note("what you typed before is in the history: ↑ brings it back")
        else:
            self._draft = text

    async def _run_command(self, name: str, argument: str) -> None:
        if not (name == "edit" and argument) and not self.output.terminal.is_plain:
            # Its words are shown as the question that they become.
            self.output.note(f"/{name} {argument}".rstrip())
        self._edited, head = None, self.session.head
        try:
            await self._handlers[name](self, argument)
            if self.session.head != head:
                turn = await self.session.turn()
                self.status = await self._status_of(turn) if turn is not None else ""
        except AntiphonError as error:
            self.output.error(error.message)
        self.output.separate()

    async def _follow(self, turn: RunningTurn) -> Response:
        """Show a turn until its end. Raises the error of a failed one."""
        began = time.monotonic()
        is_json = has_schema(turn.initial_response.header.options)
        view = AnswerView(self.output, self._waiting_note, is_json=is_json)
        self.prompt.on_stop = partial(turn.stop, None)
        with (
            self.prompt.watch_keys(),
            self._interrupt.stop_on_interrupt(self.prompt.on_stop),
        ):
            self.output.control(ANSWER_MARK)
            view.wait()
            self._loading.add_done_callback(lambda _: view.wait())
            async for batch in turn.events(view.pause):
                view.show(batch)
            view.end()
            response = await turn.result()
        await self.prompt.flush()
        if time.monotonic() - began > _LONG_ANSWER_SECONDS:
            self.output.control("\x1b]9;the answer is complete\x1b\\\a")
        if turn.error is not None:
            raise turn.error
        return response

    async def end_turn(self, response: Response) -> None:
        """Note how a turn ended, and what the status line says from now on."""
        if note := status_note(response):
            self.output.note(note)
        if response.status == "failed" and await self.session.turn_with_results():
            self.output.note(_RESULTS_NOTE)
        self.output.separate()
        self._shown_turn = response.id
        self.status = await self._status_of(response)

    async def _status_of(self, response: Response) -> str:
        parts = [response.model]
        beside = await self.engine.stores.chats.siblings(DEFAULT_TENANT, response.id) or ()
        if len(beside) > 1:
            number = [one.response_id for one in beside].index(response.id) + 1
            parts.append(
                f"\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}{number}/{len(beside)}"
                "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
            )
        usage = response.end.usage if response.end else None
        if usage is not None:
            used = usage.input_tokens + usage.output_tokens
            if window := self._context_window(response.header.model):
                filled = await self._context_tokens(response, used)
                parts.append(f"context {100 * filled // window} %")
            parts.append(f"{used} tokens")
        if response.end is not None and response.end.cost:
            parts.append(f"{response.end.cost:.4f}")
        return " · ".join(parts)

    def _context_window(self, model: str) -> int | None:
        try:
            return self.session.service.models.get(model)[1].info.context_window
        except ModelNotFoundError:
            # It answered once, and was taken out of the configuration since.
            return None

    async def _context_tokens(self, response: Response, used: int) -> int:
        """How many tokens the next question comes behind. ``used``: what the turn's calls took."""
        if not any(isinstance(item, FunctionCallOutput) for item in response.output):
            return used
        # The model was called more than once, each time with all that was there.
        next_one = self.session.request((Message("user", "…"),), response.id)
        return await self.session.service.count_tokens(next_one)

    def _waiting_note(self) -> str:
        name = self.session.model
        if not self._loading.done():
            return f"loading {name}"
        return f"{name}: Esc stops it, and you may type on"

    async def _ask(self, call: FunctionCall, shown: str) -> FunctionCall | str | None:
        """A person's decision: the call to run, why not, or None: not now."""
        while True:
            self.output.note(_DECISION_HELP)
            answer = await self.read_line(f"run {shown}? [y/n/e/a] ")
            if answer is None:
                return None
            match answer[:1].lower():
                case "y" | "a" | "e" if not self.session.can_run(call):
                    self.output.error(f"there is no tool {call.name} here to run it: {_TOOLS_HELP}")
                case "y":
                    return call
                case "a":
                    self.session.approved_tools.add(call.name)
                    return call
                case "n":
                    return answer[1:].strip()
                case "e":
                    if (changed := await self._edit_call(call)) is not None:
                        return changed

    async def _edit_call(self, call: FunctionCall) -> FunctionCall | None:
        """A call with the arguments that a person gives it; None: they gave none."""
        arguments = call.arguments
        while arguments := await self.read_line("arguments: ", arguments) or "":
            try:
                msgspec.json.decode(arguments, type=dict)
            except msgspec.DecodeError as error:
                self.output.error(f"the arguments are no JSON object: {error}")
            else:
                return msgspec.structs.replace(call, arguments=arguments)
        return None


def _decision_text(call: FunctionCall, decision: FunctionCall | str) -> str:
    if isinstance(decision, str):
        return f"{call.name}: declined"
    return f"{call.name if decision == call else call_text(decision)}: approved"


def _cancel(work: asyncio.Future[None]) -> None:
    work.cancel()
