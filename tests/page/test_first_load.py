"""The first load is small, comes from here alone, and brings nothing that is not needed yet."""

from __future__ import annotations

import zlib
from importlib import resources
from pathlib import Path

from playwright.sync_api import Browser, expect

from support.browser import paths_of, watched
from support.http_server import serving

_MAX_BYTES = 60 * 1024
_MAX_REQUESTS = 8
_MAX_WHEEL_BYTES = 700_000


def test_the_page_adds_few_bytes_to_the_wheel() -> None:
    folder = resources.files("antiphon") / "web"
    files = [one for one in Path(str(folder)).rglob("*") if one.is_file()]
    assert sum(len(zlib.compress(one.read_bytes())) for one in files) <= _MAX_WHEEL_BYTES


def test_an_empty_page_is_eight_requests_and_sixty_kilobytes(browser: Browser) -> None:
    with serving() as server, watched(browser, server.url) as watching:
        # The last of them: it stays open.
        is_feed = lambda request: request.url.endswith("/v1/feed")  # noqa: E731
        with watching.context.expect_event("request", is_feed):
            page = watching.open()
        expect(page.get_by_role("textbox", name="Message")).to_be_focused()
        assert len(watching.requests) <= _MAX_REQUESTS, paths_of(watching.requests)
        own = [one for one in watching.requests if "/v1/" not in one.url]
        sent = sum(sum(_sizes(one)) for one in own)
        assert sent <= _MAX_BYTES
        for request in own[1:]:
            answer = request.response()
            assert answer is not None
            assert answer.headers["content-encoding"] == "gzip"


def _sizes(request: object) -> tuple[int, int]:
    sizes = request.sizes()  # type: ignore[attr-defined]
    return sizes["responseBodySize"], sizes["responseHeadersSize"]


def test_what_every_address_has_is_painted_before_the_modules_are_here(browser: Browser) -> None:
    with serving() as server, watched(browser, server.url) as watching:
        watching.context.route("**/app.js", lambda route: route.abort())
        page = watching.context.new_page()
        page.goto(server.url)
        name = page.get_by_text("antiphon", exact=True)
        expect(name).to_be_visible()
        before = name.bounding_box()
        watching.context.unroute("**/app.js")
        page.goto(server.url)
        expect(page.get_by_role("textbox", name="Message")).to_be_visible()
        assert name.bounding_box() == before


def test_highlighting_and_maths_are_loaded_when_they_are_first_seen(browser: Browser) -> None:
    with serving() as server, watched(browser, server.url) as watching:
        page = watching.open()
        page.get_by_role("textbox", name="Message").fill("Only words")
        page.keyboard.press("Enter")
        expect(page.get_by_text("You said: Only words")).to_be_visible()
        libraries = [one for one in paths_of(watching.requests) if "/vendor/" in one]
        assert {one.rpartition("/")[2] for one in libraries} == {"preact.js", "marked.js"}


def test_a_second_load_takes_the_files_from_the_cache(browser: Browser) -> None:
    with serving() as server, watched(browser, server.url) as watching:
        page = watching.open()
        expect(page.get_by_role("textbox", name="Message")).to_be_visible()
        page.reload()
        expect(page.get_by_role("textbox", name="Message")).to_be_visible()
        again = watching.requests[len(watching.requests) // 2 :]
        files = [one for one in again if "/web/" in one.url]
        assert files
        for request in files:
            answer = request.response()
            assert answer is not None
            assert answer.from_service_worker is False
            assert request.sizes()["responseBodySize"] == 0 or answer.status in {200, 304}
