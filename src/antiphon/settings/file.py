"""The settings file, as it is written."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from antiphon.errors import ConfigError
from antiphon.settings.mcp import McpTable
from antiphon.settings.values import ModelKind, Price

#: A limit; the word lifts for one tenant what holds for the others.
Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=1)] | Literal["unlimited"]


class ModelTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[models.NAME]``"""

    kind: ModelKind | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    name: str | None = None
    path: str | None = None
    context: int | None = None
    images: bool | None = None
    primer: bool | None = None
    price: Price | None = None


class LimitTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[limits]``"""

    requests_per_minute: Limit | None = None
    concurrent_turns: Limit | None = None


class TenantTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[tenants.NAME]``: what is not said here is as for everybody."""

    requests_per_minute: Limit | None = None
    concurrent_turns: Limit | None = None
    retention_days: float | str | None = None


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. None: not set in it."""

    host: str | None = None
    port: int | None = None
    grpc_port: int | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    store: str | None = None
    base_url: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    retention_days: float | str | None = None
    log_level: str | None = None
    log_format: str | None = None
    cors_origins: list[str] | None = None
    mcp_allowed_urls: list[str] | None = None
    fun_prompt: str | None = None
    models: dict[str, ModelTable] = {}
    limits: LimitTable = LimitTable()
    tenants: dict[str, TenantTable] = {}
    mcp: dict[str, McpTable] = {}


def read_file(path: Path) -> File:
    """The file's content. Raises ``ConfigError`` naming what has to be mended."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {reason(error)}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    return _decode(path, raw)


def _decode(path: Path, raw: dict[str, Any]) -> File:
    for table in (raw, *(_tables(raw.get("models")))):
        if "api_key" in table:
            raise ConfigError(
                f"{path}: keys do not belong in this file: put it in an environment variable"
                " and name that with api_key_env"
            )
    try:
        return msgspec.convert(raw, File)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        where = where.rstrip("`").lstrip(".").replace("[...]", ".*") or "top level"
        raise ConfigError(f"{path}: {what} ({where})") from error


def _tables(value: object) -> list[dict[str, Any]]:
    tables = value.values() if isinstance(value, dict) else ()
    return [table for table in tables if isinstance(table, dict)]


def reason(error: Exception) -> str:
    """Why a file could not be read, in the system's words."""
    return getattr(error, "strerror", None) or str(error)
