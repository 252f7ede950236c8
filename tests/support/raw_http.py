"""An HTTP answer read from a bare socket."""

from __future__ import annotations

import socket

from support.http_server import Answer


def read_raw(connection: socket.socket) -> Answer:
    """All that comes until the server closes the connection, as one answer."""
    data = b"".join(iter(lambda: connection.recv(65536), b""))
    while data.startswith(b"HTTP/1.1 100 "):
        data = data.partition(b"\r\n\r\n")[2]
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    if headers.get("transfer-encoding") == "chunked":
        pieces = []
        while not body.startswith(b"0\r\n"):
            size, _, rest = body.partition(b"\r\n")
            pieces.append(rest[: int(size, 16)])
            body = rest[int(size, 16) + 2 :]
        body = b"".join(pieces)
    return Answer(int(status.split()[1]), headers, body)
