"""A way to PostgreSQL that records round trips, and can lose the answer of a commit."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

_SOCKET = ".s.PGSQL.5432"
#: The end of statements that commit what turns write.
_COMMITTING = "SELECT EXISTS (SELECT FROM step0)"


class PostgresProxy:
    """What passes between the stores at ``uri`` and the server."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        #: The statements that were executed, each of which is a round trip.
        self.executed: list[str] = []
        #: How many commits are to reach the server without an answer. They cut the connection.
        self.cuts = 0


class _Messages:
    """The messages of a client: kind and body."""

    def __init__(self) -> None:
        self._data = b""
        self._has_begun = False

    def add(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._data += data
        while True:
            # The first has no kind.
            skipped = 1 if self._has_begun else 0
            size = skipped + int.from_bytes(self._data[skipped : skipped + 4])
            if len(self._data) < skipped + 4 or len(self._data) < size:
                return
            kind, body = self._data[:skipped], self._data[skipped + 4 : size]
            self._data = self._data[size:]
            self._has_begun = True
            yield kind, body


@asynccontextmanager
async def postgres_proxy(uri: str) -> AsyncIterator[PostgresProxy]:
    """A proxy of the server at ``uri``, which listens on a Unix socket."""
    parts = urlsplit(uri)
    path = Path(parse_qs(parts.query)["host"][0], _SOCKET)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        proxy = PostgresProxy(urlunsplit(parts._replace(query=f"host={folder}")))

        links: set[asyncio.Task[None]] = set()

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            link = asyncio.create_task(_Link(proxy, reader, writer).run(path))
            links.add(link)
            await asyncio.wait({link})

        server = await asyncio.start_unix_server(connect, str(Path(folder, _SOCKET)))
        try:
            yield proxy
        finally:
            server.close()
            for link in links:
                link.cancel()
            await asyncio.gather(*links, return_exceptions=True)
            # Sockets close one step later.
            await asyncio.sleep(0)


class _Link:
    """One connection through a proxy."""

    def __init__(
        self, proxy: PostgresProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._messages = _Messages()
        #: Prepared statements by their names.
        self._queries: dict[bytes, str] = {}
        self._is_cut = False

    async def run(self, path: Path) -> None:
        answers, server = await asyncio.open_unix_connection(str(path))
        task = asyncio.create_task(self._pass_answers(answers))
        try:
            while not self._is_cut and (data := await self._reader.read(65536)):
                for kind, body in self._messages.add(data):
                    self._look_at(kind, body)
                server.write(data)
            await server.drain()
            if not self._is_cut:
                server.close()
            await task
        finally:
            task.cancel()
            server.transport.abort()
            self._writer.transport.abort()

    def _look_at(self, kind: bytes, body: bytes) -> None:
        if kind == b"P":
            name, text = body.split(b"\0")[:2]
            self._queries[name] = text.decode()
        elif kind in {b"B", b"Q"}:
            # A portal and the name of the statement, or the statement itself.
            names = body.split(b"\0")
            query = self._queries[names[1]] if kind == b"B" else names[0].decode()
            self._proxy.executed.append(query)
            if self._proxy.cuts and (query == "COMMIT" or query.endswith(_COMMITTING)):
                self._proxy.cuts -= 1
                self._is_cut = True

    async def _pass_answers(self, answers: asyncio.StreamReader) -> None:
        while (data := await answers.read(65536)) and not self._is_cut:
            self._writer.write(data)
        self._writer.transport.abort()
