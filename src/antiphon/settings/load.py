"""Finds settings and puts them together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dotenv
import platformdirs

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.core.secrets import Secret
from antiphon.errors import ConfigError
from antiphon.settings.fields import (
    Value,
    base_url_of,
    days_of,
    origins_of,
    path_of,
    port_of,
    store_of,
    word_of,
    words_of,
)
from antiphon.settings.file import (
    File,
    Limit,
    LimitTable,
    ModelTable,
    TenantTable,
    mcp_server_of,
    read_file,
    reason,
)
from antiphon.settings.values import (
    EMBEDDED,
    FUN_PROMPT,
    RETENTION_DAYS,
    Limits,
    LogFormat,
    LogLevel,
    ModelKind,
    ModelSettings,
    Settings,
    TenantSettings,
    Tls,
)

XAI_URL = "https://api.x.ai/v1"
XAI_MODEL = "grok-4"

#: Where a key is looked for when nobody says: never sent to any other host.
_USUAL_KEYS = {"api.x.ai": "XAI_API_KEY", "api.openai.com": "OPENAI_API_KEY"}
_GGUF = ".gguf"

#: What can be said of a model of each kind.
_UPSTREAM = {"kind", "base_url", "api_key_env", "name", "context", "images", "price"}
_TAKES: dict[ModelKind, set[str]] = {
    "chat_completions": _UPSTREAM,
    "responses": _UPSTREAM,
    "xai-grpc": _UPSTREAM,
    "llama": {"kind", "path", "context", "primer"},
    "scripted": {"kind"},
}


def load_settings(
    flags: Mapping[str, str | int | None] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    *,
    keys: bool = True,
) -> Settings:
    """Settings from the TOML file, the environment and ``flags``, each over the one before.

    ``flags`` are named like the fields of the file, plus ``config``; None is not given.
    With ``keys`` False no key is looked up: for work that calls no model. Raises
    ``ConfigError`` naming the file, variable or flag that has to be mended.
    """
    cwd = cwd or Path.cwd()
    return _Loader(flags or {}, os.environ if environ is None else environ, cwd, keys).load()


class _Loader:
    def __init__(
        self,
        flags: Mapping[str, str | int | None],
        environ: Mapping[str, str],
        cwd: Path,
        keys: bool,
    ) -> None:
        self._flags = flags
        self._environ = environ
        self._cwd = cwd
        self._keys = keys
        self._dotenv = _read_dotenv(cwd / ".env") if keys else {}
        self._path, self._file = self._read_file()

    def load(self) -> Settings:
        store, port = self._find("store"), self._port("port")
        models = {
            name: self._model(name, table)
            for name, table in {EMBEDDED: ModelTable(kind="llama"), **self._file.models}.items()
        }
        upstream = self._upstream()
        model = self._default_model(models, upstream)
        everyone = self._everyone()
        origins, allowed = self._find("cors_origins"), self._find("mcp_allowed_urls")
        fun = self._find("fun_prompt")
        return Settings(
            host=self._host(),
            port=8080 if port is None else port,
            grpc_port=self._port("grpc_port"),
            tls=self._tls(),
            store=store_of(store) if store else f"sqlite:{data_folder() / 'antiphon.db'}",
            model=model,
            models=models,
            upstream=upstream,
            retention_days=everyone.retention_days,
            log_level=self._word("log_level", LogLevel, "warning"),
            log_format=self._word("log_format", LogFormat, "plain"),
            cors_origins=origins_of(origins) if origins else (),
            limits=everyone.limits,
            tenants={
                name: self._tenant(name, table, everyone)
                for name, table in self._file.tenants.items()
            },
            mcp=self._mcp_servers(),
            mcp_allowed_urls=words_of(allowed) if allowed else (),
            fun_prompt=FUN_PROMPT if fun is None else str(fun.value),
        )

    def _read_file(self) -> tuple[Path, File]:
        given = self._flags.get("config") or self._environ.get("ANTIPHON_CONFIG")
        if given:
            path = (self._cwd / Path(str(given)).expanduser()).absolute()
        else:
            path = platformdirs.user_config_path("antiphon", appauthor=False) / "config.toml"
            if not path.is_file():
                return path, File()
        return path, read_file(path)

    def _find(self, name: str) -> Value | None:
        """A top-level setting from the strongest source that has it."""
        flag = self._flags.get(name)
        if flag is not None:
            return Value(flag, "--" + name.replace("_", "-"), self._cwd)
        variable = "ANTIPHON_" + name.upper()
        if self._environ.get(variable):
            return Value(self._environ[variable], variable, self._cwd)
        value = getattr(self._file, name)
        if value is not None:
            return Value(value, f"{self._path}: {name}", self._path.parent)
        return None

    def _host(self) -> str:
        found = self._find("host")
        if found and not str(found.value).strip():
            raise ConfigError(f"{found.source}: the host is empty")
        return str(found.value).strip() if found else "127.0.0.1"

    def _port(self, name: str) -> int | None:
        found = self._find(name)
        return None if found is None else port_of(found)

    def _tls(self) -> Tls | None:
        cert, key = self._find("tls_cert"), self._find("tls_key")
        paths: list[Path] = []
        for found, other, name in ((cert, key, "tls_key"), (key, cert, "tls_cert")):
            if found is None:
                continue
            if other is None:
                raise ConfigError(f"{found.source}: needs {name} as well")
            paths.append(path_of(found, str(found.value)))
            if not paths[-1].is_file():
                raise ConfigError(f"{found.source}: there is no file {paths[-1]}")
        return Tls(*paths) if paths else None

    def _word(self, name: str, words: Any, default: Any) -> Any:
        found = self._find(name)
        return default if found is None else word_of(found, words)

    def _everyone(self) -> TenantSettings:
        days = self._find("retention_days")
        return TenantSettings(
            _limits(self._file.limits, Limits()), days_of(days) if days else RETENTION_DAYS
        )

    def _tenant(self, name: str, table: TenantTable, everyone: TenantSettings) -> TenantSettings:
        days = everyone.retention_days
        if table.retention_days is not None:
            source = f"{self._path}: [tenants.{name}] retention_days"
            days = days_of(Value(table.retention_days, source, self._path.parent))
        return TenantSettings(_limits(table, everyone.limits), days)

    def _upstream(self) -> ModelSettings | None:
        """The catch-all upstream: the one given, else xAI's if its key is there."""
        url, variable = self._find("base_url"), self._find("api_key_env")
        if url:
            base_url = base_url_of(str(url.value), url.source)
            key = self._key(variable) if variable else self._usual_key(base_url)
            return ModelSettings(kind="chat_completions", base_url=base_url, api_key=key)
        if variable:
            raise ConfigError(f"{variable.source}: names the key of a base URL, and none is given")
        if xai := self._usual_key(XAI_URL):
            return ModelSettings(kind="chat_completions", base_url=XAI_URL, api_key=xai)
        return None

    def _default_model(
        self, models: dict[str, ModelSettings], upstream: ModelSettings | None
    ) -> str | None:
        """The default model's name. A path to a GGUF file is added to ``models``."""
        found = self._find("model")
        if found is None:
            if upstream is None:
                return EMBEDDED
            return None if self._find("base_url") else XAI_MODEL
        name = str(found.value)
        if not name.strip():
            raise ConfigError(f"{found.source}: the model's name is empty")
        if name in models or not name.lower().endswith(_GGUF):
            return name
        path = path_of(found, name)
        if path.is_file():
            name = path.name if path.stem in models else path.stem
            models.setdefault(name, ModelSettings(kind="llama", path=path))
            return name
        if path.parent != found.folder:
            raise ConfigError(f"{found.source}: there is no file {path}")
        return path.stem  # a pulled model, perhaps: that is how those are called

    def _model(self, name: str, table: ModelTable) -> ModelSettings:
        source = f"{self._path}: [models.{name}]"
        at = Value(None, source, self._path.parent)
        kind = table.kind or ("chat_completions" if table.base_url else "llama")
        for field in table.__struct_fields__:
            if getattr(table, field) is not None and field not in _TAKES[kind]:
                raise ConfigError(f"{source}: a model of kind {kind!r} takes no {field}")
        if "base_url" in _TAKES[kind] and table.base_url is None:
            raise ConfigError(f"{source}: a model of kind {kind!r} needs a base_url")
        if table.context is not None and table.context < 1:
            raise ConfigError(f"{source}: context is a number of tokens, at least 1")
        path = path_of(at, table.path) if table.path is not None else None
        if path is not None and not path.is_file():
            raise ConfigError(f"{source}: there is no file {path}")
        base_url = table.base_url
        if base_url is not None:
            if kind == "xai-grpc" and "://" not in base_url:
                base_url = f"https://{base_url}"
            base_url = base_url_of(base_url, source)
        key = None
        if table.api_key_env is not None:
            key = self._key(Value(table.api_key_env, source, at.folder))
        elif base_url:
            key = self._usual_key(base_url)
        return ModelSettings(
            kind=kind,
            base_url=base_url,
            api_key=key,
            name=table.name,
            path=path,
            context=table.context,
            images=table.images,
            primer=table.primer,
            price=table.price,
        )

    def _mcp_servers(self) -> tuple[McpServerConfig, ...]:
        folder = self._path.parent
        return tuple(
            mcp_server_of(
                name, table, Value(None, f"{self._path}: [mcp.{name}]", folder), self._key
            )
            for name, table in self._file.mcp.items()
        )

    def _key(self, variable: Value) -> Secret | None:
        name = str(variable.value)
        if not self._keys:
            return None
        if secret := self._secret(name):
            return secret
        # A key given in place of its variable's name must not come back in a sentence.
        shown = name if name.isidentifier() and len(name) <= 40 else "the variable it names"
        raise ConfigError(
            f"{variable.source}: {shown} is not set, neither in the environment nor in .env"
        )

    def _usual_key(self, base_url: str) -> Secret | None:
        parts = urlsplit(base_url)
        name = _USUAL_KEYS.get(parts.hostname or "") if parts.scheme == "https" else None
        return self._secret(name) if name and self._keys else None

    def _secret(self, name: str) -> Secret | None:
        value = (self._environ.get(name) or self._dotenv.get(name) or "").strip()
        if not value:
            return None
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(f"{name}: holds characters that no key has")
        return Secret(value)


def data_folder() -> Path:
    """Where antiphon keeps its database and models unless told otherwise."""
    return platformdirs.user_data_path("antiphon", appauthor=False)


def _read_dotenv(path: Path) -> dict[str, str | None]:
    if not path.is_file():
        return {}
    try:
        return dict(dotenv.dotenv_values(path, interpolate=False))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {reason(error)}") from error


def _limits(table: LimitTable | TenantTable, others: Limits) -> Limits:
    return Limits(
        _limit(table.requests_per_minute, others.requests_per_minute),
        _limit(table.concurrent_turns, others.concurrent_turns),
    )


def _limit(given: Limit | None, otherwise: int | None) -> int | None:
    if given is None:
        return otherwise
    return None if given == "unlimited" else given
