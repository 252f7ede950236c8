"""``AsyncConversation``, and ``Conversation``, its blocking twin: the API people import.

    chat = Conversation(model="smollm2", instructions="You are a helpful assistant.")
    print(chat.send("My name is Alice.").text)
    for delta in chat.stream("What's my name?"):
        print(delta, end="", flush=True)
    later = Conversation.resume(chat.response_id)      # another process, days later

Every turn is stored before it is answered. Settings come from where the command
line has them (file, environment), so both talk over the same turns.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any

import msgspec

from antiphon.core.events import RefusalDelta, TextDelta
from antiphon.core.items import Message, said
from antiphon.core.turns import NOBODY, Options, Response, TurnRequest, TurnStatus, Usage
from antiphon.errors import InvalidRequest
from antiphon.portal import Portal
from antiphon.settings import Settings, load_settings
from antiphon.turn.live import LiveTurn
from antiphon.turn.service import TurnService


class Reply(msgspec.Struct, frozen=True):
    """The model's answer to one message.

    ``status`` is "completed", or "incomplete" if the answer was cut at its length
    limit. ``usage`` counts tokens, None where the model reported none.
    """

    text: str
    response_id: str
    status: TurnStatus
    model: str
    usage: Usage | None


class AsyncConversation:
    """A conversation with a model, kept turn by turn.

    ``model`` None is the settings' default. ``instructions`` are shown to the model
    first at every turn. ``temperature`` (0 to 2), ``top_p`` (0 to 1) and
    ``max_output_tokens`` None are the model's own defaults. ``settings`` None reads
    file and environment as the command line does.

    Methods raise ``AntiphonError``; a failed turn leaves the conversation where it
    was, so that sending again tries again and doubles nothing. One conversation takes
    one turn at a time: two at once both go on from the same place, as two branches.
    """

    def __init__(  # noqa: PLR0913 - what people set by hand, by name
        self,
        model: str | None = None,
        *,
        instructions: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_output_tokens: int | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.model = model
        self.instructions = instructions
        self._options = Options(
            temperature=temperature, top_p=top_p, max_output_tokens=max_output_tokens
        )
        self._settings = settings or load_settings()
        self._response_id: str | None = None

    @property
    def response_id(self) -> str | None:
        """The id of the newest turn, to go on from; None before the first."""
        return self._response_id

    @classmethod
    async def resume(
        cls,
        response_id: str,
        *,
        model: str | None = None,
        settings: Settings | None = None,
    ) -> AsyncConversation:
        """Go on from any stored response: the newest of a conversation, or a branch.

        Instructions, settings and (unless given) the model are that response's.
        Raises ``NotFound``.
        """
        chat = cls(model, settings=settings)
        response = await (await chat._service()).response(NOBODY, response_id)
        header = response.header
        chat.model = model or header.model
        chat.instructions = header.instructions
        chat._options = header.options
        chat._response_id = response.id
        return chat

    async def send(self, text: str) -> Reply:
        """Say something and wait for the whole answer."""
        turn = await self._start(text, stream=False)
        try:
            response = await turn.result()
        finally:
            if not turn.done():
                await turn.cancel()
        return self._took(turn, response)

    async def stream(self, text: str) -> AsyncGenerator[str, None]:
        """Say something and read the answer as it is written.

        Closing the iterator early stops the answer; what arrived is kept, and the
        conversation goes on from there.
        """
        turn = await self._start(text, stream=True)
        try:
            async for batch in turn.events():
                for event in batch:
                    if isinstance(event, TextDelta | RefusalDelta):
                        yield event.text
        finally:
            if not turn.done():
                await turn.cancel()
            if turn.error is None:
                self._response_id = turn.response_id
        self._took(turn, await turn.result())

    async def messages(self) -> list[dict[str, Any]]:
        """The messages array so far, in the chat completions dialect."""
        if self._response_id is None:
            return [{"role": "system", "content": self.instructions}] if self.instructions else []
        return await (await self._service()).messages(NOBODY, self._response_id)

    async def _service(self) -> TurnService:
        from antiphon.assemble import shared_engine  # loaded on first use

        return (await shared_engine(self._settings)).service

    async def _start(self, text: str, *, stream: bool) -> LiveTurn:
        if not isinstance(text, str):
            raise InvalidRequest("Send a string.", code="invalid_type", param="text")
        service = await self._service()
        return await service.start(
            TurnRequest(
                input=(Message("user", text),),
                model=self.model,
                previous_response_id=self._response_id,
                instructions=self.instructions,
                options=self._options,
                stream=stream,
            )
        )

    def _took(self, turn: LiveTurn, response: Response) -> Reply:
        """The turn is over: move on to it, or raise what made it fail."""
        if turn.error is not None:
            raise turn.error
        self._response_id = response.id
        return Reply(
            text="".join(map(said, response.output)),
            response_id=response.id,
            status=response.status,
            model=response.header.model,
            usage=response.end.usage if response.end else None,
        )


async def _close_shared() -> None:
    from antiphon.assemble import close_shared  # loaded on first use

    await close_shared()


_portal = Portal(_close_shared)


class Conversation:
    """``AsyncConversation`` for code that is not async; safe wherever it is called from.

    The same arguments, methods and errors, without ``await``. The work is done on a
    thread of antiphon's own, so a running event loop (a notebook's) is no obstacle.
    """

    def __init__(  # noqa: PLR0913 - what people set by hand, by name
        self,
        model: str | None = None,
        *,
        instructions: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_output_tokens: int | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._twin = AsyncConversation(
            model,
            instructions=instructions,
            temperature=temperature,
            top_p=top_p,
            max_output_tokens=max_output_tokens,
            settings=settings,
        )

    @property
    def response_id(self) -> str | None:
        """The id of the newest turn, to go on from; None before the first."""
        return self._twin.response_id

    @property
    def model(self) -> str | None:
        """The model's name; None is the settings' default."""
        return self._twin.model

    @property
    def instructions(self) -> str | None:
        """What the model is shown first at every turn."""
        return self._twin.instructions

    @classmethod
    def resume(
        cls,
        response_id: str,
        *,
        model: str | None = None,
        settings: Settings | None = None,
    ) -> Conversation:
        """Go on from any stored response: the newest of a conversation, or a branch."""
        chat = cls.__new__(cls)
        chat._twin = _portal.run(
            AsyncConversation.resume(response_id, model=model, settings=settings)
        )
        return chat

    def send(self, text: str) -> Reply:
        """Say something and wait for the whole answer."""
        return _portal.run(self._twin.send(text))

    def stream(self, text: str) -> Generator[str, None, None]:
        """Say something and read the answer as it is written; closing early stops it."""
        deltas = self._twin.stream(text)

        async def step() -> str | None:
            return await anext(deltas, None)

        try:
            while (delta := _portal.run(step())) is not None:
                yield delta
        finally:
            # A generator that outlives the program's end was stopped with it.
            if not _portal.closed:
                _portal.run(deltas.aclose())

    def messages(self) -> list[dict[str, Any]]:
        """The messages array so far, in the chat completions dialect."""
        return _portal.run(self._twin.messages())
