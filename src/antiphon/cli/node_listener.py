"""Node listener: a Unix socket in a private folder, where the other nodes of this machine ask."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path


class NodeListener:
    """A listener that only this user's processes can reach, and that has no TLS."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._server: asyncio.Server | None = None

    async def start(self, accept: Callable[[], asyncio.Protocol]) -> str | None:
        """Listen; the URL. None: this system has no Unix sockets, and nobody can reach it."""
        if sys.platform == "win32":
            return None
        # Its path has to be short. Made for its owner alone.
        self._folder = Path(tempfile.mkdtemp(prefix="antiphon-node-"))
        path = self._folder / "node.sock"
        self._server = await asyncio.get_running_loop().create_unix_server(accept, str(path))
        return f"unix:{path}"

    def stop(self) -> None:
        """Take no more connections, and remove the socket."""
        if self._server is not None:
            self._server.close()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder)
