"""``/v1/responses``: start a turn, find it again, erase it."""

from __future__ import annotations

from urllib.parse import parse_qs

import msgspec

from antiphon.api.http.answers import (
    Watch,
    send_chunk,
    send_error,
    send_json,
    start_stream,
)
from antiphon.api.http.body import Receive, Scope, Send, read_body
from antiphon.api.http.events import DONE, EventEncoder
from antiphon.api.http.pages import page_of
from antiphon.api.http.wire import decode_request, encode_response, input_items
from antiphon.core.turns import NOBODY
from antiphon.errors import AntiphonError, InvalidRequest
from antiphon.turn.live import LiveTurn
from antiphon.turn.service import TurnService

_YES = {"true", "1"}
_encode = msgspec.json.Encoder().encode


class Responses:
    """The endpoints, over one service."""

    def __init__(self, service: TurnService) -> None:
        self._service = service

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/responses"""
        request = decode_request(await read_body(receive))
        turn = await self._service.start(request)
        with Watch(receive, turn):
            if request.stream:
                await _stream(turn, send)
            else:
                response = await turn.result()
                if turn.error is not None:
                    await send_error(send, turn.error)
                else:
                    await send_json(send, encode_response(response))

    async def retrieve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/responses/{id}"""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if query.get("stream", [""])[-1].lower() in _YES:
            raise InvalidRequest(
                "This server does not replay streams yet.",
                code="unsupported_parameter",
                param="stream",
            )
        response = await self._service.response(NOBODY, scope["path_params"]["id"])
        await send_json(send, encode_response(response))

    async def delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """DELETE /v1/responses/{id}, with ?cascade=true its descendants too"""
        response_id = scope["path_params"]["id"]
        query = parse_qs(scope["query_string"].decode("latin-1"))
        cascade = query.get("cascade", [""])[-1].lower() in _YES
        await self._service.delete(NOBODY, response_id, cascade=cascade)
        # The word is OpenAI's: what is deleted is shown as a response.
        body = {"id": response_id, "object": "response", "deleted": True}
        await send_json(send, _encode(body))

    async def list_input(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/responses/{id}/input_items: this turn's own, newest first"""
        response = await self._service.response(NOBODY, scope["path_params"]["id"])
        query = parse_qs(scope["query_string"].decode("latin-1"))
        await send_json(send, _encode(page_of(input_items(response), query)))


async def _stream(turn: LiveTurn, send: Send) -> None:
    encoder = EventEncoder(turn.opening)
    started = False
    try:
        async for batch in turn.events():
            body = encoder.encode(batch)
            if not started:
                # Not before there is something to say: a turn that cannot be kept at
                # all still gets an honest HTTP status.
                await start_stream(send)
                started = True
            await send_chunk(send, body)
    except AntiphonError as lost:
        if not started:
            raise
        await send_chunk(send, encoder.failed(lost))
    await send_chunk(send, DONE, last=True)
