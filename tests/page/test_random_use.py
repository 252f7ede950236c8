"""Random use of one or two tabs, whose requests and answers are late."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page

from antiphon.models.scripted import ScriptedModel, ScriptedReply, say
from support.browser import Watched, send_message, watched
from support.http_server import ThreadServer, serving

pytestmark = [pytest.mark.slow, pytest.mark.soak]

_STEPS = 25
#: Seconds after which what is sent has been answered, and is shown.
_SECONDS = 120
#: Half of all requests, and half of all answers, take up to 400 ms more.
_LATE = """
  let seed = SEED;
  const next = () => (seed = (seed * 1664525 + 1013904223) % 4294967296) / 4294967296;
  const nap = () => new Promise((done) => setTimeout(done, next() < 0.5 ? 0 : next() * 400));
  const real = window.fetch;
  window.fetch = async (...request) => {
    await nap();
    const answer = await real(...request);
    await nap();
    return answer;
  };
"""
#: Each turn in view: its id, and the words of its question and answer.
_SHOWN = """() => [...document.querySelectorAll('[data-turn]')].map((one) => [
  one.dataset.turn,
  one.querySelector('.bubble')?.innerText ?? '',
  [...one.querySelectorAll('.prose')].map((part) => part.textContent.trim()).join('')])"""
_QUESTION_OF = """(one) => one.closest('[data-turn]').querySelector('.bubble').innerText"""
_IS_HELD_BACK = """() => Boolean(document.querySelector('.queue')
  && document.querySelector('[aria-label="Send"]:not(:disabled)'))"""


def _reply(messages: list[dict[str, Any]]) -> ScriptedReply:
    words = f"An answer to {messages[-1]['content']} behind {len(messages) - 1} others."
    return say(*[f"{word} " for word in words.split()], delay=0.05)


class User:
    """Somebody who does things at random, and notes what must become of them.

    ``sent`` are messages, of which those in ``taken_back`` may have been erased, and those in
    ``repeated`` are asked more than once.
    """

    def __init__(self, seed: int, world: Watched, server: ThreadServer) -> None:
        self._random, self._server = random.Random(seed), server
        self.sent: list[str] = []
        self.taken_back: set[str] = set()
        self.repeated: set[str] = set()
        page = world.open()
        send_message(page, "Begin")
        page.wait_for_url("**/c/chat_*")
        self.tabs = [page]
        if seed % 2:
            self.tabs.append(world.open(page.url.removeprefix(server.url)))

    def act(self) -> None:
        """One step in one of the tabs; what is not there to be clicked is left."""
        others: list[Callable[[Page], None]] = [
            self._remove,
            self._edit,
            self._move_up,
            self._stop,
            self._ask_again,
            self._show_other_version,
            self._erase,
            self._be_another_program,
            self._lose_the_network,
            self._go_away_and_back,
            lambda page: page.wait_for_timeout(self._random.randrange(500)),
            self._reload,
        ]
        step = self._random.choice([self._send] * 6 + others)
        with suppress(Error):
            step(self._random.choice(self.tabs))

    def _send(self, page: Page) -> None:
        words = f"m{len(self.sent)}"
        page.locator("#composer").fill(words, timeout=3000)
        page.keyboard.press("Enter")
        self.sent.append(words)

    def _reload(self, page: Page) -> None:
        page.reload()

    def _remove(self, page: Page) -> None:
        self._click_queued(page, "[aria-label='Remove from the queue']")

    def _edit(self, page: Page) -> None:
        self._click_queued(page, ".chip")
        page.wait_for_timeout(self._random.randrange(600))
        self.taken_back.add(page.locator("#composer").input_value())
        page.locator("#composer").fill("")

    def _click_queued(self, page: Page, button: str) -> None:
        queued = page.locator("ul.queue > li")
        # The one that is clicked may be another than it was when it was chosen.
        self.taken_back.update(queued.locator(".chip").all_inner_texts())
        if count := queued.count():
            one = queued.nth(self._random.randrange(count))
            one.locator(button).click(timeout=1500)

    def _move_up(self, page: Page) -> None:
        buttons = page.get_by_role("button", name="Send before the one in front")
        if buttons.count():
            buttons.last.click(timeout=1500)

    def _stop(self, page: Page) -> None:
        page.get_by_role("button", name="Stop").click(timeout=500)

    def _ask_again(self, page: Page) -> None:
        button = page.get_by_role("button", name="Ask again", exact=True).last
        one = button.element_handle(timeout=600)
        self.repeated.add(one.evaluate(_QUESTION_OF))
        one.click(timeout=600)

    def _show_other_version(self, page: Page) -> None:
        page.get_by_role("button", name="Previous version").last.click(timeout=400)

    def _erase(self, _: Page) -> None:
        completed = [one for one in stored(self._server) if one["status"] == "completed"]
        if len(completed) > 2:
            one = self._random.choice(completed[:-1])
            self.taken_back.add(question_of(self._server, one["id"]))
            self._server.request("DELETE", f"/v1/responses/{one['id']}")

    def _be_another_program(self, _: Page) -> None:
        words = f"p{len(self.sent)}"
        (chat, *_) = self._server.get("/v1/chats").json["data"]
        answer = self._server.respond(words, model="m", previous_response_id=chat["head"])
        if answer.status == 200:
            self.sent.append(words)

    def _lose_the_network(self, page: Page) -> None:
        page.context.set_offline(True)
        page.wait_for_timeout(self._random.randrange(400))
        page.context.set_offline(False)

    def _go_away_and_back(self, page: Page) -> None:
        page.get_by_role("link", name="New chat").first.click(timeout=800)
        page.wait_for_timeout(self._random.randrange(300))
        page.locator(".chat-row a").first.click(timeout=5000)


def stored(server: ThreadServer) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = server.get("/v1/responses?order=asc&limit=100").json["data"]
    return data


def question_of(server: ThreadServer, response_id: str) -> str:
    """What was asked; nothing if it has been erased meanwhile."""
    items = server.get(f"/v1/responses/{response_id}/input_items?order=asc").json.get("data", [])
    content = items[-1]["content"] if items else ""
    return content if isinstance(content, str) else content[0]["text"]


def waiting_for_a_user(responses: list[dict[str, Any]]) -> set[str]:
    """Turns that are queued behind one that was stopped: on a branch in view they are sent."""
    ended = {one["id"]: one["status"] not in {"queued", "in_progress"} for one in responses}
    completed = {one["id"] for one in responses if one["status"] == "completed"}
    waiting: set[str] = set()
    for one in responses:
        before = one["previous_response_id"]
        is_held = before in waiting or (ended.get(before, True) and before not in completed)
        if one["status"] == "queued" and is_held:
            waiting.add(one["id"])
    return waiting


def faults(user: User, server: ThreadServer) -> list[object]:
    """What is not as it should be once everything has been answered."""
    found: list[object] = []
    responses = stored(server)
    waiting = waiting_for_a_user(responses)
    found += [
        one["id"]
        for one in responses
        if one["status"] in {"queued", "in_progress"} and one["id"] not in waiting
    ]
    said = ""
    for page in user.tabs:
        if page.evaluate(_IS_HELD_BACK):
            page.locator("#composer").press("Enter")
        found += [("queued", one) for one in page.locator(".queue .chip").all_inner_texts()]
        # What was refused is given back, and what was edited is in the message box.
        said += page.locator("#composer").input_value()
        said += "".join(page.locator(".notices").all_inner_texts())
        shown = page.evaluate(_SHOWN)
        head = shown[-1][0] if shown else None
        turns = server.get(f"/v1/responses/{head}/turns?limit=100").json.get("data", [])
        expected = [_words_of(one, server) for one in turns]
        if not shown or shown != expected[-len(shown) :]:
            found.append(("a tab shows", shown, "of", expected))
    asked = [question_of(server, one["id"]) for one in responses]
    for words in user.sent:
        count = asked.count(words)
        if count == 0 and words not in user.taken_back and words not in said:
            found.append(("lost", words))
        if count > 1 and words not in user.repeated:
            found.append(("doubled", words))
    return found


def _words_of(turn: dict[str, Any], server: ThreadServer) -> list[str]:
    response = turn["response"]
    messages = [one for one in response["output"] if one["type"] == "message"]
    answer = "".join(part["text"].strip() for one in messages for part in one["content"])
    return [response["id"], question_of(server, response["id"]), answer]


@pytest.mark.parametrize("seed", range(8))
def test_random_use_loses_doubles_and_mixes_up_nothing(browser: Browser, seed: int) -> None:
    with serving({"m": ScriptedModel(_reply)}) as server, watched(browser, server.url) as world:
        # What was erased, has ended or is answered by somebody else is refused.
        world.allowed = ("400", "404", "409", "ERR_")
        world.context.add_init_script("{" + _LATE.replace("SEED", str(seed)) + "}")
        user = User(seed, world, server)
        for _ in range(_STEPS):
            user.act()
        # Nobody is left on the page of a new chat.
        for page in user.tabs:
            if page.url == f"{server.url}/":
                page.locator(".chat-row a").first.click()
        end = time.monotonic() + _SECONDS
        while found := faults(user, server):
            assert time.monotonic() < end, found
            user.tabs[0].wait_for_timeout(200)
