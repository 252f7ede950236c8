"""Web page: serves ``antiphon/web`` at ``/``, its files with their hash in the path.

    GET /                     the page; also at /c/{id} (a chat) and /r/{id} (a turn), where it
                              has the browser read what is shown while the files are on their way
    GET /web/<hash>/app.js    a file of the page, for good: another version has another hash
    GET /sw.js                a service worker that removes itself

Nothing here is a tenant's: the page asks the API for everything, with the key that it is given.
Its policy lets it run its own files only, talk to this server only, and never make markup of a
text. The page registers no service worker. Another program on this port may have (llama-server
does), and that one would go on answering for it: a browser that looks for a newer version of such
a worker finds one that removes itself.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from functools import cache, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from antiphon.api.common.authentication import needs_key
from antiphon.errors import NotFoundError

_TYPES: Final = {
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "woff2": b"font/woff2",
}
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
    b" font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    b" frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_POLICIES: Final = [
    (b"content-security-policy", _POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_FOR_GOOD: Final = (b"cache-control", b"public, max-age=31536000, immutable")
_CHECK_FIRST: Final = (b"cache-control", b"no-cache")
_NEVER: Final = (b"cache-control", b"no-store")

#: The addresses of chats and turns, and the lines of the page that are for them.
_ADDRESS: Final = re.compile(r"/([cr])/([\w-]+)", re.ASCII)
_OF_CHATS: Final = re.compile(rb"\{\{chat\}\}\n(.*)\{\{/chat\}\}\n", re.DOTALL)
#: How many addresses have their page cached.
_MAX_PAGES: Final = 64
#: A request of the page without a key, which a browser can send before the page can.
_PRELOAD: Final = b'<link rel="preload" as="fetch" crossorigin="anonymous" href="%b">\n'

#: Takes the place of whatever worker there was, empties its caches and loads its pages again.
_REMOVING_WORKER: Final = b"""\
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil((async () => {
  for (const name of await caches.keys()) await caches.delete(name);
  await self.registration.unregister();
  for (const page of await self.clients.matchAll({ type: "window" })) page.navigate(page.url);
})()));
"""


class WebFile(msgspec.Struct, frozen=True):
    """A file of the page as it is sent. ``compressed`` None: it would not become smaller."""

    content_type: bytes
    body: bytes
    compressed: bytes | None
    etag: bytes


class _WebFiles:
    """The files of the page. Reads them once; compresses one when it is first requested."""

    def __init__(self) -> None:
        self._bodies = dict(_walk(files("antiphon") / "web", ""))
        digest = hashlib.sha256()
        for name, body in sorted(self._bodies.items()):
            digest.update(b"%b %d\n" % (name.encode(), len(body)))
            digest.update(body)
        self.version = digest.hexdigest()[:16]
        base = f"/web/{self.version}".encode()
        self._page = self._bodies.pop("index.html").replace(b"{{base}}", base)
        self.get = cache(self._read)
        #: The page as an address of it is answered: a path, and whether requests need a key.
        self.page_at = lru_cache(_MAX_PAGES)(self._build_page)

    def _build_page(self, path: str, needs_key: bool) -> WebFile:
        first = None if needs_key else _first_request(path)
        link = b"" if first is None else _PRELOAD % first.encode().replace(b"&", b"&amp;")
        page = self._page.replace(b"{{first}}\n", link)
        page = _OF_CHATS.sub(b"" if path == "/" else rb"\1", page)
        return _compressed(b"text/html; charset=utf-8", page)

    def _read(self, name: str) -> WebFile | None:
        body, content_type = self._bodies.get(name), _TYPES.get(name.rpartition(".")[2])
        if body is None or content_type is None:
            return None
        return _compressed(content_type, body)


def _compressed(content_type: bytes, body: bytes) -> WebFile:
    compressed = None if content_type == b"font/woff2" else gzip.compress(body, 9, mtime=0)
    etag = b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()
    return WebFile(content_type, body, compressed, etag)


def _first_request(path: str) -> str | None:
    """What the page asks first at an address (``readEarly`` in ``core.js``). Pure."""
    found = _ADDRESS.fullmatch(path)
    if found is None:
        return None
    kind, name = found.groups()
    if kind == "c":
        return f"/v1/chats/{name}?window=20&feed_cursor=true"
    return f"/v1/responses/{name}/siblings?limit=3&around=true&feed_cursor=true"


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        else:
            found.append((prefix + entry.name, entry.read_bytes()))
    return found


_web_files = cache(_WebFiles)


class WebPageEndpoints:
    """``/``, ``/web/…`` and the paths at which browsers look for service workers."""

    async def page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /, /c/{id}, /r/{id}: the same page, which looks at its own address."""
        file = await asyncio.to_thread(_read_page, scope["path"], needs_key=needs_key(scope))
        await _send_file(scope, send, file, [*_POLICIES, _CHECK_FIRST])

    async def file(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /web/{version}/{path}. Raises ``NotFoundError``, also for another version."""
        parameters = scope["path_params"]
        file = await asyncio.to_thread(_read_file, parameters["version"], parameters["path"])
        if file is None:
            raise NotFoundError(f"There is nothing at {scope['path']}.", code="unknown_url")
        await _send_file(scope, send, file, [*_POLICIES, _FOR_GOOD])

    async def removing_worker(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /sw.js, /service-worker.js: a service worker that removes itself."""
        file = WebFile(_TYPES["js"], _REMOVING_WORKER, None, b'"removing"')
        await _send_file(scope, send, file, [*_POLICIES, _NEVER])


def _read_page(path: str, *, needs_key: bool) -> WebFile:
    return _web_files().page_at(path, needs_key)


def _read_file(version: str, name: str) -> WebFile | None:
    """A file of this version."""
    page_files = _web_files()
    return page_files.get(name) if version == page_files.version else None


async def _send_file(
    scope: Scope, send: Send, file: WebFile, headers: list[tuple[bytes, bytes]]
) -> None:
    sent: dict[bytes, bytes] = dict(scope["headers"])
    headers = [*headers, (b"etag", file.etag), (b"vary", b"accept-encoding")]
    if file.etag in sent.get(b"if-none-match", b""):
        await send({"type": "http.response.start", "status": 304, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    body = file.body
    if file.compressed is not None and b"gzip" in sent.get(b"accept-encoding", b""):
        body = file.compressed
        headers.append((b"content-encoding", b"gzip"))
    headers += [(b"content-type", file.content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
