"""URLs of the web: which text is one, and its parts. Nothing is looked up or fetched. Pure."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def is_web_url(text: str) -> bool:
    """Scheme check: whether a text begins with ``http://`` or ``https://``, in any case."""
    return text[:8].lower().startswith(("https://", "http://"))


def split_web_url(text: str) -> SplitResult | None:
    """The parts of an ``http`` or ``https`` URL with a host; None: it is none.

    Its port, if there is one, is a number that a port may be.
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None
    return parts if host and parts.scheme in {"http", "https"} else None


def host_of(netloc: str) -> str:
    """The host of ``host:port`` or ``[address]:port``; "" where there is none."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""
