"""Severable link: a way to PostgreSQL that can be cut, as a network can, and mended."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from support.http_server import TIMEOUT

_SOCKET = ".s.PGSQL.5432"


class SeverableLink:
    """Passes bytes on between whoever connects to ``uri`` and the server behind it."""

    def __init__(self, uri: str, folder: Path) -> None:
        parts = urlsplit(uri)
        self.uri = urlunsplit(parts._replace(query=f"host={folder}"))
        self._socket = folder / _SOCKET
        self._server_socket = Path(parse_qs(parts.query)["host"][0], _SOCKET)
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.mend()

    def mend(self) -> None:
        """Take connections."""
        self._listener = self._run(asyncio.start_unix_server(self._accept, str(self._socket)))

    def cut(self) -> None:
        """Break all connections, and take none."""
        self._run(self._cut())

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT)

    async def _cut(self) -> None:
        self._listener.close()
        self._socket.unlink(missing_ok=True)
        for writer in self._writers:
            writer.transport.abort()
        tasks = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        if tasks:
            await asyncio.wait(tasks, timeout=TIMEOUT)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_unix_connection(str(self._server_socket))
        both = {writer, server}
        self._writers |= both
        try:
            await asyncio.gather(_pass_on(reader, server), _pass_on(answers, writer))
        finally:
            self._writers -= both


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(OSError):
            while piece := await reader.read(2**16):
                writer.write(piece)
                await writer.drain()
    finally:
        writer.close()


@contextmanager
def severable_link(uri: str) -> Iterator[SeverableLink]:
    """A link to the server at ``uri``, which listens on a Unix socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        link = SeverableLink(uri, Path(folder))
        try:
            yield link
        finally:
            link.close()
