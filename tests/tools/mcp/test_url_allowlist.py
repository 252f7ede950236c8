"""The URL allowlist: which URLs a request may name."""

from __future__ import annotations

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import ConfigError
from antiphon.tools.mcp.url_allowlist import UrlAllowlist

RULES = UrlAllowlist(
    ["mcp.example.com", "*.example.org", "http://localhost:8000", "http://127.0.0.1:*", "[::1]"]
)


@pytest.mark.parametrize(
    "url",
    [
        "https://mcp.example.com/mcp",
        "HTTPS://MCP.EXAMPLE.COM",
        "https://mcp.example.com:443/a?b=c&d=%20",
        "https://a.example.org/",
        "https://a.b.example.org/",
        "http://localhost:8000/mcp",
        "http://127.0.0.1:4711/",
        "https://[::1]/",
    ],
)
def test_url_is_allowed(url: str) -> None:
    assert RULES.is_allowed(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mcp.example.com",
        "http://mcp.example.com/",
        "https://mcp.example.com:8443/",
        "https://mcp.example.com.evil.test/",
        "https://evil.test/mcp.example.com",
        "https://example.org/",
        "https://notexample.org/",
        "http://localhost/",
        "https://me:pw@mcp.example.com/",
        "https://evil.test@mcp.example.com/",
        "https://evil.test\\@mcp.example.com/",
        "https://mcp.example.com\\.evil.test/",
        "https://evil.test#@mcp.example.com/",
        "https://evil.test?@mcp.example.com/",
        "https://mcp.example.com /",
        "https://mcp.example.com/\r\nhost: evil.test",
        "https://mcp.example.com\u3002evil.test/",
        "file:///etc/passwd",
        "https:///mcp.example.com/",
        "https:/mcp.example.com/",
        "https://mcp.example.com/a#b",
    ],
)
def test_url_is_not_allowed(url: str) -> None:
    assert not RULES.is_allowed(url)


def test_nothing_is_allowed_by_default() -> None:
    assert not UrlAllowlist().is_allowed("https://mcp.example.com/")
    assert not UrlAllowlist()


def test_star_allows_every_host() -> None:
    assert UrlAllowlist(["*"]).is_allowed("https://anything.test/")
    assert not UrlAllowlist(["*"]).is_allowed("http://anything.test/")
    assert UrlAllowlist(["http://*:*"]).is_allowed("http://10.0.0.1:99/")


@pytest.mark.parametrize("rule", ["", "a b", "https://a/path", "ftp://a", "a.*.b", "u@a", "**.a"])
def test_invalid_rule_is_refused(rule: str) -> None:
    with pytest.raises(ConfigError, match="mcp_allowed_urls"):
        UrlAllowlist([rule])


PIECES = st.sampled_from(
    ["https://", "http://", "mcp.example.com", "evil.test", "@", ":", "/", "\\", "?", "#", "443",
     "\t", "%", "[", "]", ".", "a", "\u2044", "\uff0e", ";", "//"]
)  # fmt: skip


@given(st.lists(PIECES, min_size=1, max_size=9).map("".join))
def test_allowed_url_is_parsed_to_the_allowed_host(url: str) -> None:
    if UrlAllowlist(["mcp.example.com"]).is_allowed(url):
        read = httpx2.URL(url)
        assert (read.scheme, read.host, read.port) == ("https", "mcp.example.com", None)
