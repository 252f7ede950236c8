"""Turn execution: one message to its reply, with one repair turn for invalid structured output."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec

from antiphon.chat.images import load_image
from antiphon.chat.options import Decisions, SendOptions, plain_string
from antiphon.chat.reply import Reply, build_reply, format_call_names
from antiphon.chat.structured_output import OutputSchema
from antiphon.core.events import Event
from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    Part,
    Refusal,
)
from antiphon.core.turns import FunctionTool, Response, TurnRequest
from antiphon.errors import InvalidOutputError, InvalidRequestError
from antiphon.tools.tool_outputs import declined_output
from antiphon.turn.running_turns import OnStart, RunningTurn


class TurnExecution:
    """Runs one request as a turn. ``reply`` is set once it has ended well.

    ``start_turn`` starts a turn, ``set_response_id`` moves the conversation to a response.
    ``keep_partial`` moves it to one that was stopped, and is told which it continued.
    """

    def __init__(
        self,
        start_turn: Callable[[TurnRequest, OnStart], Awaitable[RunningTurn]],
        set_response_id: Callable[[str], None],
        keep_partial: Callable[[str, str | None], None],
        build_request: Callable[[], Awaitable[TurnRequest]],
        schema: OutputSchema[Any] | None,
    ) -> None:
        self._start_turn = start_turn
        self._set_response_id = set_response_id
        self._keep_partial = keep_partial
        self._build_request = build_request
        self._schema = schema
        self.reply: Reply[Any] | None = None
        self._repair_requested = False
        #: The turn that is read, and the response that the conversation was at before it.
        self._turn: RunningTurn | None = None
        self._started_at: str | None = None
        self._is_stopped = False

    async def run(self) -> Reply[Any]:
        """The reply, when it is complete."""
        request: TurnRequest | None = await self._build_request()
        while self.reply is None:
            assert request is not None
            turn = await self._start(request)
            try:
                response = await turn.result()
            finally:
                if not turn.done():
                    await turn.cancel()
            request = self._finish_turn(turn, response, request)
        return self.reply

    async def _start(self, request: TurnRequest) -> RunningTurn:
        begun: list[RunningTurn] = []
        try:
            return await self._start_turn(request, begun.append)
        except asyncio.CancelledError:
            # Whoever has given it up will never hold it.
            for turn in begun:
                turn.stop(None)
            raise

    async def events(self) -> AsyncGenerator[Event, None]:
        """All events up to the reply, or up to where ``stop`` was called."""
        request: TurnRequest | None = await self._build_request()
        self._started_at = request.previous_response_id if request is not None else None
        while request is not None and not self._is_stopped:
            request = msgspec.structs.replace(request, stream=True)
            self._turn = turn = await self._start(request)
            try:
                if self._is_stopped:
                    await turn.cancel()
                async for batch in turn.events():
                    for event in batch:
                        yield event
            except (GeneratorExit, asyncio.CancelledError):
                # The reader closed the stream: the conversation continues from what has arrived.
                await self._stop_turn(turn)
                raise
            finally:
                if not turn.done():
                    await turn.cancel()
            if self._is_stopped:
                await self._stop_turn(turn)
                return
            request = self._finish_turn(turn, await turn.result(), request)

    async def stop(self) -> None:
        """Stop what ``events`` reads; the conversation continues from what has arrived."""
        if self.reply is None and not self._is_stopped:
            self._is_stopped = True
            if self._turn is not None and not self._turn.done():
                await self._stop_turn(self._turn)

    async def _stop_turn(self, turn: RunningTurn) -> None:
        await turn.cancel()
        if turn.error is None:
            self._keep_partial(turn.response_id, self._started_at)

    def parse_partial(self, text: str) -> Any:
        """The object so far in a text that grows."""
        if self._schema is None:
            raise InvalidRequestError(
                "objects() needs a type: give returns=.", code="missing_required_parameter"
            )
        return self._schema.parse_partial(text)

    def _finish_turn(
        self, turn: RunningTurn, response: Response, request: TurnRequest
    ) -> TurnRequest | None:
        """Move on to a turn that is over, or raise what made it fail.

        An answer that does not fit its shape is asked for once more: the request for that.
        """
        if turn.error is not None:
            raise turn.error
        reply = build_reply(response)
        if self._schema is not None and not reply.pending:
            try:
                value = self._schema.parse(reply.text)
            except InvalidOutputError as misfit:
                return self._request_repair(self._schema, misfit, response, request)
            reply = msgspec.structs.replace(reply, value=value)
        self._set_response_id(response.id)
        self.reply = reply
        return None

    def _request_repair(
        self,
        schema: OutputSchema[Any],
        error: InvalidOutputError,
        response: Response,
        request: TurnRequest,
    ) -> TurnRequest:
        """Ask for the same answer once more, in the right shape; where that may help."""
        error.response_id = response.id
        if response.status == "incomplete":
            cut = InvalidOutputError(
                "The answer was cut off before it was whole: allow more output tokens.",
                text=error.text,
            )
            cut.response_id = response.id
            raise cut from error
        if self._repair_requested or _is_refusal(response):
            raise error
        self._repair_requested = True
        return msgspec.structs.replace(
            request,
            input=(Message("user", schema.repair_prompt(error)),),
            previous_response_id=response.id,
            sibling_of=None,
            approved_calls=(),
            on_decided=None,
        )


class CallDecisions(msgspec.Struct, frozen=True):
    """Approval decisions: the calls to run, and the outputs of the declined ones."""

    approved_calls: tuple[FunctionCall, ...]
    declined_outputs: tuple[FunctionCallOutput, ...]


def apply_decisions(pending: tuple[FunctionCall, ...], decisions: Decisions) -> CallDecisions:
    """Split the open calls by decision. Each needs one, and there may be no others."""
    if not isinstance(decisions, Mapping):
        raise InvalidRequestError(
            "decisions is a dict: {call_id: True, False or the reason for your no}.",
            code="invalid_type",
            param="decisions",
        )
    waiting = {call.call_id: call for call in pending}
    if strange := [call_id for call_id in decisions if call_id not in waiting]:
        raise InvalidRequestError(
            f"No call with the id {strange[0]!r} waits for a decision.",
            code="tool_call_not_found",
            param="decisions",
        )
    if missing := tuple(call for call_id, call in waiting.items() if call_id not in decisions):
        raise InvalidRequestError(
            f"{format_call_names(missing)} waits for a decision: send it along,"
            " as decisions={call_id: True, False or the reason for your no}.",
            code="decision_needed",
            param="decisions",
        )
    for decision in decisions.values():
        if not isinstance(decision, bool | str):
            raise InvalidRequestError(
                f"A decision is True, False or a reason, not {decision!r}.",
                code="invalid_type",
                param="decisions",
            )
    return CallDecisions(
        approved_calls=tuple(
            call for call_id, call in waiting.items() if decisions[call_id] is True
        ),
        declined_outputs=tuple(
            FunctionCallOutput(
                call_id, declined_output(decision if isinstance(decision, str) else None)
            )
            for call_id, decision in decisions.items()
            if decision is not True
        ),
    )


def check_tools(approved: tuple[FunctionCall, ...], tools: tuple[FunctionTool, ...]) -> None:
    """Refuse to run calls whose tools are not here: told as an error, they would be over."""
    names = [tool.name for tool in tools]
    if missing := tuple(call for call in approved if call.name not in names):
        raise InvalidRequestError(
            f"There is no tool for {format_call_names(missing)}: give the conversation its"
            " tools again.",
            code="tool_not_found",
            param="tools",
        )


async def user_message(
    text: str | None, options: SendOptions, *, required: bool
) -> tuple[Item, ...]:
    """A message of text and images; no item if there is neither."""
    if text is not None and not isinstance(text, str):
        raise InvalidRequestError(
            f"A message is a string, not {type(text).__name__}.", code="invalid_type", param="text"
        )
    text = plain_string(text)
    given: Any = options.get("images")
    # The bytes of an empty file are false, too, and must not go unnoticed.
    if given is None:
        given = ()
    # One picture is not a list of them: a path would be read letter by letter.
    one = isinstance(given, str | bytes | bytearray | memoryview)
    sources = list(given) if isinstance(given, Iterable) and not one else [given]
    images = [await load_image(one, options.get("detail", "auto")) for one in sources]
    if not images:
        if text is None and required:
            raise InvalidRequestError(
                "There is nothing to send: give a text, or images=.",
                code="invalid_type",
                param="text",
            )
        return (Message("user", text),) if text or (text is not None and required) else ()
    words = (InputText(text),) if text else ()
    return (Message("user", (*words, *images)),)


def earlier_call_outputs(turn: Response) -> tuple[FunctionCallOutput, ...]:
    """The outputs that a turn brought for an earlier turn's calls: those tools have run."""
    own = {item.call_id for item in (*turn.input, *turn.output) if isinstance(item, FunctionCall)}
    return tuple(
        item
        for item in turn.output
        if isinstance(item, FunctionCallOutput) and item.call_id not in own
    )


def replace_user_text(items: tuple[Item, ...], text: str) -> tuple[Item, ...]:
    """A turn's input with other words in its last message by the user; its images stay."""
    if not isinstance(text, str) or not text:
        raise InvalidRequestError(
            "The new text is a string that says something.", code="invalid_type", param="new_text"
        )
    text = plain_string(text)
    for index in range(len(items) - 1, -1, -1):
        item = items[index]
        if isinstance(item, Message) and item.role == "user":
            new = msgspec.structs.replace(item, content=_replace_text(item.content, text))
            return (*items[:index], new, *items[index + 1 :])
    raise InvalidRequestError(
        "Nobody said anything in that turn that could be edited.",
        code="nothing_to_edit",
        param="response_id",
    )


def _replace_text(content: str | tuple[Part, ...], text: str) -> str | tuple[Part, ...]:
    parts = () if isinstance(content, str) else content
    images = tuple(part for part in parts if isinstance(part, InputImage))
    return (InputText(text), *images) if images else text


def _is_refusal(response: Response) -> bool:
    return any(
        isinstance(part, Refusal)
        for item in response.output
        if isinstance(item, Message) and not isinstance(item.content, str)
        for part in item.content
    )
