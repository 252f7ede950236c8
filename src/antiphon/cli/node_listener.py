"""Node listener: a Unix socket in a private folder, where the other nodes of this machine ask."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

_PREFIX: Final = "antiphon-node-"
_SOCKET: Final = "node.sock"


def _remove_leftovers() -> None:
    """Remove the folders of servers of this user that were killed: nobody listens there."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # What is another's, or was cleared by another process meanwhile, is left alone.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            if folder.stat().st_uid != os.geteuid():
                continue
            try:
                # A server that has just made its folder has no socket yet: that is another error.
                probe.connect(str(folder / _SOCKET))
            except ConnectionRefusedError:
                shutil.rmtree(folder)


class NodeListener:
    """A listener that only this user's processes can reach, and that has no TLS."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._server: asyncio.Server | None = None

    async def start(self, accept: Callable[[], asyncio.Protocol]) -> str | None:
        """Listen; the URL. None: this system has no Unix sockets, and nobody can reach it."""
        if sys.platform == "win32":
            return None
        await asyncio.to_thread(_remove_leftovers)
        # Its path has to be short. Made for its owner alone.
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        path = self._folder / _SOCKET
        self._server = await asyncio.get_running_loop().create_unix_server(accept, str(path))
        return f"unix:{path}"

    def stop(self) -> None:
        """Take no more connections, and remove the socket."""
        if self._server is not None:
            self._server.close()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder)
