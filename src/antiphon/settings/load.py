"""Settings loader: merges defaults, the TOML file, environment variables and flags."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dotenv
import platformdirs

from antiphon.core.api_keys import is_tenant_name
from antiphon.core.mcp_servers import McpServerConfig
from antiphon.core.secrets import Secret
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import ConfigError
from antiphon.settings.toml_file import (
    LimitTable,
    LimitValue,
    ModelTable,
    SettingsFile,
    SettingValue,
    TenantTable,
    error_reason,
    parse_base_url,
    parse_choice,
    parse_days,
    parse_extra,
    parse_fallback,
    parse_headers,
    parse_kind,
    parse_list,
    parse_mcp_server,
    parse_origins,
    parse_path,
    parse_port,
    parse_seconds,
    parse_store,
    parse_switch,
    parse_workers,
    read_file,
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

#: The variables of default keys by host: a key is never sent to any other host.
_DEFAULT_KEY_VARIABLES = {"api.x.ai": "XAI_API_KEY", "api.openai.com": "OPENAI_API_KEY"}
_GGUF = ".gguf"

#: The fields of a model of each kind.
_UPSTREAM_FIELDS = {
    *("kind", "base_url", "api_key_env", "name", "context", "images", "price"),
    *("timeout", "fallback"),
}
_HTTP_FIELDS = {*_UPSTREAM_FIELDS, "headers", "headers_env", "extra", "quirks"}
_FIELDS_BY_KIND: dict[ModelKind, set[str]] = {
    "chat_completions": _HTTP_FIELDS,
    "responses": _HTTP_FIELDS,
    "xai-grpc": _HTTP_FIELDS - {"quirks"},
    "llama": {"kind", "path", "context", "primer", "extra"},
    "scripted": {"kind"},
}

#: What flags may set: the file, and all that stands in it outside of tables.
_TABLES = {"models", "limits", "server", "tenants", "mcp"}
_FLAGS = ("config", *(name for name in SettingsFile.__struct_fields__ if name not in _TABLES))


def load_settings(
    flags: Mapping[str, str | int | float | None] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    *,
    resolve_keys: bool = True,
) -> Settings:
    """Settings from the TOML file, the environment and ``flags``, each over the one before.

    ``flags`` are named like the fields of the file, plus ``config``; None is not given.
    With ``resolve_keys`` False no key is looked up: for commands that call no model. Raises
    ``ConfigError`` naming the file, variable or flag that is wrong.
    """
    cwd = cwd or Path.cwd()
    for name in flags or ():
        if name not in _FLAGS:
            raise ConfigError(f"There is no setting '{name}' to give here: {', '.join(_FLAGS)}.")
    return _SettingsLoader(
        flags or {}, os.environ if environ is None else environ, cwd, resolve_keys
    ).load()


class _SettingsLoader:
    def __init__(
        self,
        flags: Mapping[str, str | int | float | None],
        environ: Mapping[str, str],
        cwd: Path,
        resolve_keys: bool,
    ) -> None:
        self._flags = flags
        self._environ = environ
        self._cwd = cwd
        self._resolve_keys = resolve_keys
        self._dotenv = _read_dotenv(cwd / ".env") if resolve_keys else {}
        self._path, self._file = self._read_file()

    def load(self) -> Settings:
        store, port = self._find("store"), self._port("port")
        models = {
            name: self._model(name, table)
            for name, table in {EMBEDDED: ModelTable(kind="llama"), **self._file.models}.items()
        }
        upstream = self._upstream()
        model = self._default_model(models, upstream)
        default_tenant = self._default_tenant()
        origins, allowed = self._find("cors_origins"), self._find("mcp_allowed_urls")
        workers, drain = self._find("workers"), self._find("drain_seconds")
        node_url, title_model = self._find("node_url"), self._find("title_model")
        fun, stores_chat = self._find("fun_prompt"), self._find("store_chat_completions")
        return Settings(
            host=self._host(),
            port=8080 if port is None else port,
            grpc_port=self._port("grpc_port"),
            workers=parse_workers(workers) if workers else 1,
            node_url=parse_base_url(str(node_url.value), node_url.source) if node_url else None,
            drain_seconds=parse_seconds(drain) if drain else 10.0,
            tls=self._tls(),
            store=parse_store(store) if store else f"sqlite:{data_folder() / 'antiphon.db'}",
            model=model,
            models=models,
            upstream=upstream,
            retention_days=default_tenant.retention_days,
            log_level=self._choice("log_level", LogLevel, "warning"),
            log_format=self._choice("log_format", LogFormat, "plain"),
            cors_origins=parse_origins(origins) if origins else (),
            limits=default_tenant.limits,
            connection_limits=self._file.server,
            tenants={
                name: self._tenant(name, table, default_tenant)
                for name, table in self._file.tenants.items()
            },
            mcp=self._mcp_servers(),
            mcp_allowed_urls=parse_list(allowed) if allowed else (),
            fun_prompt=FUN_PROMPT if fun is None else str(fun.value),
            store_chat_completions=parse_switch(stores_chat) if stores_chat else False,
            title_model=str(title_model.value) if title_model and title_model.value else None,
        )

    def _read_file(self) -> tuple[Path, SettingsFile]:
        found = self._find_outside_file("config")
        if found is not None and found.value:
            path = parse_path(found, str(found.value))
        else:
            path = _default_config()
            if not path.is_file():
                return path, SettingsFile()
        return path, read_file(path)

    def _find(self, name: str) -> SettingValue | None:
        """A top-level setting from the source of highest precedence that has it."""
        if found := self._find_outside_file(name):
            return found
        value = getattr(self._file, name)
        if value is not None:
            return SettingValue(value, f"{self._path}: {name}", self._path.parent)
        return None

    def _find_outside_file(self, name: str) -> SettingValue | None:
        flag = self._flags.get(name)
        if flag is not None:
            return SettingValue(flag, "--" + name.replace("_", "-"), self._cwd)
        variable = "ANTIPHON_" + name.upper()
        value = _plain(self._environ.get(variable))
        return SettingValue(value, variable, self._cwd) if value else None

    def _host(self) -> str:
        found = self._find("host")
        if found is None:
            return "127.0.0.1"
        host = str(found.value).strip()
        if host.startswith("[") and host.endswith("]"):
            # An IPv6 address as a URL has it.
            host = host[1:-1]
        if not host:
            raise ConfigError(f"{found.source}: the host is empty")
        return host

    def _port(self, name: str) -> int | None:
        found = self._find(name)
        return None if found is None else parse_port(found)

    def _tls(self) -> Tls | None:
        cert, key = self._find("tls_cert"), self._find("tls_key")
        paths: list[Path] = []
        for found, other, name in ((cert, key, "tls_key"), (key, cert, "tls_cert")):
            if found is None:
                continue
            if other is None:
                raise ConfigError(f"{found.source}: needs {name} as well")
            paths.append(parse_path(found, str(found.value)))
            if not paths[-1].is_file():
                raise ConfigError(f"{found.source}: there is no file {paths[-1]}")
        return Tls(*paths) if paths else None

    def _choice(self, name: str, words: Any, default: Any) -> Any:
        found = self._find(name)
        return default if found is None else parse_choice(found, words)

    def _default_tenant(self) -> TenantSettings:
        days = self._find("retention_days")
        return TenantSettings(
            _limits(self._file.limits, Limits()), parse_days(days) if days else RETENTION_DAYS
        )

    def _tenant(self, name: str, table: TenantTable, default: TenantSettings) -> TenantSettings:
        if name != DEFAULT_TENANT and not is_tenant_name(name):
            raise ConfigError(f"{self._path}: [tenants.{name}]: no tenant can have that name")
        days = default.retention_days
        if table.retention_days is not None:
            source = f"{self._path}: [tenants.{name}] retention_days"
            days = parse_days(SettingValue(table.retention_days, source, self._path.parent))
        return TenantSettings(_limits(table, default.limits), days)

    def _upstream(self) -> ModelSettings | None:
        """The catch-all upstream: the one given, else xAI's if its key is there."""
        url, variable = self._find("base_url"), self._find("api_key_env")
        kind = self._upstream_kind()
        if url:
            base_url = parse_base_url(str(url.value), url.source)
            key = self._require_key(variable) if variable else self._default_key(base_url)
            return ModelSettings(kind=kind or "chat_completions", base_url=base_url, api_key=key)
        if variable:
            raise ConfigError(f"{variable.source}: names the key of a base URL, and none is given")
        if xai := self._default_key(XAI_URL):
            return ModelSettings(
                kind=kind or "responses",
                has_chat_fallback=kind is None,
                base_url=XAI_URL,
                api_key=xai,
            )
        return None

    def _upstream_kind(self) -> ModelKind | None:
        found = self._find("kind")
        if found is None:
            return None
        kind = parse_kind(found)
        if "base_url" not in _FIELDS_BY_KIND[kind]:
            raise ConfigError(f"{found.source}: {found.value!r} is not the kind of an upstream")
        return kind

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
        path = parse_path(found, name)
        if path.is_file():
            name = path.name if path.stem in models else path.stem
            models.setdefault(name, ModelSettings(kind="llama", path=path))
            return name
        if path.parent != found.folder:
            raise ConfigError(f"{found.source}: there is no file {path}")
        return path.stem  # perhaps a pulled model, which goes by its stem

    def _model(self, name: str, table: ModelTable) -> ModelSettings:
        source = f"{self._path}: [models.{name}]"
        at = SettingValue(None, source, self._path.parent)
        kind: ModelKind = "chat_completions" if table.base_url else "llama"
        if table.kind is not None:
            kind = parse_kind(SettingValue(table.kind, f"{source} kind", at.folder))
        for field in table.__struct_fields__:
            if getattr(table, field) is not None and field not in _FIELDS_BY_KIND[kind]:
                raise ConfigError(f"{source}: a model of kind {kind!r} takes no {field}")
        if "base_url" in _FIELDS_BY_KIND[kind] and table.base_url is None:
            raise ConfigError(f"{source}: a model of kind {kind!r} needs a base_url")
        if table.context is not None and table.context < 1:
            raise ConfigError(f"{source}: context is a number of tokens, at least 1")
        path = parse_path(at, table.path) if table.path is not None else None
        if path is not None and not path.is_file():
            raise ConfigError(f"{source}: there is no file {path}")
        base_url = table.base_url
        if base_url is not None:
            if kind == "xai-grpc" and "://" not in base_url:
                base_url = f"https://{base_url}"
            base_url = parse_base_url(base_url, source)
        key = None
        if table.api_key_env is not None:
            key = self._require_key(SettingValue(table.api_key_env, source, at.folder))
        elif base_url:
            key = self._default_key(base_url)
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
            headers=parse_headers(table, at, self._require_key),
            extra=parse_extra(table, at),
            timeout=table.timeout,
            quirks=tuple(table.quirks or ()),
            fallback=parse_fallback(name, table, at),
        )

    def _mcp_servers(self) -> tuple[McpServerConfig, ...]:
        folder = self._path.parent
        return tuple(
            parse_mcp_server(
                name,
                table,
                SettingValue(None, f"{self._path}: [mcp.{name}]", folder),
                self._require_key,
            )
            for name, table in self._file.mcp.items()
        )

    def _require_key(self, variable: SettingValue) -> Secret | None:
        name = str(variable.value)
        if not self._resolve_keys:
            return None
        if secret := self._find_secret(name):
            return secret
        # A key in place of its variable's name must not appear in the message.
        displayed_name = (
            name if name.isidentifier() and len(name) <= 40 else "the variable it names"
        )
        raise ConfigError(
            f"{variable.source}: {displayed_name} is not set, neither in the environment"
            " nor in .env"
        )

    def _default_key(self, base_url: str) -> Secret | None:
        parts = urlsplit(base_url)
        name = _DEFAULT_KEY_VARIABLES.get(parts.hostname or "") if parts.scheme == "https" else None
        return self._find_secret(name) if name and self._resolve_keys else None

    def _find_secret(self, name: str) -> Secret | None:
        value = _plain(self._environ.get(name)) or _plain(self._dotenv.get(name))
        if not value:
            return None
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(f"{name}: holds characters that no key has")
        return Secret(value)


def store_name(text: str, folder: Path) -> str:
    """The store that a command's argument names, as ``Settings.store`` does.

    Raises ``ConfigError``.
    """
    return parse_store(SettingValue(text, "the command line", folder))


def data_folder() -> Path:
    """The default folder of the database and of models. Raises ``ConfigError``."""
    try:
        return platformdirs.user_data_path("antiphon", appauthor=False)
    except RuntimeError:
        # A container may run as a user that its system does not know.
        raise ConfigError(
            "this user has no home folder: name a store by --store, or set HOME"
        ) from None


def _default_config() -> Path:
    try:
        return platformdirs.user_config_path("antiphon", appauthor=False) / "config.toml"
    except RuntimeError:
        # Without a home folder there is none.
        return Path(os.devnull)


def _read_dotenv(path: Path) -> dict[str, str | None]:
    if not path.is_file():
        return {}
    try:
        return dict(dotenv.dotenv_values(path, interpolate=False, encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error_reason(error)}") from error


def _plain(value: str | None) -> str:
    """A variable's value; empty: it is not set.

    Who reads a file of variables and is no shell, as containers do, leaves quotes around it, spaces
    and carriage returns.
    """
    text = (value or "").strip()
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1].strip() if is_quoted else text


def _limits(table: LimitTable | TenantTable, default: Limits) -> Limits:
    return Limits(
        _limit(table.requests_per_minute, default.requests_per_minute),
        _limit(table.concurrent_turns, default.concurrent_turns),
    )


def _limit(value: LimitValue | None, default: int | None) -> int | None:
    if value is None:
        return default
    return None if value == "unlimited" else value
