"""Which proxy is between this machine and a URL."""

from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.http_proxies import find_proxy
from antiphon.errors import ConfigError

HERE = "http://proxy.example:3128"


def found(url: str, **variables: str) -> str | None:
    """The proxy's URL where these variables are set, and no other."""
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
        ("https://api.example/v1", {"HTTPS_PROXY": HERE}, HERE),
        ("https://api.example/v1", {"https_proxy": HERE}, HERE),
        ("https://api.example/v1", {"HTTP_PROXY": HERE}, None),
        ("http://api.example/v1", {"HTTP_PROXY": HERE}, HERE),
        ("http://api.example/v1", {"HTTPS_PROXY": HERE}, None),
        ("http://api.example/v1", {"ALL_PROXY": HERE}, HERE),
        ("https://api.example/v1", {"ALL_PROXY": "http://other:1", "HTTPS_PROXY": HERE}, HERE),
        # The usual places are no places for these: a CGI program's header comes as HTTP_PROXY.
        ("http://api.example/v1", {"HTTP_PROXY": HERE, "REQUEST_METHOD": "GET"}, None),
        # Small letters go first, and an empty value is none.
        ("https://api.example/v1", {"HTTPS_PROXY": "http://other:1", "https_proxy": HERE}, HERE),
        ("https://api.example/v1", {"HTTPS_PROXY": HERE, "https_proxy": ""}, None),
        ("https://api.example/v1", {"HTTPS_PROXY": "proxy.example:3128"}, HERE),
        ("https://api.example/v1", {"HTTPS_PROXY": " http://proxy.example:3128/ "}, HERE),
        ("https://api.example/v1", {"HTTPS_PROXY": "http://proxy.example"}, f"{HERE[:-4]}80"),
        ("https://api.example/v1", {"HTTPS_PROXY": "https://proxy.example"}, "https://proxy.example:443"),
        ("https://api.example/v1", {"HTTPS_PROXY": "http://ann:pw@proxy.example:3128"}, HERE),
        ("https://api.example/v1", {"HTTPS_PROXY": "http://[fd00::1]:3128"}, "http://[fd00::1]:3128"),
    ],
)  # fmt: skip
def test_the_variables(url: str, variables: dict[str, str], proxy: str | None) -> None:
    assert found(url, **variables) == proxy


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
def test_the_exceptions(name: str, url: str, excepted: str, direct: bool) -> None:
    assert found(url, HTTPS_PROXY=HERE, **{name: excepted}) == (None if direct else HERE)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(1, 32))
def test_a_network_holds_its_addresses(address: object, prefix: int) -> None:
    network: IPv4Network | IPv6Network = ip_network(f"{address}/{prefix}", strict=False)
    shown = f"[{address}]" if ":" in str(address) else str(address)
    assert found(f"https://{shown}", HTTPS_PROXY=HERE, NO_PROXY=str(network)) is None


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.8.8.8", "[::1]"]
)
def test_this_machine_needs_none(host: str) -> None:
    assert found(f"http://{host}:8080/v1", ALL_PROXY=HERE, HTTP_PROXY="socks5://x:1") is None


def test_a_user_is_told_to_the_proxy_and_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://ann%40corp:p%3Aw%2Fd@proxy.example:3128")
    proxy = find_proxy("https://api.example")
    assert proxy is not None
    assert proxy.credentials == ("ann@corp", "p:w/d")
    assert proxy.headers() == {"Proxy-Authorization": "Basic YW5uQGNvcnA6cDp3L2Q="}
    for shown in (repr(proxy), proxy.url, proxy.address):
        assert "ann" not in shown
        assert "p%3A" not in shown
    monkeypatch.setenv("https_proxy", HERE)
    other = find_proxy("https://api.example")
    assert other is not None
    assert other.headers() == {}


@pytest.mark.parametrize(
    "value",
    ["http://", "http://ann:hunter2#@proxy:1", "http://hunter2:x:y", "http://[hunter2]:1"],
)
def test_what_is_no_proxy_is_said_and_not_shown(value: str) -> None:
    with pytest.raises(ConfigError, match="HTTPS_PROXY is not a URL such as") as caught:
        found("https://api.example", HTTPS_PROXY=value)
    assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize("scheme", ["socks", "socks4", "socks5", "socks5h", "ftp"])
def test_another_kind_of_proxy_is_refused(scheme: str) -> None:
    with pytest.raises(ConfigError, match=f"ALL_PROXY names a {scheme} proxy"):
        found("https://api.example", ALL_PROXY=f"{scheme}://127.0.0.1:1080")
    # Where there is a proxy of the right kind, another does not matter.
    variables = {"ALL_PROXY": f"{scheme}://127.0.0.1:1080", "HTTPS_PROXY": HERE}
    assert found("https://api.example", **variables) == HERE
