"""Settings file: the TOML tables, their decoder, and the parsers of single settings.

MCP servers stand in it so:

    mcp_allowed_urls = ["mcp.example.com", "*.example.org", "http://localhost:8000"]
    [mcp.files]
    command = ["npx", "-y", "@modelcontextprotocol/server-filesystem", "notes"]
    env = ["FILES_TOKEN"]                  # passed to the program besides the usual ones
    allowed_tools = ["read_file"]          # default: all
    require_approval = "never"             # or "always", or the tools that need a person's approval
    timeout = 30                           # seconds for one call
    [mcp.wiki]
    url = "https://mcp.example.com/mcp"
    headers_env = { Authorization = "WIKI_AUTHORIZATION" }   # the variable that holds its value

A program runs in the file's folder. ``mcp_allowed_urls`` is the allowlist of requests'
``server_url``: none by default.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, get_args
from urllib.parse import SplitResult

import msgspec

from antiphon.core.connection_limits import ConnectionLimits
from antiphon.core.extra_fields import RESERVED_FIELDS
from antiphon.core.mcp_servers import MAX_LABEL_LENGTH, McpServerConfig
from antiphon.core.secrets import Secret
from antiphon.core.urls import split_web_url
from antiphon.errors import ConfigError
from antiphon.settings.values import ModelKind, Price

T = TypeVar("T")
_FOREVER = "forever"
_SWITCH_WORDS: Final = {"true": True, "1": True, "false": False, "0": False}


class SettingValue(msgspec.Struct, frozen=True):
    """A setting's value, its source for error messages, and the folder of relative paths."""

    value: Any
    source: str
    folder: Path


def parse_path(at: SettingValue, text: str) -> Path:
    """An absolute path; a relative one begins where its setting was found."""
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{at.source}: there is no home folder for {text!r}") from None
    return Path(os.path.normpath(at.folder / path))


def parse_store(found: SettingValue) -> str:
    """The store's URL, with an absolute path where it is a file."""
    text = str(found.value)
    scheme, colon, path = text.partition(":")
    if scheme in {"postgresql", "postgres"} and path.startswith("//"):
        return text
    if text == "memory:":
        return text
    if text == "sqlite::memory:":
        raise ConfigError(f"{found.source}: a store in memory is memory:, without sqlite:")
    if scheme != "sqlite" or not colon or not path:
        # Of a URI the scheme alone: there may be a password in it.
        shown = f"{scheme}:…" if "://" in text else text
        raise ConfigError(
            f"{found.source}: the store is sqlite:PATH, postgresql://… or memory:, not {shown!r}"
        )
    return f"sqlite:{parse_path(found, path)}"


def parse_base_url(text: str, source: str) -> str:
    """The URL without its last slash. Error messages never quote it."""
    parts = _split_url(text, f"{source}: the base URL")
    if "@" in parts.netloc:
        raise ConfigError(
            f"{source}: no user or password in the base URL: put the key in a variable and"
            " name that with --api-key-env"
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"{source}: the base URL takes nothing after ? or #")
    return text.rstrip("/")


def parse_port(found: SettingValue) -> int:
    """A port, 0 being any that is free."""
    text = str(found.value)
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= 65535):
        raise ConfigError(f"{found.source}: {text!r} is not a port from 0 to 65535")
    return int(text)


def parse_workers(found: SettingValue) -> int:
    """How many processes serve."""
    text = str(found.value)
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) > 0):
        raise ConfigError(f"{found.source}: {text!r} is not a number of processes from 1 to 999")
    return int(text)


def parse_seconds(found: SettingValue) -> float:
    """A length of time in seconds."""
    try:
        seconds = float(found.value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"{found.source}: {found.value!r} is not a number of seconds")
    return seconds


def parse_choice(found: SettingValue, words: Any) -> Any:
    """One of a ``Literal``'s words."""
    word = str(found.value).strip().lower()
    if word not in get_args(words):
        raise ConfigError(
            f"{found.source}: {found.value!r} is none of {', '.join(get_args(words))}"
        )
    return word


def parse_switch(found: SettingValue) -> bool:
    """On or off; a variable says it in a word."""
    word = str(found.value).strip().lower()
    if word not in _SWITCH_WORDS:
        raise ConfigError(f"{found.source}: {found.value!r} is neither true nor false")
    return _SWITCH_WORDS[word]


#: The kinds of models as they are written, without regard to case, "-" and "_".
_KINDS: dict[str, ModelKind] = {
    "chat": "chat_completions",
    "responses": "responses",
    "xai-grpc": "xai-grpc",
    "llama": "llama",
    "scripted": "scripted",
}
_KIND_ALIASES = {"chat-completions": "chat", "chat-completion": "chat", "response": "responses"}


def parse_kind(found: SettingValue) -> ModelKind:
    """A kind of model."""
    word = str(found.value).strip().lower().replace("_", "-")
    kind = _KINDS.get(_KIND_ALIASES.get(word, word))
    if kind is None:
        raise ConfigError(
            f"{found.source}: the kind {found.value!r} is none of {', '.join(_KINDS)}"
        )
    return kind


def parse_days(found: SettingValue) -> float | None:
    """A number of days; None for "forever"."""
    text = str(found.value).strip()
    if text == _FOREVER:
        return None
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 < days < math.inf:
        raise ConfigError(
            f"{found.source}: {text!r} is not a number of days above 0, nor {_FOREVER!r}"
        )
    return days


def parse_origins(found: SettingValue) -> tuple[str, ...]:
    """Origins as browsers write them; a variable has them with commas in between."""
    return tuple(_parse_origin(text, found.source) for text in parse_list(found))


def parse_list(found: SettingValue) -> tuple[str, ...]:
    """Words of a list; a variable has them with commas in between."""
    given = found.value.split(",") if isinstance(found.value, str) else found.value
    return tuple(text.strip() for text in given if text.strip())


def _parse_origin(text: str, source: str) -> str:
    if text == "*":
        return text
    parts = split_web_url(text.lower())
    plain = parts is not None and text.lower() == f"{parts.scheme}://{parts.netloc}"
    if parts is None or not plain or {"@", "*"} & set(parts.netloc):
        raise ConfigError(
            f"{source}: {text!r} is not an origin, such as https://app.example.com, nor '*'"
        )
    # Browsers leave out the default port.
    usual = {"http": 80, "https": 443}[parts.scheme]
    netloc = parts.netloc.rpartition(":")[0] if parts.port == usual else parts.netloc
    return f"{parts.scheme}://{netloc}"


#: A limit; "unlimited" lifts the general one for one tenant.
LimitValue: TypeAlias = Annotated[int, msgspec.Meta(ge=1)] | Literal["unlimited"]


class ModelTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[models.NAME]``"""

    kind: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    name: str | None = None
    path: str | None = None
    context: int | None = None
    images: bool | None = None
    primer: bool | None = None
    price: Price | None = None
    headers: dict[str, str] | None = None
    headers_env: dict[str, str] | None = None
    extra: dict[str, Any] | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None
    quirks: list[str] | None = None
    fallback: list[str] | None = None


class LimitTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[limits]``"""

    requests_per_minute: LimitValue | None = None
    concurrent_turns: LimitValue | None = None


class TenantTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[tenants.NAME]``: fields that are not set are as for all tenants."""

    requests_per_minute: LimitValue | None = None
    concurrent_turns: LimitValue | None = None
    retention_days: float | str | None = None


class SettingsFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. None: not set in it."""

    host: str | None = None
    port: int | None = None
    grpc_port: int | None = None
    workers: int | None = None
    node_url: str | None = None
    drain_seconds: float | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    store: str | None = None
    base_url: str | None = None
    model: str | None = None
    kind: str | None = None
    api_key_env: str | None = None
    retention_days: float | str | None = None
    log_level: str | None = None
    log_format: str | None = None
    cors_origins: list[str] | None = None
    mcp_allowed_urls: list[str] | None = None
    fun_prompt: str | None = None
    store_chat_completions: bool | None = None
    title_model: str | None = None
    models: dict[str, ModelTable] = {}
    limits: LimitTable = LimitTable()
    server: ConnectionLimits = ConnectionLimits()
    tenants: dict[str, TenantTable] = {}
    mcp: dict[str, McpTable] = {}


def read_file(path: Path) -> SettingsFile:
    """The file's content. Raises ``ConfigError`` naming the file and the field."""
    try:
        # Editors of Windows may put a mark before the text.
        raw = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error_reason(error)}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    return _decode(path, raw)


def _decode(path: Path, raw: dict[str, Any]) -> SettingsFile:
    for table in (raw, *(_tables(raw.get("models")))):
        if "api_key" in table:
            raise ConfigError(
                f"{path}: keys do not belong in this file: put it in an environment variable"
                " and name that with api_key_env"
            )
    try:
        return msgspec.convert(raw, SettingsFile)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        where = where.rstrip("`").lstrip(".").replace("[...]", ".*") or "top level"
        raise ConfigError(f"{path}: {what} ({where})") from error


def _tables(value: object) -> list[dict[str, Any]]:
    tables = value.values() if isinstance(value, dict) else ()
    return [table for table in tables if isinstance(table, dict)]


def error_reason(error: Exception) -> str:
    """Why a file could not be read, in the system's words."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return getattr(error, "strerror", None) or str(error)


#: A header's name in HTTP.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Headers that antiphon writes itself, and those whose value is a key.
_OWN_HEADERS = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length"),
        *("content-type", "host", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
_SECRET_HEADERS = frozenset(
    {"api-key", "authorization", "cookie", "proxy-authorization", "x-api-key", "x-goog-api-key"}
)


def parse_headers(
    table: ModelTable, at: SettingValue, key: Callable[[SettingValue], Secret | None]
) -> dict[str, Secret]:
    """The headers of a model's requests; ``key`` looks up a variable. Raises ``ConfigError``."""
    plain, from_environment = table.headers or {}, table.headers_env or {}
    names = [name.lower() for name in (*plain, *from_environment)]
    for name in (*plain, *from_environment):
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigError(f"{at.source}: {name!r} is not the name of a header")
        if name.lower() in _OWN_HEADERS or names.count(name.lower()) > 1:
            raise ConfigError(f"{at.source}: the header {name} cannot be set, or is set twice")
    for name, value in plain.items():
        if name.lower() in _SECRET_HEADERS:
            raise ConfigError(
                f"{at.source}: keys do not belong in this file: put the value of {name} in an"
                " environment variable and name that with headers_env"
            )
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(f"{at.source}: the header {name} holds characters that none has")
    return {
        **{name: Secret(value) for name, value in plain.items()},
        **look_up_keys(from_environment, at, key),
    }


def look_up_keys(
    names: Mapping[str, str], at: SettingValue, key: Callable[[SettingValue], Secret | None]
) -> dict[str, Secret]:
    """The values of variables, under the names that they are for."""
    found = {one: key(msgspec.structs.replace(at, value=it)) for one, it in names.items()}
    return {one: secret for one, secret in found.items() if secret is not None}


def parse_extra(table: ModelTable, at: SettingValue) -> dict[str, Any]:
    """The fields that every request of a model has besides. Raises ``ConfigError``."""
    extra = table.extra or {}
    if reserved := RESERVED_FIELDS & extra.keys():
        raise ConfigError(f"{at.source}: extra cannot set {min(reserved)}: antiphon writes that")
    return extra


def parse_fallback(name: str, table: ModelTable, at: SettingValue) -> tuple[str, ...]:
    """The models that answer in place of one. Raises ``ConfigError``."""
    fallback = tuple(table.fallback or ())
    if name in fallback or len(set(fallback)) < len(fallback):
        raise ConfigError(f"{at.source}: fallback names other models, each once")
    return fallback


class McpTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[mcp.NAME]``"""

    command: list[str] | None = None
    url: str | None = None
    headers_env: dict[str, str] = {}
    env: list[str] = []
    allowed_tools: list[str] | None = None
    require_approval: Literal["always", "never"] | list[str] | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 60.0


def parse_mcp_server(
    name: str, table: McpTable, at: SettingValue, key: Callable[[SettingValue], Secret | None]
) -> McpServerConfig:
    """The server of one table; ``key`` looks up a variable, None: no keys are looked up.

    Raises ``ConfigError``.
    """
    if not 0 < len(name) <= MAX_LABEL_LENGTH:
        raise ConfigError(f"{at.source}: the name has to have 1 to {MAX_LABEL_LENGTH} characters")
    if bool(table.command) == bool(table.url):
        raise ConfigError(f"{at.source}: needs either a command or a url")
    if table.command and table.headers_env:
        raise ConfigError(f"{at.source}: a command takes no headers_env")
    if table.url and table.env:
        raise ConfigError(f"{at.source}: a url takes no env")

    approval = table.require_approval
    return McpServerConfig(
        label=name,
        command=tuple(table.command or ()),
        url=Secret(_url(table.url, at.source)) if table.url else None,
        headers=look_up_keys(table.headers_env, at, key),
        env=look_up_keys({variable: variable for variable in table.env}, at, key),
        folder=at.folder,
        allowed_tools=None if table.allowed_tools is None else tuple(table.allowed_tools),
        require_approval=tuple(approval) if isinstance(approval, list) else approval,
        timeout=table.timeout,
    )


def _url(text: str, source: str) -> str:
    """The URL, checked. Error messages never quote it."""
    parts = _split_url(text, f"{source}: the url")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            f"{source}: no user, password or query in the url: put the key in a variable and name"
            " that in headers_env"
        )
    return text


def _split_url(text: str, what: str) -> SplitResult:
    parts = split_web_url(text)
    if parts is None:
        raise ConfigError(f"{what} is not a URL that begins with http:// or https://")
    return parts
