"""A service worker that another program left on this address goes away by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from support.browser import until
from support.serve_process import running_server

_FOREIGN = {
    "/": ("text/html", b"<title>foreign</title><script src=/begin.js></script>"),
    "/begin.js": (
        "text/javascript",
        b"navigator.serviceWorker.register('/sw.js').then(() => navigator.serviceWorker.ready)"
        b".then(() => { document.title = 'registered' });",
    ),
    "/sw.js": (
        "text/javascript",
        b"self.addEventListener('install', (e) => e.waitUntil(caches.open('foreign').then((c) =>"
        b" c.put('/', new Response('<title>from the worker</title>',"
        b" {headers: {'content-type': 'text/html'}})))));"
        b"self.addEventListener('activate', (e) => e.waitUntil(clients.claim()));"
        b"self.addEventListener('fetch', (e) => e.respondWith("
        b"caches.match(e.request).then((found) => found || fetch(e.request))));",
    ),
}


class _Foreign(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind, body = _FOREIGN.get(self.path, ("text/plain", b""))
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@contextmanager
def foreign_program() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Foreign)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_foreign_worker_is_removed_and_none_is_registered(
    browser: Browser, tmp_path: Path
) -> None:
    context = browser.new_context()
    page = context.new_page()
    with foreign_program() as port:
        page.goto(f"http://127.0.0.1:{port}/")
        until(page, "document.title === 'registered'")
        page.reload()
        until(page, "document.title === 'from the worker'")
    with running_server(tmp_path, "--port", str(port), "--grpc-port", "0"):
        # The worker still answers. The browser asks for a newer one after that, finds the one
        # that removes itself, and the page is loaded again from the server.
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.get_by_role("textbox", name="Message")).to_be_visible(timeout=30_000)
        count = "navigator.serviceWorker.getRegistrations().then((all) => all.length === 0)"
        until(page, count)
        assert page.evaluate("caches.keys()") == []
    context.close()


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
