"""In every state of the page axe-core finds nothing, all fits and can be hit, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from support.browser import Watched, send_message, watched
from support.http_server import ThreadServer
from support.npm_packages import installed_packages
from support.page_model import PageModel

_SIZES = {"desktop": (1280, 800), "phone": (320, 640)}
_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="module")
def axe() -> str:
    folder = installed_packages(Path(__file__).parent / "npm")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def chat(module_server: ThreadServer) -> str:
    """A chat with branches, tools, failures and everything that Markdown has."""
    first = module_server.respond("tour please", model="grok-4").json["id"]
    for text in ("Another way", "tool call", "A third way"):
        module_server.respond(text, model="grok-4", previous_response_id=first)
    found: str = module_server.get(f"/v1/chats/{first}").json["id"]
    return found


@pytest.fixture(scope="module")
def world(browser: Browser, module_server: ThreadServer) -> Iterator[Watched]:
    with watched(browser, module_server.url, has_touch=True) as watching:
        watching.allowed = ("404",)
        yield watching


def _new(page: Page) -> None:
    page.goto(page.url.split("/c/", maxsplit=1)[0] + "/")
    expect(page.get_by_role("textbox", name="Message")).to_be_visible()


def _chat(page: Page) -> None:
    expect(page.get_by_text("You asked: A third way")).to_be_visible()


def _pressed(key: str, title: str) -> Callable[[Page], None]:
    def opened(page: Page) -> None:
        _chat(page)
        page.locator("[data-turn]").last.focus()
        page.keyboard.press(key)
        expect(page.get_by_role("dialog", name=title)).to_be_visible()
        page.wait_for_timeout(150)

    return opened


def _clicked(name: str, title: str, text: str = "") -> Callable[[Page], None]:
    def opened(page: Page) -> None:
        _chat(page)
        page.get_by_role("button", name=name, exact=True).last.click()
        expect(page.get_by_role("dialog", name=title)).to_be_visible()
        if text:
            expect(page.get_by_text(text).first).to_be_visible()

    return opened


def _editing(page: Page) -> None:
    _chat(page)
    page.locator("[data-turn]").last.focus()
    page.keyboard.press("e")
    expect(page.get_by_label("Edit the question")).to_be_focused()


def _tour(page: Page) -> None:
    _chat(page)
    page.locator(".scroller").evaluate("(one) => { one.scrollTop = 0 }")
    expect(page.locator(".katex").first).to_be_visible()
    expect(page.locator(".hljs-keyword").first).to_be_visible()


STATES: dict[str, Callable[[Page], None]] = {
    "new": _new,
    "chat": _chat,
    "tour": _tour,
    "editing": _editing,
    "palette": _pressed("Control+k", "Search and commands"),
    "help": _pressed("?", "Keys and help"),
    "inbox": _pressed("i", "Approvals"),
    "branches": _pressed("m", "Map of branches"),
    "chat dialog": _clicked("More about this chat", "tour please"),
    "turn": _clicked("More", "Turn 2"),
    "context": _clicked("What the model saw", "What the model saw", "assistant"),
    "model": _clicked("grok-4", "Model and system prompt"),
    "share": _clicked("Share and export", "Share and export"),
    "usage": _clicked("Usage", "Usage", "What is stored"),
    "transfer": _clicked("Import and export", "Import and export"),
}
#: Elements that end beyond the window, without what scrolls.
_WIDER = """() => [...document.querySelectorAll('body *')].filter((one) => {
  const box = one.getBoundingClientRect();
  const scrolls = '.table, pre, .katex, .sidebar, .hidden, .map';
  return box.width && box.right > innerWidth + 1 && !one.closest(scrolls);
}).map((one) => one.outerHTML.slice(0, 120))"""
#: What can be pressed and is too small for a finger, but for words in a paragraph.
_SMALL = """() => [...document.querySelectorAll(
  'button, a.side-row, summary, select, textarea, input:not(.hidden), [role=option]'
)].filter((one) => {
  const box = one.getBoundingClientRect();
  const isLabelled = one.closest('label')?.getBoundingClientRect().height >= 24;
  return box.width && (box.width < 24 || box.height < 24) && !one.closest('p') && !isLabelled;
}).map((one) => one.outerHTML.slice(0, 120))"""


#: Both schemes at both sizes take twice as long as each once.
_ONCE: list[tuple[str, Literal["light", "dark"]]] = [("desktop", "light"), ("phone", "dark")]
_ALL = [(size, scheme) for size in _SIZES for scheme in _SCHEMES]


@pytest.mark.parametrize("looks", [_ONCE, pytest.param(_ALL, marks=pytest.mark.slow)], ids=len)
@pytest.mark.parametrize(
    "state",
    [
        one if one in ("chat", "palette") else pytest.param(one, marks=pytest.mark.slow)
        for one in STATES
    ],
)
def test_axe_finds_nothing(
    world: Watched,
    chat: str,
    axe: str,
    state: str,
    looks: list[tuple[str, Literal["light", "dark"]]],
) -> None:
    page = world.open(f"/c/{chat}")
    STATES[state](page)
    page.evaluate(axe)
    found: dict[str, list[Any]] = {}
    for size, scheme in looks:
        width, height = _SIZES[size]
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        result = page.evaluate(
            """() => axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa',
                 'wcag22aa', 'best-practice'], resultTypes: ['violations'] })"""
        )
        for one in result["violations"]:
            found.setdefault(f"{one['id']}: {one['help']}", []).append(
                (size, scheme, [node["html"][:200] for node in one["nodes"]][:3])
            )
        for fault, expression in (("wider than the window", _WIDER), ("small", _SMALL)):
            if elements := page.evaluate(expression):
                found.setdefault(fault, []).append((size, scheme, elements[:3]))
    page.close()
    assert found == {}


@pytest.mark.parametrize("width", [320, 640])
def test_nothing_is_wider_than_the_window(world: Watched, chat: str, width: int) -> None:
    page = world.open(f"/c/{chat}")
    page.set_viewport_size({"width": width, "height": 640})
    _tour(page)
    wider = page.evaluate(_WIDER)
    page.close()
    assert wider == []


def test_an_answer_is_announced_once_it_is_whole(
    browser: Browser, server: ThreadServer, model: PageModel
) -> None:
    with watched(browser, server.url) as watching:
        page = watching.open()
        send_message(page, "hold it")
        expect(page.get_by_text("First half,")).to_be_visible()
        # A screen reader waits with what is new in a region that is busy.
        log = page.get_by_role("log", name="Turns")
        expect(log).to_have_attribute("aria-busy", "true")
        server.set(model.resume)
        expect(log).to_have_attribute("aria-busy", "false")
        expect(log).to_contain_text("First half, second half.")


def test_enter_is_a_new_line_on_a_touch_keyboard(browser: Browser, server: ThreadServer) -> None:
    with watched(browser, server.url, has_touch=True, is_mobile=True) as watching:
        page = watching.open()
        message = page.get_by_role("textbox", name="Message")
        message.fill("one")
        message.press("Enter")
        expect(message).to_have_value("one\n")
        expect(message).to_have_attribute("enterkeyhint", "enter")
        page.get_by_role("button", name="Send", exact=True).tap()
        expect(page.get_by_text("You asked: one")).to_be_visible()


def test_what_is_opened_is_not_announced(browser: Browser, server: ThreadServer) -> None:
    only = server.respond("one").json["id"]
    with watched(browser, server.url) as watching:
        page = watching.open(f"/r/{only}")
        log = page.get_by_role("log", name="Turns")
        expect(log).to_have_attribute("aria-live", "off")
        send_message(page, "two")
        expect(page.get_by_text("You asked: two")).to_be_visible()
        expect(log).not_to_have_attribute("aria-live", "off")
