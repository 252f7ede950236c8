"""Configured models: the models of the settings, and the GGUF files that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from antiphon.core.turns import Options
from antiphon.errors import ConfigError
from antiphon.models.fallback import FallbackModel
from antiphon.models.llama.few_shot import FEW_SHOT_EXAMPLES
from antiphon.models.llama.model import LlamaModel
from antiphon.models.llama.model_download import (
    SMOLLM2,
    SMOLLM2_DEFAULTS,
    embedded_weights,
    local_models,
)
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.openai.chat_fallback import ResponsesOrChatModel
from antiphon.models.openai.request_rules import RULES, is_rule
from antiphon.models.openai.responses import ResponsesModel
from antiphon.models.openai.upstream_model import READ_TIMEOUT, UpstreamModel
from antiphon.models.scripted import ScriptedModel
from antiphon.settings import ModelSettings, Settings
from antiphon.turn.protocols import Model, ModelInfo


def build_model_registry(settings: Settings) -> ModelRegistry:
    """All models by their names. Raises ``ConfigError`` for what none can be built of."""
    models: dict[str, Model] = {
        local.name: _gguf(local.name, local.path) for local in local_models()
    }
    models |= {name: _model(name, given) for name, given in settings.models.items()}
    models |= {
        name: _with_fallback(name, given.fallback, models)
        for name, given in settings.models.items()
        if given.fallback
    }
    upstream = settings.upstream
    return ModelRegistry(
        models,
        default=settings.model,
        fallback=_upstream_model(settings.model or "upstream", upstream) if upstream else None,
    )


def _with_fallback(name: str, fallback: Sequence[str], models: Mapping[str, Model]) -> Model:
    """A model with those that answer in its place: theirs are not asked, so there is no loop."""
    for other in fallback:
        if other not in models:
            raise ConfigError(f"the model '{name}' falls back to '{other}', which is not there")
    return FallbackModel([(one, models[one]) for one in (name, *fallback)])


def _model(name: str, settings: ModelSettings) -> Model:
    match settings.kind:
        case "chat_completions" | "responses" | "xai-grpc":
            return _upstream_model(name, settings)
        case "scripted":
            return ScriptedModel()
        case "llama":
            return _llama(name, settings)


def _upstream_model(name: str, settings: ModelSettings) -> Model:
    if settings.base_url is None:
        raise ConfigError(f"the model '{name}' has no base URL")
    info = ModelInfo(
        name,
        owned_by="upstream",
        context_window=settings.context,
        images=settings.images is not False,
    )
    key = settings.api_key.reveal() if settings.api_key else None
    if settings.kind == "xai-grpc":
        return _xai_grpc(info, settings, key)
    for quirk in settings.quirks:
        if not is_rule(quirk):
            raise ConfigError(
                f"the model '{name}' has the quirk '{quirk}', which is none of {', '.join(RULES)}"
            )
    kind: type[UpstreamModel] = ChatCompletionsModel
    if settings.kind == "responses":
        kind = ResponsesOrChatModel if settings.has_chat_fallback else ResponsesModel
    return kind(
        info,
        settings.base_url,
        key,
        upstream_name=settings.name,
        read_timeout=settings.timeout or READ_TIMEOUT,
        headers={name: value.reveal() for name, value in settings.headers.items()},
        extra=settings.extra,
        quirks=settings.quirks,
    )


def _xai_grpc(info: ModelInfo, settings: ModelSettings, key: str | None) -> Model:
    try:
        from antiphon.models.xai.model import XaiGrpcModel  # loaded on first use
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the model '{info.name}' needs gRPC: `pip install 'antiphon[grpc]'`"
        ) from error
    return XaiGrpcModel(
        info,
        settings.base_url or "",
        key,
        upstream_name=settings.name,
        read_timeout=settings.timeout or READ_TIMEOUT,
        headers={name: value.reveal() for name, value in settings.headers.items()},
        extra=settings.extra,
    )


def _llama(name: str, settings: ModelSettings) -> Model:
    if settings.path is not None:
        return _gguf(name, settings.path, settings)
    info = SMOLLM2
    if settings.primer is not False:
        info = msgspec.structs.replace(info, few_shot=FEW_SHOT_EXAMPLES)
    return LlamaModel(
        info,
        embedded_weights(),
        context_window=settings.context or 8192,
        defaults=msgspec.structs.replace(SMOLLM2_DEFAULTS, extra=settings.extra),
    )


def _gguf(name: str, path: Path, settings: ModelSettings | None = None) -> Model:
    context = settings.context if settings else None
    primer = FEW_SHOT_EXAMPLES if settings and settings.primer else b""
    info = ModelInfo(name, owned_by="local", images=False, few_shot=primer)
    defaults = Options(extra=settings.extra) if settings else None
    return LlamaModel(info, path, context_window=context or 8192, defaults=defaults)
