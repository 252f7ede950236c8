"""``/v1/models``: what there is to talk to."""

from __future__ import annotations

from typing import Any

import msgspec

from antiphon.api.common.body import Receive, Scope, Send
from antiphon.api.http.asgi_responses import send_json
from antiphon.turn.protocols import Model
from antiphon.turn.service import TurnService

_encode = msgspec.json.Encoder().encode


class ModelEndpoints:
    """The endpoints, over one service."""

    def __init__(self, service: TurnService) -> None:
        self._service = service

    async def list_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/models"""
        data = [_model_body(name, model) for name, model in self._service.models.items()]
        await send_json(send, _encode({"object": "list", "data": data}))

    async def retrieve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/models/{id}"""
        name, model = self._service.models.get(scope["path_params"]["id"])
        await send_json(send, _encode(_model_body(name, model)))


def _model_body(name: str, model: Model) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": model.info.owned_by}
