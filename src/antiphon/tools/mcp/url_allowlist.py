"""URL allowlist: which MCP server URLs a request may name."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from antiphon.errors import ConfigError

# Strict on purpose: what two parsers could read in two ways is no URL here.
_URL_PATTERN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9][a-z0-9.-]*|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?:[/?][!$-;=?-Z_a-z~%]*)?",
    re.IGNORECASE | re.ASCII,
)
_RULE_PATTERN = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<host>\*|(?:\*\.)?[a-z0-9][a-z0-9.-]*|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}|\*))?/?",
    re.IGNORECASE | re.ASCII,
)
_DEFAULT_PORTS = {"https": "443", "http": "80"}


class _Rule(msgspec.Struct, frozen=True):
    scheme: str
    host: str
    port: str

    def matches(self, scheme: str, host: str, port: str) -> bool:
        if scheme != self.scheme or self.port not in ("*", port):
            return False
        if self.host.startswith("*"):
            return host.endswith(self.host[1:])
        return host == self.host


class UrlAllowlist:
    """Rules such as ``mcp.example.com``, ``*.example.com``, ``http://localhost:8000``.

    Without a scheme a rule is for https, without a port for the usual one; ``:*`` is any.
    ``*.example.com`` is every host below example.com, ``*`` is every host: of the inner
    network, too. Raises ``ConfigError`` for what is no rule.
    """

    def __init__(self, rules: Iterable[str] = ()) -> None:
        self._rules = tuple(map(_parse_rule, rules))

    def __bool__(self) -> bool:
        return bool(self._rules)

    def is_allowed(self, url: str) -> bool:
        """Whether a request may name this URL; what is no http or https URL is not allowed."""
        found = _URL_PATTERN.fullmatch(url)
        if found is None:
            return False
        scheme = found["scheme"].lower()
        port = found["port"] or _DEFAULT_PORTS[scheme]
        host = found["host"].lower()
        return any(rule.matches(scheme, host, port) for rule in self._rules)


def _parse_rule(text: str) -> _Rule:
    found = _RULE_PATTERN.fullmatch(text.strip())
    if found is None:
        raise ConfigError(
            f"mcp_allowed_urls: {text!r} is not a host such as mcp.example.com, *.example.com or "
            "http://localhost:8000"
        )
    scheme = (found["scheme"] or "https").lower()
    return _Rule(scheme, found["host"].lower(), found["port"] or _DEFAULT_PORTS[scheme])
