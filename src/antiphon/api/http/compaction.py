"""``/v1/responses/compact`` and ``/v1/responses/input_tokens``: questions that store nothing."""

from __future__ import annotations

import os
import time

import msgspec

from antiphon.api.common.authentication import tenant_of
from antiphon.api.common.body import Receive, Scope, Send, read_body
from antiphon.api.http.asgi_responses import Watch, send_json
from antiphon.api.http.item_bodies import item_body
from antiphon.api.http.response_body import usage_body
from antiphon.api.http.response_request import decode_request
from antiphon.core.turns import TurnRequest, Usage
from antiphon.errors import InvalidRequest
from antiphon.turn.service import TurnService

_encode = msgspec.json.Encoder().encode


class Compaction:
    """The endpoints, over one service."""

    def __init__(self, service: TurnService) -> None:
        self._service = service

    async def compact(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/responses/compact: a model's summary, to begin another conversation with"""
        body = await read_body(receive)
        request = _decoded(body, scope)
        if request.model is None:
            raise InvalidRequest(
                "Say which model shall sum up.",
                code="missing_required_parameter",
                param="model",
            )
        with Watch(receive):
            made = await self._service.compact(request)
        name = os.urandom(16).hex()
        await send_json(
            send,
            _encode(
                {
                    "id": f"cmpr_{name}",
                    "object": "response.compaction",
                    "created_at": int(time.time()),
                    "output": [item_body(made.item, f"cmp_{name}00")],
                    "usage": usage_body(made.usage or Usage()),
                }
            ),
        )

    async def count(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/responses/input_tokens: what a turn would begin with, in tokens"""
        request = _decoded(await read_body(receive), scope)
        with Watch(receive):
            tokens = await self._service.count(request)
        body = {"object": "response.input_tokens", "input_tokens": tokens}
        await send_json(send, _encode(body))


def _decoded(body: bytes, scope: Scope) -> TurnRequest:
    request = decode_request(body)
    return msgspec.structs.replace(request, tenant=tenant_of(scope), store=False, stream=False)
