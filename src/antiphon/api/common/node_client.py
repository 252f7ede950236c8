"""Node client: asks the other nodes of a store, each at its own address, by the store's secret.

Whoever knows the secret may ask for any tenant, so it goes to addresses of the registry only, in a
header, and into no log, error or repr. A node answers for itself, and passes nothing on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from antiphon.core.turns import End
from antiphon.errors import NodeUnreachableError
from antiphon.logging_setup import request_id
from antiphon.turn.node_protocols import Node, NodeRegistry

if TYPE_CHECKING:
    import aiohttp

#: Answers an operation that another node asks for: its fields, and those of the answer.
Operation: TypeAlias = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

#: Which header has the secret, and what the paths of nodes' requests begin with.
NODE_HEADER: Final = "x-antiphon-node"
PATH: Final = "/internal/"
#: Seconds for a connection, and of silence after which a node counts as gone. Streams are never
#: silent for that long (``KeepAlive``), nor is any other answer late by more than ``MAX_WAIT``.
_CONNECT_TIMEOUT: Final = 2.0
_READ_TIMEOUT: Final = 40.0
#: Seconds for which a node has another one wait for the end of a turn.
MAX_WAIT: Final = 20.0
#: Seconds for which an unused connection stays open: less than a server leaves it open.
_KEEP_ALIVE: Final = 2.0
_UNIX: Final = "unix:"
_encode = msgspec.json.Encoder().encode


class NodeClient:
    """Implements ``OtherNodes`` over HTTP, on Unix sockets or URLs."""

    def __init__(self, registry: NodeRegistry) -> None:
        self._registry = registry
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    @property
    def node_id(self) -> str:
        """This process's own id."""
        return self._registry.node_id

    async def node_of(self, tenant: str, response_id: str) -> Node | None:
        node = await self._registry.node_of(tenant, response_id)
        return node if node is not None and self._is_reachable(node) else None

    async def others(self) -> list[Node]:
        """The other nodes that live and can be reached."""
        return [one for one in await self._registry.list_nodes() if self._is_reachable(one)]

    async def cancel(self, node: Node, tenant: str, response_id: str) -> bool:
        answer = await self.call(node, "cancel", tenant=tenant, response_id=response_id)
        return bool(answer["is_found"])

    async def wait(self, node: Node, tenant: str, response_id: str) -> bool:
        answer = await self.call(node, "wait", tenant=tenant, response_id=response_id)
        return bool(answer["is_found"])

    async def end_given_up(self, tenant: str, response_id: str, end: End) -> bool:
        return await self._registry.end_given_up(tenant, response_id, end)

    async def stop_erased(self, tenant: str) -> None:
        await self.call_all("stop_erased", tenant=tenant)

    async def tell_erased(self) -> None:
        await self.call_all("note_erased")

    async def call_all(self, operation: str, **fields: Any) -> list[dict[str, Any]]:
        """The answers of all other nodes; those that cannot be reached give none."""

        async def call(node: Node) -> dict[str, Any] | None:
            try:
                return await self.call(node, operation, **fields)
            except NodeUnreachableError:
                return None

        answers = await asyncio.gather(*map(call, await self.others()))
        return [one for one in answers if one is not None]

    async def call(self, node: Node, operation: str, **fields: Any) -> dict[str, Any]:
        """A node's answer. Raises ``NodeUnreachableError``."""
        async with self._request(node, operation, fields) as response:
            answer: dict[str, Any] = json.loads(await response.read())
            return answer

    @asynccontextmanager
    async def stream(
        self, node: Node, operation: str, **fields: Any
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A node's answer in pieces, as they come. Both may raise ``NodeUnreachableError``."""
        async with self._request(node, operation, fields) as response:
            yield response.content.iter_any()

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    def _is_reachable(self, node: Node) -> bool:
        return node.is_alive and node.url is not None and node.id != self._registry.node_id

    @asynccontextmanager
    async def _request(
        self, node: Node, operation: str, fields: dict[str, Any]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        import aiohttp  # loaded on first use

        session, base = await self._session(node)
        try:
            async with session.put(
                f"{base}{PATH}{operation}",
                data=_encode(fields),
                headers={"x-request-id": request_id.get()},
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raise _unreachable(f"answered {response.status}")
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # What it says may name an address, and holds the headers.
            raise _unreachable(f"did not answer ({type(error).__name__})") from None

    async def _session(self, node: Node) -> tuple[aiohttp.ClientSession, str]:
        import aiohttp  # loaded on first use

        url = node.url or ""
        is_unix = url.startswith(_UNIX)
        # The host's name of a Unix socket means nothing.
        base = "http://localhost" if is_unix else url.rstrip("/")
        if (session := self._sessions.get(url)) is None:
            secret = await self._registry.secret()
            await self._close_all_but(one.url for one in await self._registry.list_nodes())
            if (session := self._sessions.get(url)) is not None:
                return session, base
            connector = (
                aiohttp.UnixConnector(
                    url.removeprefix(_UNIX), limit=0, keepalive_timeout=_KEEP_ALIVE
                )
                if is_unix
                else aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE)
            )
            session = self._sessions[url] = aiohttp.ClientSession(
                connector=connector,
                headers={NODE_HEADER: secret, "content-type": "application/json"},
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=_CONNECT_TIMEOUT, sock_read=_READ_TIMEOUT
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return session, base

    async def _close_all_but(self, urls: Iterable[str | None]) -> None:
        """Let go of the connections to nodes that are gone."""
        used = frozenset(urls)
        for url in [one for one in self._sessions if one not in used]:
            await self._sessions.pop(url).close()


def _unreachable(what: str) -> NodeUnreachableError:
    return NodeUnreachableError(f"The server process that runs this {what}.")
