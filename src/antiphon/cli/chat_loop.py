"""One conversation, turn by turn, printed as it is said."""

from __future__ import annotations

import asyncio

from antiphon.cli import terminal_output
from antiphon.cli.interrupt import InterruptHandler
from antiphon.cli.terminal_output import WordWrapper
from antiphon.core.events import Ended, Event, RefusalDelta, TextDelta
from antiphon.core.items import Message
from antiphon.core.turns import DEFAULT_TENANT, Options, Response, TurnRequest
from antiphon.errors import InvalidRequestError, NotFoundError
from antiphon.turn.service import TurnService


class ChatSession:
    """Asks one thing after another, each continuing the last.

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
        """One turn: prints the answer as it comes and returns how the turn ended.

        Raises the error that made the turn fail.
        """
        _check_encodable(text, self._instructions or "")
        live = await self.service.start(
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
            self._interrupt.stop_on_interrupt(live),
            terminal_output.show_spinner(self._spinner_text()) as spinner,
        ):
            ready = self._loading.add_done_callback
            ready(lambda _: spinner.update(""))
            async for batch in live.events():
                said = "".join(map(_event_text, batch))
                if said:
                    spinner.stop()
                    printer.write(said)
                if any(isinstance(event, Ended) for event in batch):
                    spinner.stop()
        printer.end_line()
        response = await live.result()
        if live.error is not None:
            raise live.error
        self.head = response.id
        return response

    async def turns(self) -> list[Response]:
        """The turns so far, oldest first."""
        return await self.service.reader.chain(DEFAULT_TENANT, self.head) if self.head else []

    def _spinner_text(self) -> str:
        return "" if self._loading.done() else f"loading {self.model} ..."


def _check_encodable(*texts: str) -> None:
    """Bytes that are no text come as lone surrogates from a shell; no model can be sent those."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError("what is asked is not valid text") from error


class _AnswerPrinter:
    """Writes an answer and sees to it that it ends with a line's end.

    On a terminal lines break between words; elsewhere the answer stays as it is.
    """

    def __init__(self) -> None:
        self._line_open = False
        columns = terminal_output.terminal_width()
        self._wrap = WordWrapper(columns) if columns else None

    def write(self, text: str) -> None:
        terminal_output.print_output(text, self._wrap)
        self._line_open = not text.endswith("\n")

    def end_line(self) -> None:
        if self._line_open:
            terminal_output.print_output("\n")


def _event_text(event: Event) -> str:
    return event.text if isinstance(event, TextDelta | RefusalDelta) else ""


async def find_head(service: TurnService, newest: bool, response_id: str | None) -> Response | None:
    """What to go on from: the newest conversation, a response, or nothing.

    Raises ``NotFoundError`` if that is not there.
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
    """What a person should know of an answer that did not come to its own end."""
    if response.status == "cancelled":
        return "stopped; what arrived is kept" if response.output else "stopped"
    if response.end is not None and response.end.reason == "max_output_tokens":
        return "cut off: the answer reached its maximum of tokens"
    if response.status == "incomplete":
        return "the answer is incomplete"
    return None
