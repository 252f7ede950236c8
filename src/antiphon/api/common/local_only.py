"""Keeps web pages out while no keys are asked for.

A browser will carry a page's request to a server on this machine: by a plain POST
from any site, or by a name that the site's owner points at 127.0.0.1. So a request
must name this machine as its host, and must not come from another origin.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from antiphon.api.common.body import Scope
from antiphon.errors import ForbiddenError


def require_local_host(scope: Scope) -> None:
    """Raise ``ForbiddenError`` unless the request was meant for this machine."""
    for name, value in scope["headers"]:
        if name == b"host":
            _require_local(value, "Host")
        elif name == b"origin":
            _require_local(value.partition(b"://")[2], "Origin")


def _require_local(netloc: bytes, header: str) -> None:
    if not _is_local(netloc):
        raise ForbiddenError(f"The {header} header does not name this machine.")


@lru_cache(maxsize=64)
def _is_local(netloc: bytes) -> bool:
    try:
        host = urlsplit("//" + netloc.decode("latin-1")).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
