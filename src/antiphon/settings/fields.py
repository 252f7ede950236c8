"""Single settings: their text, checked and resolved."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit

import msgspec

from antiphon.errors import ConfigError

T = TypeVar("T")
_FOREVER = "forever"


class SettingValue(msgspec.Struct, frozen=True):
    """A setting's value, what to call its source in a sentence, and where paths begin."""

    value: Any
    source: str
    folder: Path


def parse_path(at: SettingValue, text: str) -> Path:
    """An absolute path; a relative one begins where its setting was found."""
    return Path(os.path.normpath(at.folder / Path(text).expanduser()))


def parse_store(found: SettingValue) -> str:
    """Where turns are kept."""
    text = str(found.value)
    if text == "memory:":
        return text
    scheme, colon, path = text.partition(":")
    if scheme != "sqlite" or not colon or not path:
        raise ConfigError(f"{found.source}: the store is sqlite:PATH or memory:, not {text!r}")
    return f"sqlite:{parse_path(found, path)}"


def parse_base_url(text: str, source: str) -> str:
    """The URL without its last slash. A sentence about it never repeats a password."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{source}: the base URL is not a URL") from error
    if "@" in parts.netloc:
        raise ConfigError(
            f"{source}: no user or password in the base URL: put the key in a variable and"
            " name that with --api-key-env"
        )
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigError(f"{source}: the base URL has to begin with http:// or https://")
    if parts.query or parts.fragment:
        raise ConfigError(f"{source}: the base URL takes nothing after ? or #")
    return text.rstrip("/")


def parse_port(found: SettingValue) -> int:
    """A port, 0 being any that is free."""
    text = str(found.value)
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= 65535):
        raise ConfigError(f"{found.source}: {text!r} is not a port from 0 to 65535")
    return int(text)


def parse_choice(found: SettingValue, words: Any) -> Any:
    """One of a ``Literal``'s words."""
    word = str(found.value).strip().lower()
    if word not in get_args(words):
        raise ConfigError(
            f"{found.source}: {found.value!r} is none of {', '.join(get_args(words))}"
        )
    return word


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
    try:
        parts = urlsplit(text.lower())
        plain = parts.hostname and text.lower() == f"{parts.scheme}://{parts.netloc}"
        port = parts.port
    except ValueError:
        plain, port = False, None
    if not plain or {"@", "*"} & set(parts.netloc) or parts.scheme not in {"http", "https"}:
        raise ConfigError(
            f"{source}: {text!r} is not an origin, such as https://app.example.com, nor '*'"
        )
    # Browsers leave out the port that goes without saying.
    usual = {"http": 80, "https": 443}[parts.scheme]
    netloc = parts.netloc.rpartition(":")[0] if port == usual else parts.netloc
    return f"{parts.scheme}://{netloc}"
