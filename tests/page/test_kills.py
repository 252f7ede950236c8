"""Tab, network and server die in the middle of answers: nothing is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from support.browser import TIMEOUT
from support.misbehaving_upstream import Behaviour, Request
from support.scenario import DONE, UpstreamThread, end, stream_of, text
from support.serve_process import running_server

_KINDS = ("tab", "reload", "network", "server")


class World:
    """A server that can be killed, over an upstream that stops half-way until it may go on."""

    def __init__(self, home: Path, browser: Browser, upstream: UpstreamThread) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self._home, self._browser, self._upstream = home, browser, upstream
        self._gate = asyncio.Event()
        upstream.upstream.default_answer = self._answer
        self._process = ExitStack()
        self.context: BrowserContext = browser.new_context()
        self.start()

    def _answer(self, request: Request) -> Behaviour:
        question = request.json["messages"][-1]["content"]
        self._gate = asyncio.Event()
        return stream_of(
            text(f"Half of {question},"), self._gate, text(f" all of {question}."), end(), DONE
        )

    def start(self) -> None:
        url = self._upstream.upstream.base_url
        model = f'[models.half]\nbase_url = "{url}"\n'
        flags = ("--port", str(self.port), "--grpc-port", "0", "--model", "half")
        self._process.enter_context(running_server(self._home, *flags, more=model))

    def kill(self) -> None:
        """As ``kill -9``: nothing is closed."""
        self._process.close()

    def go_on(self) -> None:
        """Let the upstream say the rest."""
        self._upstream.loop.call_soon_threadsafe(self._gate.set)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.origin + path, timeout=30) as answer:
            return json.load(answer)

    def open(self, path: str) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(TIMEOUT)
        page.goto(self.origin + path)
        return page

    def close(self) -> None:
        self.context.close()
        self._process.close()


@contextmanager
def _world(home: Path, browser: Browser) -> Iterator[World]:
    with UpstreamThread() as upstream:
        world = World(home, browser, upstream)
        try:
            yield world
        finally:
            world.close()


def _send(page: Page, words: str) -> None:
    page.get_by_role("textbox", name="Message").fill(words)
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"Half of {words},").last).to_be_visible(timeout=TIMEOUT)


def _disturb(world: World, page: Page, kind: str, chat: str) -> Page:
    """One disaster in the middle of an answer; the page afterwards."""
    match kind:
        case "tab":
            page.close()
            world.go_on()
            return world.open(chat)
        case "reload":
            page.reload()
            world.go_on()
        case "network":
            world.context.set_offline(True)
            world.go_on()
            world.context.set_offline(False)
        case "server":
            world.kill()
            world.start()
    return page


def _check(world: World, page: Page, chat: str, questions: list[str], *, died: bool) -> None:
    """What the page shows is what is stored, each turn once."""
    words = questions[-1]
    if died:
        turn = page.locator("[data-turn]").last
        expect(turn.get_by_text("Interrupted.")).to_be_visible(timeout=TIMEOUT)
    else:
        expect(page.get_by_text(f"all of {words}.").last).to_be_visible(timeout=TIMEOUT)
        # All words are seen before the end is stored.
        expect(page.locator(".answer[aria-busy=true]")).to_have_count(0, timeout=TIMEOUT)
    head = world.get(f"/v1/chats/{chat.rpartition('/')[2]}")["head"]
    shown, expected = page.evaluate(_SHOWN), _stored(world, head)
    assert len(expected) == min(100, len(questions))
    seen, kept = shown[-len(expected) :], expected[-len(shown) :]
    assert seen == kept, [pair for pair in zip(seen, kept, strict=False) if pair[0] != pair[1]]


def _run(browser: Browser, home: Path, kinds: list[str]) -> None:
    with _world(home, browser) as world:
        page = world.open("/")
        questions: list[str] = []
        chat = ""
        for number, kind in enumerate(kinds):
            words = f"round {number}"
            questions.append(words)
            _send(page, words)
            if not chat:
                page.wait_for_url("**/c/chat_*")
                chat = page.url.removeprefix(world.origin)
            page = _disturb(world, page, kind, chat)
            _check(world, page, chat, questions, died=kind == "server")


def test_each_kind_of_disaster_loses_and_doubles_nothing(browser: Browser, tmp_path: Path) -> None:
    _run(browser, tmp_path, [*_KINDS])


_SHOWN = """() => [...document.querySelectorAll('[data-turn]')].map((one) => [one.dataset.turn,
    [...one.querySelectorAll('.prose')].map((part) => part.textContent).join('')])"""


def _stored(world: World, head: str) -> list[list[str]]:
    """Each turn of a chain: its id, and the words of its answer."""
    return [
        [
            one["response"]["id"],
            "".join(
                part["text"]
                for item in one["response"]["output"]
                if item["type"] == "message"
                for part in item["content"]
            ),
        ]
        for one in world.get(f"/v1/responses/{head}/turns?limit=100")["data"]
    ]


def _wait_until_shown(world: World, pages: list[Page], turns: int) -> None:
    """Until so many turns are stored, none runs, and the pages show them all as they are."""
    end = time.monotonic() + 240  # a message whose server died before it began waits for a minute
    while True:
        world.go_on()
        stored: list[list[str]] = []
        with suppress(OSError):
            (chat,) = world.get("/v1/chats")["data"] or [{"status": "none"}]
            stored = _stored(world, chat["head"]) if chat["status"] == "idle" else []
        shown = [page.evaluate(_SHOWN)[-turns:] for page in pages]
        if len(stored) == turns and all(one == stored for one in shown):
            return
        # What was sent to a turn that has died waits for its writer.
        if pages[0].evaluate(_IS_HELD_BACK):
            pages[0].get_by_role("textbox", name="Message").press("Enter")
        assert time.monotonic() < end, _differences(turns, stored, shown)
        pages[0].wait_for_timeout(50)


_IS_HELD_BACK = """() => document.querySelector('.queue')
    && document.querySelector('[aria-label="Send"]:not(:disabled)')"""


def _differences(turns: int, stored: list[list[str]], shown: list[list[list[str]]]) -> str:
    said = [f"{len(stored)} of {turns} turns are stored and idle"]
    for number, page in enumerate(shown, 1):
        said += [f"page {number} shows {one}" for one in page if one not in stored]
        said += [f"page {number} does not show {one}" for one in stored if one not in page]
        said += [f"page {number} shows {len(page)} turns"]
    return "\n".join(said)


def test_turn_that_died_is_settled_though_another_tab_has_gone_on(
    browser: Browser, tmp_path: Path
) -> None:
    with _world(tmp_path, browser) as world:
        first = world.open("/")
        _send(first, "from the first tab")
        first.wait_for_url("**/c/chat_*")
        chat = first.url.removeprefix(world.origin)
        world.kill()
        second = world.context.new_page()
        second.set_default_timeout(TIMEOUT)
        # The page is there, and what it shows is not: it waits for the server.
        second.route("**/v1/**", lambda route: route.abort())
        world.start()
        second.goto(world.origin + chat)
        second.unroute_all()
        expect(second.get_by_text("Interrupted.")).to_be_visible(timeout=TIMEOUT)
        _send(second, "from the second tab")
        _wait_until_shown(world, [first, second], 2)


@pytest.mark.slow
def test_older_file_in_the_place_of_the_store_is_what_the_page_shows(
    browser: Browser, tmp_path: Path
) -> None:
    with _world(tmp_path, browser) as world:
        page = world.open("/")
        _send(page, "kept")
        _wait_until_shown(world, [page], 1)
        world.kill()
        files = {one: one.read_bytes() for one in tmp_path.glob("turns.db*") if one.is_file()}
        world.start()
        _send(page, "not in the copy")
        _wait_until_shown(world, [page], 2)
        # Nobody puts an older file there before the feed has said what is newer.
        page.wait_for_timeout(1500)
        world.kill()
        for one in tmp_path.glob("turns.db*"):
            one.unlink() if one.is_file() else None
        for one, content in files.items():
            one.write_bytes(content)
        world.start()
        _wait_until_shown(world, [page], 1)
        expect(page.get_by_text("not in the copy")).to_have_count(0, timeout=TIMEOUT)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_deaths_at_any_moment_leave_on_screen_what_is_stored(
    browser: Browser, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    with _world(tmp_path, browser) as world:
        pages = [world.open("/")]
        for number in range(20):
            pages[0].get_by_role("textbox", name="Message").fill(f"moment {number}")
            pages[0].keyboard.press("Enter")
            pages[0].wait_for_timeout(chance.choice([0, 3, 10, 20, 40, 60, 90]))
            if chance.random() < 0.3:
                world.go_on()
            world.kill()
            world.start()
            _wait_until_shown(world, pages, number + 1)
            if not number:
                pages[0].wait_for_url("**/c/chat_*")
                pages.append(world.open(pages[0].url.removeprefix(world.origin)))


@pytest.mark.soak
def test_two_hundred_disasters_lose_and_double_nothing(browser: Browser, tmp_path: Path) -> None:
    chance = random.Random(7)
    _run(browser, tmp_path, [chance.choice(_KINDS) for _ in range(200)])
