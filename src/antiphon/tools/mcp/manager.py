"""``McpGateway``: the way from turns to MCP servers, the configured ones and those of requests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable, Sequence
from importlib.util import find_spec

from antiphon.core.mcp_servers import MAX_LABEL_LENGTH, McpServerConfig, McpServerRequest
from antiphon.errors import ConfigError, InvalidRequestError, ToolServerUnavailableError
from antiphon.tools.mcp.connection import Backoff, Peer
from antiphon.tools.mcp.errors import Gone, Refused
from antiphon.tools.mcp.toolset import Lender, McpSource
from antiphon.tools.mcp.url_allowlist import AllowedUrls

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
#: They belong to the connection, or would send the request to another host behind the same.
_OURS = {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"}


class McpGateway:
    """Sessions with MCP servers. Nothing is opened, and the SDK not loaded, before it is needed.

    ``servers`` are the configured ones, ``allowed_urls`` what requests may name (see
    ``AllowedUrls``). Belongs to one event loop. Raises ``ConfigError``.
    """

    def __init__(
        self,
        servers: Iterable[McpServerConfig] = (),
        allowed_urls: Iterable[str] = (),
        *,
        backoff: Backoff | None = None,
    ) -> None:
        self._backoff = backoff or Backoff()
        self._allowed = AllowedUrls(allowed_urls)
        self._peers = {
            server.label: Peer(server, watch=True, backoff=self._backoff) for server in servers
        }
        #: Of requests, while their turns last.
        self._guests: set[Peer] = set()
        if (self._peers or self._allowed) and find_spec("mcp") is None:
            raise ConfigError(
                "MCP servers are configured, but not the package for it: pip install antiphon[mcp]"
            )

    def check(self, asked: Sequence[McpServerRequest]) -> None:
        """Raise ``InvalidRequestError`` where a request asks for what it cannot have."""
        labels: set[str] = set()
        for ask in asked:
            self._check_label(ask, labels)
            labels.add(ask.label)
            if ask.url is None:
                if ask.headers:
                    raise InvalidRequestError(
                        "Headers are for a server that is given by its server_url.",
                        param=f"{ask.param}.headers",
                    )
            elif not self._allowed.allows(ask.url.reveal()):
                raise InvalidRequestError(
                    f"This server does not call the server_url of '{ask.label}': its host is not "
                    "one that its operator has allowed (mcp_allowed_urls).",
                    code="server_url_not_allowed",
                    param=f"{ask.param}.server_url",
                )
            _check_headers(ask)

    async def source(
        self, asked: Sequence[McpServerRequest], *, taken: Collection[str] = ()
    ) -> McpSource:
        """The tools that a turn asks for; to be closed with the turn.

        ``taken`` are the names of the request's own functions. Raises ``InvalidRequestError``, and
        ``ToolServerUnavailableError`` where a server does not say what tools it has.
        """
        self.check(asked)
        lenders: list[Lender] = []
        guests = {ask.label: self._guest(ask) for ask in asked if ask.url is not None}
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(_lend(ask, guests.get(ask.label), self._peers))
                    for ask in asked
                ]
            lenders = [task.result() for task in tasks]
        except* ToolServerUnavailableError as failures:
            raise failures.exceptions[0] from None
        finally:
            if not lenders:
                await asyncio.gather(*map(self._dismiss, guests.values()))
        return McpSource(lenders, frozenset(taken), self._dismiss)

    async def close(self) -> None:
        """End all sessions. Safe to call twice."""
        peers = (*self._peers.values(), *self._guests)
        await asyncio.gather(*(peer.close() for peer in peers))

    def _guest(self, ask: McpServerRequest) -> Peer:
        server = McpServerConfig(label=ask.label, url=ask.url, headers=ask.headers)
        peer = Peer(server, watch=False, backoff=self._backoff)
        self._guests.add(peer)
        return peer

    async def _dismiss(self, guest: Peer) -> None:
        try:
            await guest.close()
        finally:
            self._guests.discard(guest)

    def _check_label(self, ask: McpServerRequest, before: Collection[str]) -> None:
        param = f"{ask.param}.server_label"
        if not 0 < len(ask.label) <= MAX_LABEL_LENGTH or not ask.label.isprintable():
            raise InvalidRequestError(
                f"A server_label has 1 to {MAX_LABEL_LENGTH} printable characters.", param=param
            )
        if ask.label in before:
            raise InvalidRequestError(
                f"Two MCP servers are labelled '{ask.label}'.",
                code="server_label_duplicate",
                param=param,
            )
        if ask.url is None and ask.label not in self._peers:
            raise InvalidRequestError(
                f"There is no MCP server '{ask.label}' here, and no server_url says where it is.",
                code="mcp_server_not_found",
                param=param,
            )


async def _lend(ask: McpServerRequest, guest: Peer | None, peers: dict[str, Peer]) -> Lender:
    peer = guest or peers[ask.label]
    try:
        offers = await peer.offers()
    except (Gone, Refused) as error:
        raise ToolServerUnavailableError(
            f"The MCP server '{ask.label}' did not say what tools it has: {error}."
        ) from None
    for allowed in (peer.server.allowed_tools, ask.allowed_tools):
        if allowed is not None:
            offers = tuple(offer for offer in offers if offer.name in allowed)
    return Lender(ask, peer, offers, owned=guest is not None)


def _check_headers(ask: McpServerRequest) -> None:
    """No sentence here repeats a value."""
    for name, value in ask.headers.items():
        if not _HEADER.fullmatch(name) or name.lower() in _OURS:
            raise InvalidRequestError(
                f"One of the headers for '{ask.label}' has a name that cannot be sent.",
                param=f"{ask.param}.headers",
            )
        if not _VALUE.fullmatch(value.reveal()):
            raise InvalidRequestError(
                f"A header for '{ask.label}' has a value that cannot be sent.",
                param=f"{ask.param}.headers",
            )
