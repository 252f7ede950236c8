"""HTTP proxies: the proxy for a URL, from environment variables."""

from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.http_proxies import find_proxy
from antiphon.errors import ConfigError

PROXY = "http://proxy.example:3128"


def proxy_for(url: str, **variables: str) -> str | None:
    """The URL of the proxy if only these variables are set."""
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if "proxy" in name.lower()]:
            environment.delenv(name)
        for name, value in variables.items():
            environment.setenv(name, value)
        proxy = find_proxy(url)
    return proxy.url if proxy else None


@pytest.mark.parametrize(
    ("url", "variables", "proxy"),
    [
        ("https://api.example/v1", {}, None),
        ("https://api.example/v1", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https://api.example/v1", {"https_proxy": PROXY}, PROXY),
        ("https://api.example/v1", {"HTTP_PROXY": PROXY}, None),
        ("http://api.example/v1", {"HTTP_PROXY": PROXY}, PROXY),
        ("http://api.example/v1", {"HTTPS_PROXY": PROXY}, None),
        ("http://api.example/v1", {"ALL_PROXY": PROXY}, PROXY),
        ("https://api.example/v1", {"ALL_PROXY": "http://other:1", "HTTPS_PROXY": PROXY}, PROXY),
        # In a CGI program a request header could set HTTP_PROXY.
        ("http://api.example/v1", {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None),
        # Lower case has precedence, and an empty value means no proxy.
        ("https://api.example/v1", {"HTTPS_PROXY": "http://other:1", "https_proxy": PROXY}, PROXY),
        ("https://api.example/v1", {"HTTPS_PROXY": PROXY, "https_proxy": ""}, None),
        ("https://api.example/v1", {"HTTPS_PROXY": "proxy.example:3128"}, PROXY),
        ("https://api.example/v1", {"HTTPS_PROXY": " http://proxy.example:3128/ "}, PROXY),
        ("https://api.example/v1", {"HTTPS_PROXY": "http://proxy.example"}, f"{PROXY[:-4]}80"),
        ("https://api.example/v1", {"HTTPS_PROXY": "https://proxy.example"}, "https://proxy.example:443"),
        ("https://api.example/v1", {"HTTPS_PROXY": "http://ann:pw@proxy.example:3128"}, PROXY),
        ("https://api.example/v1", {"HTTPS_PROXY": "http://[fd00::1]:3128"}, "http://[fd00::1]:3128"),
    ],
)  # fmt: skip
def test_proxy_variables(url: str, variables: dict[str, str], proxy: str | None) -> None:
    assert proxy_for(url, **variables) == proxy


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize(
    ("url", "excepted", "direct"),
    [
        ("https://api.example", "api.example", True),
        ("https://api.example", "other.example", False),
        ("https://eu.api.example", "api.example", True),
        ("https://eu.api.example", ".api.example", True),
        ("https://myapi.example", "api.example", False),
        ("https://api.example", "a.example, api.example", True),
        ("https://api.example", "*", True),
        ("https://api.example:8443", "api.example:8443", True),
        ("https://api.example", "api.example:443", True),
        ("https://api.example", "api.example:8443", False),
        ("https://api.example.", "api.example", True),
        ("https://10.1.2.3", "10.1.2.3", True),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://[fd00::7]:8443", "fd00::/8", True),
        ("https://[fe80::7]", "fd00::/8,10.0.0.0/8,/,", False),
    ],
)
def test_no_proxy_exceptions(name: str, url: str, excepted: str, direct: bool) -> None:
    assert proxy_for(url, HTTPS_PROXY=PROXY, **{name: excepted}) == (None if direct else PROXY)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(1, 32))
def test_no_proxy_network_matches_its_addresses(address: object, prefix: int) -> None:
    network: IPv4Network | IPv6Network = ip_network(f"{address}/{prefix}", strict=False)
    shown = f"[{address}]" if ":" in str(address) else str(address)
    assert proxy_for(f"https://{shown}", HTTPS_PROXY=PROXY, NO_PROXY=str(network)) is None


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.8.8.8", "[::1]"]
)
def test_localhost_needs_no_proxy(host: str) -> None:
    assert proxy_for(f"http://{host}:8080/v1", ALL_PROXY=PROXY, HTTP_PROXY="socks5://x:1") is None


def test_proxy_credentials_are_sent_only_to_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://ann%40corp:p%3Aw%2Fd@proxy.example:3128")
    proxy = find_proxy("https://api.example")
    assert proxy is not None
    assert proxy.credentials == ("ann@corp", "p:w/d")
    assert proxy.headers() == {"Proxy-Authorization": "Basic YW5uQGNvcnA6cDp3L2Q="}
    for shown in (repr(proxy), proxy.url, proxy.address):
        assert "ann" not in shown
        assert "p%3A" not in shown
    monkeypatch.setenv("https_proxy", PROXY)
    other = find_proxy("https://api.example")
    assert other is not None
    assert other.headers() == {}


@pytest.mark.parametrize(
    "value",
    ["http://", "http://ann:hunter2#@proxy:1", "http://hunter2:x:y", "http://[hunter2]:1"],
)
def test_invalid_proxy_url_is_reported_without_its_value(value: str) -> None:
    with pytest.raises(ConfigError, match="HTTPS_PROXY is not a URL such as") as caught:
        proxy_for("https://api.example", HTTPS_PROXY=value)
    assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize("scheme", ["socks", "socks4", "socks5", "socks5h", "ftp"])
def test_unsupported_proxy_scheme_is_refused(scheme: str) -> None:
    with pytest.raises(ConfigError, match=f"ALL_PROXY names a {scheme} proxy"):
        proxy_for("https://api.example", ALL_PROXY=f"{scheme}://127.0.0.1:1080")
    # If there is a supported proxy, an unsupported one does not matter.
    variables = {"ALL_PROXY": f"{scheme}://127.0.0.1:1080", "HTTPS_PROXY": PROXY}
    assert proxy_for("https://api.example", **variables) == PROXY
