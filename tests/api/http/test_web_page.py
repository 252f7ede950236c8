"""The web page is served with a strict policy, compressed once, and cached by its content."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from importlib.resources import files

import pytest

from support.http_server import ThreadServer, serving
from support.keyed_server import serving_with_keys

WEB = files("antiphon") / "web"
DIRECTIVES = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob: data:",
    "font-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
}


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with serving() as started:
        yield started


def _base(server: ThreadServer) -> str:
    found = re.search(rb'src="(/web/\w{16})/app\.js"', server.get("/").body)
    assert found is not None
    return found[1].decode()


@pytest.mark.parametrize("path", ["/", "/c/chat_1", "/r/resp_1"])
def test_every_address_of_the_page_is_the_page(server: ThreadServer, path: str) -> None:
    answer = server.get(path)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert re.sub(rb"<link[^>]*>\n", b"", answer.body) == re.sub(
        rb"<link[^>]*>\n", b"", server.get("/").body
    )
    assert b"{{" not in answer.body


def test_what_an_address_names_is_asked_by_the_browser_before_the_page_runs(
    server: ThreadServer,
) -> None:
    assert b'preload" as' not in server.get("/").body
    chat, turn = server.get("/c/chat_1"), server.get("/r/resp_1")
    assert b'"/v1/chats/chat_1?window=20&amp;feed_cursor=true"' in chat.body
    assert b'"/v1/responses/resp_1/siblings?limit=3&amp;around=true&amp;' in turn.body
    assert chat.headers["etag"] != turn.headers["etag"]


@pytest.mark.parametrize("name", ["%22%3E%3Cscript%3E", "a%20b", "..", "%C3%A9"])
def test_an_address_that_is_none_names_nothing(server: ThreadServer, name: str) -> None:
    answer = server.get(f"/c/{name}")
    assert b"/v1/" not in answer.body
    assert b"<script>" not in answer.body


def test_with_keys_nothing_is_asked_before_the_page_has_one() -> None:
    with serving_with_keys() as keyed:
        keyed.client()
        answer = keyed.server.get("/c/chat_1")
        assert answer.status == 200
        assert b"/v1/" not in answer.body


def test_the_page_is_revalidated_each_time_and_sent_once(server: ThreadServer) -> None:
    first = server.get("/")
    assert first.headers["cache-control"] == "no-cache"
    again = server.request("GET", "/", headers={"if-none-match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def test_a_file_is_cached_for_good_under_the_hash_of_all(server: ThreadServer) -> None:
    base = _base(server)
    answer = server.get(f"{base}/app.js")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.body == (WEB / "app.js").read_bytes()
    assert server.get("/web/0123456789abcdef/app.js").error["code"] == "unknown_url"


@pytest.mark.parametrize("name", ["none.js", "../routes.py", "..%2froutes.py", "vendor", ""])
def test_nothing_but_the_files_of_the_page_is_there(server: ThreadServer, name: str) -> None:
    assert server.get(f"{_base(server)}/{name}").status == 404


def test_texts_are_compressed_for_those_who_take_it(server: ThreadServer) -> None:
    path = f"{_base(server)}/page.css"
    plain = server.get(path)
    packed = server.request("GET", path, headers={"accept-encoding": "br, gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) * 3 < len(plain.body)


@pytest.mark.parametrize("path", ["/", "/sw.js", "{base}/app.js", "{base}/vendor/katex.css"])
def test_the_policy_is_on_everything_that_is_served(server: ThreadServer, path: str) -> None:
    headers = server.get(path.replace("{base}", _base(server))).headers
    assert set(headers["content-security-policy"].split("; ")) == DIRECTIVES
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/sw.js", "/service-worker.js"])
def test_a_worker_of_another_program_finds_one_that_removes_itself(
    server: ThreadServer, path: str
) -> None:
    answer = server.get(path)
    assert answer.headers["cache-control"] == "no-store"
    assert b"registration.unregister()" in answer.body


def test_markup_has_nothing_inline_and_names_no_other_origin() -> None:
    page = (WEB / "index.html").read_text()
    assert not re.search(r"<style|style=|<script(?![^>]*\bsrc=)|\son\w+=", page)
    assert not re.search(r'(?:src|href)="(?!\{\{base\}\}/|data:image/svg)', page)


def test_a_library_has_its_licence_beside_it() -> None:
    names = {one.name for one in (WEB / "vendor").iterdir()}
    libraries = {one.removesuffix(".js") for one in names if one.endswith(".js")}
    assert {f"{one}.LICENSE" for one in libraries} <= names
