"""What an upstream is reached with: a URL and a key, checked before the first call."""

from __future__ import annotations

from yarl import URL

from antiphon.errors import ConfigError


def parse_http_url(text: str) -> URL | None:
    """An ``http`` or ``https`` URL with a host; None: it is none."""
    try:
        url = URL(text)
        usable = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        return None
    return url if usable else None


def authorization_header(api_key: str) -> str:
    """What the ``Authorization`` of a call says. Raises ``ConfigError``."""
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        raise ConfigError("The API key holds characters that no key has: check it.")
    return f"Bearer {api_key}"
