"""Node listener: where the other nodes ask this one.

On one machine that is a Unix socket in a private folder; a worker that others reach by a URL has a
port of its own, since workers share the public one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from antiphon.errors import ConfigError

_PREFIX: Final = "antiphon-node-"
_SOCKET: Final = "node.sock"


def listen_error(host: str, port: int, error: Exception) -> ConfigError:
    """The error for an address that cannot be listened on; a host's name may be none (IDNA)."""
    reason = "it is not a host's name"
    if isinstance(error, OSError):
        # The address again, in the library's words.
        reason = (error.strerror or str(error)).partition(" (while attempting")[0]
        if error.errno == errno.EADDRINUSE:
            reason = "address already in use: name another port"
    return ConfigError(f"cannot listen on {host} port {port}: {reason}")


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
    """A listener for the other nodes, besides the public one."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._server: asyncio.Server | None = None

    async def start(self, accept: Callable[[], asyncio.Protocol]) -> str | None:
        """Listen on a socket that only this user's processes reach, without TLS; the URL.

        None: this system has no Unix sockets, and nobody can reach it.
        """
        if sys.platform == "win32":
            return None
        await asyncio.to_thread(_remove_leftovers)
        # Its path has to be short. Made for its owner alone.
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        path = self._folder / _SOCKET
        self._server = await asyncio.get_running_loop().create_unix_server(accept, str(path))
        return f"unix:{path}"

    async def start_at(
        self,
        url: str,
        number: int,
        accept: Callable[[], asyncio.Protocol],
        certificate: ssl.SSLContext | None,
    ) -> str:
        """Listen where a worker is reached from other machines: the URL, so many ports further on.

        Raises ``ConfigError``.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", (parts.port or 0) + number
        is_encrypted = parts.scheme == "https"
        if parts.port is None or (is_encrypted and certificate is None):
            raise ConfigError(
                "--node-url: with --workers it needs a port, and a certificate for https"
            )
        try:
            self._server = await asyncio.get_running_loop().create_server(
                accept, host, port, ssl=certificate if is_encrypted else None
            )
        except (OSError, UnicodeError) as error:
            raise ConfigError(
                f"--node-url: {listen_error(host, port, error).message}; with --workers each has a"
                " port of its own there, besides --port"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        return f"{parts.scheme}://{shown}:{port}"

    def stop(self) -> None:
        """Take no more connections, and remove the socket."""
        if self._server is not None:
            self._server.close()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder)
