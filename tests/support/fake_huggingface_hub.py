"""A small Hugging Face hub: a real HTTP server that knows one repository."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPO = "someone/tiny-GGUF"
GATED = "someone/gated"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What is on it, how it misbehaves, and what was asked of it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        #: The bytes after which the next downloads are cut off, one each.
        self.cuts: list[int] = []
        #: The Range header of every download, None where there was none.
        self.ranges: list[str | None] = []
        self.heads = 0
        self.wrong_etag = False
        self.authorization: set[str | None] = set()
        self.url = ""

    def etag(self, content: bytes) -> str:
        return "0" * 64 if self.wrong_etag else hashlib.sha256(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    state: Hub

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.state.heads += 1
        content = self.find()
        if content is not None:
            self.begin(200, len(content), content)

    def do_GET(self) -> None:
        content = self.find()
        if content is None:
            return
        requested_range = self.headers["Range"]
        self.state.ranges.append(requested_range)
        first = int(requested_range.removeprefix("bytes=").rstrip("-")) if requested_range else 0
        self.begin(206 if requested_range else 200, len(content) - first, content, first)
        cut = self.state.cuts.pop(0) if self.state.cuts else len(content)
        self.wfile.write(content[first : first + cut])
        if first + cut < len(content):
            self.close_connection = True

    def find(self) -> bytes | None:
        self.state.authorization.add(self.headers["Authorization"])
        repo, _, rest = self.path[1:].partition("/resolve/main/")
        if repo == GATED:
            self.refuse(403, "GatedRepo")
            return None
        if repo != REPO:
            self.refuse(404, "RepoNotFound")
            return None
        if rest not in self.state.files:
            self.refuse(404, "EntryNotFound")
            return None
        return self.state.files[rest]

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def begin(self, status: int, length: int, content: bytes, first: int = 0) -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{self.state.etag(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(length))
        if status == 206:
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def hub() -> Iterator[Hub]:
    """A hub on a free port of the loopback."""
    state = Hub()

    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
