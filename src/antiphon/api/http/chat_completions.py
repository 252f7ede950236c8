"""Chat Completions endpoint: ``/v1/chat/completions``, stateless; clients send all messages."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from antiphon.api.common.body import read_body
from antiphon.api.http.asgi_responses import (
    DisconnectWatcher,
    KeepAlive,
    StreamHead,
    log,
    send_chunk,
    send_error,
    send_json,
    server_failure,
)
from antiphon.api.http.chat_completion_requests import decode_chat_request
from antiphon.api.http.chat_completions_codec import (
    ChatCompletionChunkEncoder,
    encode_completion,
    encode_stream_error,
)
from antiphon.api.http.stream_events import DONE
from antiphon.core.events import Created, Event
from antiphon.errors import AntiphonError
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService


class ChatCompletionsEndpoint:
    """The endpoint, over one service."""

    def __init__(self, service: TurnService) -> None:
        self._service = service

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/chat/completions"""
        request = decode_chat_request(await read_body(receive))
        with DisconnectWatcher(receive) as watch:
            turn = watch.turn = await self._service.start(request.turn)
            if request.turn.stream:
                encoder = ChatCompletionChunkEncoder(
                    turn.initial_response,
                    include_usage=request.include_usage,
                    legacy_functions=request.legacy_functions,
                )
                await _send_stream(turn, send, encoder)
            else:
                response = await turn.result()
                if turn.error is not None:
                    await send_error(send, turn.error)
                else:
                    await send_json(
                        send, encode_completion(response, legacy_functions=request.legacy_functions)
                    )


async def _send_stream(turn: RunningTurn, send: Send, encoder: ChatCompletionChunkEncoder) -> None:
    """Write chunks as they come.

    The head waits for the model's first word, so that a turn which fails before it answers
    with the HTTP status that fits, as a client of this API expects; but not for longer than
    it takes until what lies in between may give the connection up. A failure after that is
    an event of the stream.
    """
    head = StreamHead(send)
    try:
        with KeepAlive(send, head):
            await _write_chunks(turn, send, encoder, head)
        error = turn.error
    except AntiphonError as lost:
        error = lost
    except Exception:
        if not head.sent:
            raise
        log.exception("the stream of %s failed", turn.response_id)
        error = server_failure()
    if error is None:
        await send_chunk(send, DONE, last=True)
    elif head.sent:
        await send_chunk(send, encode_stream_error(error), last=True)
    else:
        await send_error(send, error)


async def _write_chunks(
    turn: RunningTurn, send: Send, encoder: ChatCompletionChunkEncoder, head: StreamHead
) -> None:
    """The chunks of a turn; of one that fails those before its end."""
    held: list[Event] = []
    async for batch in turn.events():
        held += batch
        if all(isinstance(event, Created) for event in held):
            continue
        if turn.error is not None:
            # The last event is the turn's end.
            held.pop()
        if not head.sent:
            if turn.error is not None:
                return
            await head.put()
        body = encoder.encode(held)
        held.clear()
        if body:
            await send_chunk(send, body)
        if turn.error is not None:
            return
