"""``/v1/chat/completions``: stateless, for clients that keep the messages themselves."""

from __future__ import annotations

from contextlib import ExitStack

from antiphon.api.http.answers import (
    Pulse,
    Watch,
    send_chunk,
    send_error,
    send_json,
    start_stream,
)
from antiphon.api.http.body import Receive, Scope, Send, read_body
from antiphon.api.http.chat_wire import (
    ChunkEncoder,
    decode_chat_request,
    encode_completion,
    encode_stream_error,
)
from antiphon.api.http.events import DONE
from antiphon.core.events import Created, Event
from antiphon.turn.live import LiveTurn
from antiphon.turn.service import TurnService


class ChatCompletions:
    """The endpoint, over one service."""

    def __init__(self, service: TurnService) -> None:
        self._service = service

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/chat/completions"""
        request = decode_chat_request(await read_body(receive))
        turn = await self._service.start(request.turn)
        with Watch(receive, turn):
            if request.turn.stream:
                encoder = ChunkEncoder(turn.opening, include_usage=request.include_usage)
                await _stream(turn, send, encoder)
            else:
                response = await turn.result()
                if turn.error is not None:
                    await send_error(send, turn.error)
                else:
                    await send_json(send, encode_completion(response))


async def _stream(turn: LiveTurn, send: Send, encoder: ChunkEncoder) -> None:
    """Write chunks as they come.

    The head waits for the model's first word, so that a turn which fails before it
    answers with the HTTP status that fits, as a client of this API expects.
    """
    with ExitStack() as while_open:
        await _write(turn, send, encoder, while_open)


async def _write(turn: LiveTurn, send: Send, encoder: ChunkEncoder, while_open: ExitStack) -> None:
    held: list[Event] = []
    started = False
    async for batch in turn.events():
        held += batch
        if not started and all(isinstance(event, Created) for event in held):
            continue
        if turn.error is not None:
            if not started:
                await send_error(send, turn.error)
            else:
                rest = encoder.encode(held[:-1])
                await send_chunk(send, rest + encode_stream_error(turn.error), last=True)
            return
        if not started:
            await start_stream(send)
            while_open.enter_context(Pulse(send))
            started = True
        body = encoder.encode(held)
        held.clear()
        if body:
            await send_chunk(send, body)
    await send_chunk(send, DONE, last=True)
