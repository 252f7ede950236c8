"""Settings values: the frozen structs, once they are read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from antiphon.core.connection_limits import ConnectionLimits
from antiphon.core.mcp_servers import McpServerConfig
from antiphon.core.secrets import Secret
from antiphon.errors import ConfigError

ModelKind: TypeAlias = Literal["chat_completions", "responses", "xai-grpc", "llama", "scripted"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["plain", "json"]

#: The embedded model's name: reachable always, the default when nothing else is set.
EMBEDDED = "smollm2"
#: The default retention of conversations, in days.
RETENTION_DAYS = 30.0
#: The default system prompt of fun mode in xAI's first Chat SDK.
FUN_PROMPT = (
    "You are a witty companion. Be playful, tease a little, and never pass up a good joke, "
    "but answer what you are asked, and truthfully."
)


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a million tokens cost, in any one currency. ``cached`` None: as much as others."""

    input: Annotated[float, msgspec.Meta(ge=0)]
    output: Annotated[float, msgspec.Meta(ge=0)]
    cached: Annotated[float, msgspec.Meta(ge=0)] | None = None


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One model, or an upstream that has many.

    ``name`` is what the upstream calls it (None: the same), ``path`` a GGUF file (None:
    the embedded weights); ``context`` is in tokens. ``headers`` and ``extra`` are what every
    request to the upstream has besides: HTTP headers, and fields of its body. ``timeout`` is
    the longest silence of the upstream, in seconds. ``quirks`` are names of rules that its
    requests need (``models.openai.request_rules``). ``fallback`` are models that answer in
    place of this one, in order, where it cannot be reached or is over its limits.
    None means: the model's own default.
    """

    kind: ModelKind
    #: Of the kind "responses": an endpoint without that API is called by chat completions.
    has_chat_fallback: bool = False
    base_url: str | None = None
    api_key: Secret | None = None
    name: str | None = None
    path: Path | None = None
    context: int | None = None
    images: bool | None = None
    primer: bool | None = None
    price: Price | None = None
    headers: dict[str, Secret] = {}
    extra: dict[str, Any] = {}
    timeout: float | None = None
    quirks: tuple[str, ...] = ()
    fallback: tuple[str, ...] = ()


class Limits(msgspec.Struct, frozen=True):
    """Rate limits of one API key. None: unlimited."""

    requests_per_minute: int | None = None
    concurrent_turns: int | None = None


class TenantSettings(msgspec.Struct, frozen=True):
    """Settings of one tenant. ``retention_days`` None: nothing expires."""

    limits: Limits = Limits()
    retention_days: float | None = RETENTION_DAYS


class Tls(msgspec.Struct, frozen=True):
    """The files of a certificate chain and of its key. Both in PEM."""

    cert: Path
    key: Path


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set, checked and resolved.

    ``store`` is ``sqlite:`` and an absolute path, a PostgreSQL URI, or ``memory:``. ``model`` is
    the default model; None: each request has to name one. ``upstream`` gets every name
    that is not in ``models``. ``grpc_port`` 0: no gRPC; None: beside HTTP,
    on the next port, if it can be.
    ``retention_days`` counts from the last turn of a chain, None: nothing expires.
    ``limits`` hold for each key, ``tenants`` has overrides for some.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = None
    #: How many processes serve the port.
    workers: int = 1
    #: Where the other nodes of the store reach this one; None: on this machine alone.
    node_url: str | None = None
    #: Seconds that running turns get after a stop signal.
    drain_seconds: float = 10.0
    #: None: both listeners serve without TLS.
    tls: Tls | None = None
    store: str
    model: str | None = EMBEDDED
    models: dict[str, ModelSettings] = {}
    upstream: ModelSettings | None = None
    retention_days: float | None = RETENTION_DAYS
    log_level: LogLevel = "warning"
    log_format: LogFormat = "plain"
    #: The CORS allowlist of origins; "*": any.
    cors_origins: tuple[str, ...] = ()
    limits: Limits = Limits()
    connection_limits: ConnectionLimits = ConnectionLimits()
    tenants: dict[str, TenantSettings] = {}
    #: The MCP servers that requests may name by their labels.
    mcp: tuple[McpServerConfig, ...] = ()
    #: The allowlist of others that they may name by URL, as
    #: ``tools.mcp.url_allowlist.UrlAllowlist`` reads it.
    mcp_allowed_urls: tuple[str, ...] = ()
    fun_prompt: str = FUN_PROMPT
    #: Chat completions are stored unless a request says otherwise.
    store_chat_completions: bool = False
    #: The model that writes the titles of chats; None: a title is the first words.
    title_model: str | None = None

    def __repr__(self) -> str:
        """Without the store's URI, which may have a password."""
        return f"Settings(store={self.store.partition(':')[0]!r}, model={self.model!r}, ...)"

    def tenant(self, name: str) -> TenantSettings:
        """The settings of a tenant, with or without a table of its own."""
        return self.tenants.get(name) or TenantSettings(self.limits, self.retention_days)

    def default_model(self) -> str:
        """The default model's name; ``ConfigError`` if none was chosen."""
        if self.model is None:
            raise ConfigError(
                "an upstream is given but no model: name one with --model or ANTIPHON_MODEL"
            )
        return self.model
