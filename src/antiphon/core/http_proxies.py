"""HTTP proxies: finds the proxy for a URL in the environment, ``NO_PROXY`` included.

``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, small letters first, and
where none is set what the system is told on macOS and Windows: as curl, pip and git have it.
No other file is asked, so no ``.netrc`` gives away a password.
"""

from __future__ import annotations

import base64
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec

from antiphon.core.secrets import Secret
from antiphon.errors import ConfigError

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Proxy(msgspec.Struct, frozen=True):
    """A proxy. ``host`` has brackets if it is an IPv6 address, ``userinfo`` is as in its URL.

    ``url`` and ``address`` may be shown: nothing of the user is in them.
    """

    scheme: str
    host: str
    port: int
    userinfo: Secret | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}"

    @property
    def credentials(self) -> tuple[str, str] | None:
        """The name and the password."""
        if self.userinfo is None:
            return None
        name, _, password = self.userinfo.reveal().partition(":")
        return unquote(name), unquote(password)

    def headers(self) -> dict[str, str]:
        """What it is told of who asks."""
        if self.credentials is None:
            return {}
        token = base64.b64encode(":".join(self.credentials).encode()).decode()
        return {"Proxy-Authorization": f"Basic {token}"}


def find_proxy(url: str) -> Proxy | None:
    """The proxy for an ``http`` or ``https`` URL; None: there is none, or it is on this machine.

    Raises ``ConfigError`` for a proxy that cannot be used: going without it would be to do
    secretly what somebody has forbidden.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    given = getproxies()
    kind = parts.scheme if given.get(parts.scheme) else "all"
    proxy = given.get(kind, "").strip()
    if not proxy or _is_this_machine(host) or _is_bypassed(host, port, given.get("no", "")):
        return None
    return _parse_proxy(f"{kind.upper()}_PROXY", proxy, host)


def _is_this_machine(host: str) -> bool:
    # A proxy would take such a host for its own.
    return host.endswith(".localhost") or is_loopback(host)


def is_loopback(host: str) -> bool:
    """Loopback check: whether a host is ``localhost`` or an address of the loopback interface.

    Not so ``*.localhost``, which a resolver may look up elsewhere.
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_bypassed(host: str, port: int, exceptions: str) -> bool:
    if proxy_bypass(host) or proxy_bypass(f"{host}:{port}"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    # The library compares addresses as words: a network such as 10.0.0.0/8 it does not know.
    return any(_is_in_network(one.strip(), address.compressed) for one in exceptions.split(","))


def _is_in_network(network: str, address: str) -> bool:
    try:
        return ip_address(address) in ip_network(network, strict=False)
    except ValueError:
        return False


def _parse_proxy(variable: str, text: str, host: str) -> Proxy:
    whole = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(whole)
        name, port = parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        name, port = None, 0
    # What was given is not shown: it may hold a password.
    if name and parts.scheme not in _DEFAULT_PORTS:
        raise ConfigError(
            f"{variable} names a {parts.scheme} proxy, which cannot be used here: name an HTTP "
            f"proxy, or put {host} into NO_PROXY to do without one."
        )
    if not name or not port:
        raise ConfigError(f"{variable} is not a URL such as http://proxy.example:3128.")
    userinfo = parts.netloc.rpartition("@")[0]
    return Proxy(
        parts.scheme,
        f"[{name}]" if ":" in name else name,
        port,
        Secret(userinfo) if userinfo else None,
    )
