"""The first load is small, comes from here alone, and brings nothing that is not needed yet."""

from __future__ import annotations

import re
import zlib
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Request, Route, expect

from antiphon.models.scripted import ScriptedModel, say
from support.browser import paths_of, send_message, until, watched
from support.http_server import serving
from support.keyed_server import serving_with_keys

_WEB = Path(str(resources.files("antiphon"))) / "web"
_MAX_BYTES = 60 * 1024
_MAX_REQUESTS = 8
_MAX_WHEEL_BYTES = 700_000


def test_the_page_adds_few_bytes_to_the_wheel() -> None:
    files = [one for one in _WEB.rglob("*") if one.is_file()]
    assert sum(len(zlib.compress(one.read_bytes())) for one in files) <= _MAX_WHEEL_BYTES


def test_an_empty_page_is_eight_requests_and_sixty_kilobytes(browser: Browser) -> None:
    with serving() as server, watched(browser, server.url) as watching:
        # The last of them: it stays open. What comes after it nobody waits for.
        with watching.context.expect_event("request", _is_feed):
            page = watching.open()
        expect(page.get_by_role("textbox", name="Message")).to_be_focused()
        first = watching.requests[: [_is_feed(one) for one in watching.requests].index(True) + 1]
        assert len(first) <= _MAX_REQUESTS, paths_of(first)
        own = [one for one in first if "/v1/" not in one.url]
        sent = sum(sum(_sizes(one)) for one in own)
        assert sent <= _MAX_BYTES
        for request in own[1:]:
            answer = request.response()
            assert answer is not None
            assert answer.headers["content-encoding"] == "gzip"


def _is_feed(request: Request) -> bool:
    return request.url.endswith("/v1/feed")


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


#: Notes which fonts are here when the first formula is typeset.
_WATCH_FORMULAS = """
  window.hasFonts = [];
  addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
    if (!hasFonts.length && document.querySelector(".katex"))
      hasFonts = ["KaTeX_Main", "KaTeX_Math"].map((name) => [...document.fonts]
        .some(({ family, status }) => family === name && status === "loaded"));
  }).observe(document.body, { childList: true, subtree: true }));
"""


def test_formulas_are_typeset_once_their_fonts_are_here(browser: Browser) -> None:
    with (
        serving(ScriptedModel(lambda _: say("As $x^2$ says."))) as server,
        watched(browser, server.url) as watching,
    ):
        watching.context.add_init_script(_WATCH_FORMULAS)
        page = watching.open()
        send_message(page, "Say it")
        expect(page.locator(".katex")).to_be_visible()
        assert page.evaluate("hasFonts") == [True, True]


def test_formulas_are_typeset_when_the_network_is_back(browser: Browser) -> None:
    with (
        serving(ScriptedModel(lambda _: say("As $x^2$ says."))) as server,
        watched(browser, server.url) as watching,
    ):
        watching.allowed = ("ERR_FAILED",)
        page = watching.open()
        page.route("**/katex.css", lambda route: route.abort())
        with page.expect_event("requestfailed"):
            send_message(page, "Say it")
        expect(page.locator(".maths")).to_have_text("x^2")
        page.unroute("**/katex.css")
        expect(page.get_by_role("button", name="Ask again", exact=True)).to_be_enabled()
        send_message(page, "Once more")
        expect(page.locator(".katex")).to_be_visible()


_IMPORT = re.compile(r'^(?:import|export) [^"]*?from "\./([^"]+)";', re.MULTILINE)


def _imported(*names: str) -> set[str]:
    """Modules, and all that they import before they run."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += _IMPORT.findall((_WEB / name).read_text()) if "/" not in name else []
    return found


def test_the_head_names_every_module_that_a_chat_is_drawn_with() -> None:
    page, parts = (_WEB / "index.html").read_text(), (_WEB / "conversation.js").read_text()
    always, of_chats, _ = re.split(r"\{\{/?chat\}\}", page)
    named = re.compile(r'"\{\{base\}\}/([\w/]+\.js)"')
    assert set(named.findall(always)) == _imported("app.js")
    needed = _imported("turn_list.js", "turn_actions.js", "turn_window.js")
    assert set(named.findall(of_chats)) == needed - _imported("app.js")
    # Without such a head too, where a chat is begun, they come at once.
    assert set(re.findall(r'"\./([\w/]+\.js)"[,\]\)]', parts)) == needed - _imported("app.js")


@pytest.mark.parametrize("kind", ["c", "r"])
def test_a_chat_is_read_while_its_files_are_on_their_way(browser: Browser, kind: str) -> None:
    with serving() as server, watched(browser, server.url) as watching:
        turn = server.respond("Only words").json["id"]
        name = turn if kind == "r" else server.get(f"/v1/chats/{turn}").json["id"]
        first = f"/v1/responses/{name}/siblings" if kind == "r" else f"/v1/chats/{name}"
        page = watching.context.new_page()
        page.route("**/app.js", lambda route: route.abort())
        with (
            page.expect_request(lambda one: urlsplit(one.url).path == first),
            page.expect_request("**/text_marks.js"),
        ):
            page.goto(f"{server.url}/{kind}/{name}")
        page.close()
        watching.requests.clear()
        page = watching.open(f"/{kind}/{name}")
        expect(page.get_by_text("Only words", exact=True).first).to_be_visible()
        paths = paths_of(watching.requests)
        assert paths.count(first) == 1
        modules = [one for one in paths if one.endswith(".js")]
        assert len(modules) == len(set(modules))


def test_nothing_is_asked_without_the_key_that_it_needs(browser: Browser) -> None:
    with serving_with_keys() as keyed, watched(browser, keyed.server.url) as watching:
        watching.allowed = ("401",)
        client = keyed.client()
        turn = client.respond("Only words").json["id"]
        page = watching.context.new_page()
        page.route("**/app.js", lambda route: route.abort())
        with page.expect_request("**/text_marks.js"):
            page.goto(f"{watching.origin}/r/{turn}")
        assert not [one for one in paths_of(watching.requests) if one.startswith("/v1/")]


_SAVES_DATA = "Object.defineProperty(navigator, 'connection', { value: { saveData: true } })"
#: Whether files have been read; an entry is there when its file has come.
_HAS_READ = """(names) => {
  const read = new Set(performance.getEntriesByType("resource").map(({ name }) =>
    new URL(name).pathname.replace(/^.*?[/]web[/][^/]+[/]/, "")));
  return names.every((name) => read.has(name));
}"""


def _dialogs() -> dict[str, str]:
    text = (_WEB / "app.js").read_text()
    return dict(re.findall(r'(\w+): "\./(\w+\.js)"', text.split("const DIALOGS", 1)[1]))


def test_dialogs_that_were_never_opened_are_there_when_the_server_is_away(browser: Browser) -> None:
    needed = _imported(*_dialogs().values())
    assert len(needed) > 30
    with serving() as server, watched(browser, server.url) as watching:
        watching.allowed = ("ERR_INTERNET_DISCONNECTED",)
        page = watching.open()
        until(page, _HAS_READ, sorted(needed))
        watching.context.set_offline(True)
        page.get_by_role("button", name="Keys and help").click()
        expect(page.get_by_role("dialog", name="Keys and help")).to_be_visible()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Usage").click()
        expect(page.get_by_role("dialog", name="Usage")).to_contain_text(
            "The server cannot be reached."
        )


def test_a_list_is_called_empty_once_it_has_been_read(browser: Browser) -> None:
    held: list[Route] = []
    with serving() as server, watched(browser, server.url) as watching:
        watching.context.route("**/v1/chats?*", lambda route: held.append(route))  # noqa: PLW0108
        with watching.context.expect_event("request", lambda one: "/v1/chats?" in one.url):
            page = watching.open()
        expect(page.get_by_role("navigation", name="Chats")).to_be_visible()
        words = page.get_by_text("Your chats will be here")
        expect(words).to_have_count(0)
        until(page, "() => true")
        held.pop().continue_()
        expect(words).to_be_visible()


def test_a_dialog_comes_with_what_it_imports(browser: Browser) -> None:
    with serving() as server, watched(browser, server.url) as watching:
        watching.allowed = ("ERR_FAILED",)
        # Who pays for what is read is not sent what may never be opened.
        watching.context.add_init_script(_SAVES_DATA)
        page = watching.open()
        page.route("**/usage.js", lambda route: route.abort())
        with page.expect_request("**/dialog.js"), page.expect_request("**/programs.js"):
            page.get_by_role("button", name="Usage").click()
        expect(page.get_by_text("This part of the page could not be loaded.")).to_be_visible()


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
