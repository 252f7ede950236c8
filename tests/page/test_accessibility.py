"""axe-core finds nothing in any state of the page: light and dark, phone and desktop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from support.browser import Watched, watched
from support.http_server import ThreadServer
from support.npm_packages import installed_packages

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
}


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
    page.close()
    assert found == {}


@pytest.mark.parametrize("width", [320, 640])
def test_nothing_is_wider_than_the_window(world: Watched, chat: str, width: int) -> None:
    page = world.open(f"/c/{chat}")
    page.set_viewport_size({"width": width, "height": 640})
    _tour(page)
    wider = page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter((one) => {
          const box = one.getBoundingClientRect();
          const scrolls = '.table, pre, .katex, .sidebar, .hidden';
          return box.width && box.right > innerWidth + 1 && !one.closest(scrolls);
        }).map((one) => one.outerHTML.slice(0, 120))"""
    )
    page.close()
    assert wider == []


def test_targets_are_large_enough(world: Watched, chat: str) -> None:
    page = world.open(f"/c/{chat}")
    _chat(page)
    small = page.evaluate(
        """() => [...document.querySelectorAll('button, a.side-row, summary, input:not(.hidden)')]
          .filter((one) => {
            const box = one.getBoundingClientRect();
            return box.width && (box.width < 24 || box.height < 24) && !one.closest('p');
          }).map((one) => one.outerHTML.slice(0, 120))"""
    )
    page.close()
    assert small == []
