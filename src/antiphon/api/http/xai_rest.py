"""xAI's REST endpoints: language models with their prices, the API key, the tokens of a text."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import ApiKeyAuthenticator, credential_of
from antiphon.api.common.body import decode_body, read_body
from antiphon.api.http.asgi_responses import send_json
from antiphon.core.api_keys import ALL_ACLS, redact_api_key
from antiphon.core.token_prices import PriceLookup, cached_price, list_price
from antiphon.turn.protocols import Model
from antiphon.turn.service import TurnService

_encode = msgspec.json.Encoder().encode


class TokenizeText(msgspec.Struct, frozen=True):
    """What ``POST /v1/tokenize-text`` takes."""

    text: str
    model: str | None = None


_tokenize_text = msgspec.json.Decoder(TokenizeText)


class XaiEndpoints:
    """The endpoints, over one service."""

    def __init__(
        self, service: TurnService, authenticator: ApiKeyAuthenticator, prices: PriceLookup
    ) -> None:
        self._service = service
        self._authenticator = authenticator
        self._prices = prices

    async def list_language_models(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/language-models"""
        models = [self._model_body(name, model) for name, model in self._service.models.items()]
        await send_json(send, _encode({"models": models}))

    async def retrieve_language_model(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/language-models/{id}"""
        name, model = self._service.models.get(scope["path_params"]["id"])
        await send_json(send, _encode(self._model_body(name, model)))

    async def retrieve_api_key(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/api-key: the key of this request, without what would open anything"""
        credential = credential_of(dict(scope["headers"]))
        body: dict[str, Any] = {
            # What the client sent is nobody's key, and no part of it is shown.
            "redacted_api_key": "none (no keys configured)",
            "api_key_id": "none",
            "name": "no keys configured",
            "user_id": "",
            "team_id": "",
            "create_time": None,
            "modify_time": None,
            "modified_by": "",
            "acls": ALL_ACLS,
            "api_key_blocked": False,
            "api_key_disabled": False,
            "team_blocked": False,
        }
        if await self._authenticator.is_required(credential):
            key = await self._authenticator.authenticate(credential)
            created = datetime.fromtimestamp(int(key.created_at), UTC)
            body |= {
                "redacted_api_key": redact_api_key(credential),
                "api_key_id": key.id,
                "name": key.name or "",
                **dict.fromkeys(("user_id", "team_id", "modified_by"), key.tenant),
                **dict.fromkeys(("create_time", "modify_time"), created),
            }
        await send_json(send, _encode(body))

    async def tokenize_text(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/tokenize-text"""
        params = decode_body(_tokenize_text, await read_body(receive))
        _, tokens = await self._service.tokenize(params.model, params.text)
        token_ids = [
            {
                "token_id": one.id,
                "string_token": one.data.decode(errors="replace"),
                "token_bytes": list(one.data),
            }
            for one in tokens
        ]
        await send_json(send, _encode({"token_ids": token_ids}))

    def _model_body(self, name: str, model: Model) -> dict[str, Any]:
        price = self._prices(name)
        input_price = 0 if price is None else list_price(price.input)
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": model.info.owned_by,
            "version": version("antiphon"),
            "fingerprint": f"antiphon-{version('antiphon')}",
            "aliases": [],
            "input_modalities": ["text", "image"] if model.info.images else ["text"],
            "output_modalities": ["text"],
            "prompt_text_token_price": input_price,
            "prompt_image_token_price": input_price,
            "cached_prompt_text_token_price": (
                0 if price is None else list_price(cached_price(price))
            ),
            "completion_text_token_price": 0 if price is None else list_price(price.output),
            "search_price": 0,
        }
