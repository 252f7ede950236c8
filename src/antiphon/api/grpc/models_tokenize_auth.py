"""``xai_api.Models``, ``Tokenize`` and ``Auth``: what there is, and who asks."""

from __future__ import annotations

from antiphon.api.common.authorization import Principal
from antiphon.core.api_keys import ALL_ACLS, redact_api_key
from antiphon.core.token_prices import PriceLookup, cached_price, list_price
from antiphon.errors import ModelNotFoundError
from antiphon.protos.xai import Proto, auth_pb2, models_pb2, tokenize_pb2
from antiphon.turn.protocols import Model
from antiphon.turn.service import TurnService


class ModelsServicer:
    """The models there are to talk to."""

    def __init__(self, service: TurnService, prices: PriceLookup, fingerprint: str) -> None:
        self._service = service
        self._prices = prices
        self._fingerprint = fingerprint

    async def list_language(self, caller: Principal, request: Proto) -> Proto:
        models = [self._model_message(name, model) for name, model in self._service.models.items()]
        return models_pb2.ListLanguageModelsResponse(models=models)

    async def get_language(self, caller: Principal, request: Proto) -> Proto:
        return self._model_message(*self._service.models.get(request.name or None))

    async def list_embedding(self, caller: Principal, request: Proto) -> Proto:
        return models_pb2.ListEmbeddingModelsResponse()

    async def list_image(self, caller: Principal, request: Proto) -> Proto:
        return models_pb2.ListImageGenerationModelsResponse()

    async def get_other(self, caller: Principal, request: Proto) -> Proto:
        raise ModelNotFoundError("This server has language models only.", param="name")

    def _model_message(self, name: str, model: Model) -> Proto:
        inputs = [models_pb2.TEXT, *([models_pb2.IMAGE] if model.info.images else [])]
        body = models_pb2.LanguageModel(
            name=name,
            input_modalities=inputs,
            output_modalities=[models_pb2.TEXT],
            max_prompt_length=model.info.context_window,
            system_fingerprint=self._fingerprint,
        )
        if (price := self._prices(name)) is not None:
            body.prompt_text_token_price = body.prompt_image_token_price = list_price(price.input)
            body.cached_prompt_token_price = list_price(cached_price(price))
            body.completion_text_token_price = list_price(price.output)
        return body


class TokenizeServicer:
    """Texts as tokens: exactly, or not at all."""

    def __init__(self, service: TurnService) -> None:
        self._service = service

    async def tokenize_text(self, caller: Principal, request: Proto) -> Proto:
        name, found = await self._service.tokenize(request.model, request.text)
        tokens = [
            tokenize_pb2.Token(
                token_id=one.id,
                string_token=one.data.decode(errors="replace"),
                token_bytes=one.data,
            )
            for one in found
        ]
        return tokenize_pb2.TokenizeTextResponse(tokens=tokens, model=name)


class AuthServicer:
    """What a key is."""

    async def api_key_info(self, caller: Principal, request: Proto) -> Proto:
        key = caller.key
        if key is None:
            # What the client sent is nobody's key, and no part of it is shown.
            return auth_pb2.ApiKey(
                redacted_api_key="none (no keys configured)",
                api_key_id="none",
                name="no keys configured",
                acls=ALL_ACLS,
            )
        body = auth_pb2.ApiKey(
            redacted_api_key=redact_api_key(caller.credential),
            user_id=key.tenant,
            name=key.name or "",
            team_id=key.tenant,
            acls=ALL_ACLS,
            api_key_id=key.id,
            modified_by=key.tenant,
        )
        body.create_time.FromSeconds(int(key.created_at))
        body.modify_time.FromSeconds(int(key.created_at))
        return body
