"""Long chats: few elements however long, any turn at once, and a view that stays where it is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

from support.browser import paths_of, until, watched
from support.http_server import ThreadServer, serving
from support.page_model import PageModel

_MAX_NODES = 5_000
_MAX_HEAP = 50_000_000
#: When a chat begins, and how many of its turns a day has.
_BEGIN = datetime(2025, 3, 1, 12, tzinfo=UTC)
_TURNS_A_DAY = 20
#: A server, the newest turn of its chat, and how many turns that has.
LongChat: TypeAlias = tuple[ThreadServer, str, int]


def _seed(server: ThreadServer, turns: int, days: list[int] | None = None) -> str:
    """A chat of so many turns, imported: the last one's id. ``days``: when each was."""
    messages = []
    for number in range(turns):
        text = f"Turn number {number}, with **bold** words and `code`.\n\n- one\n- two"
        day = days[number] if days else number // _TURNS_A_DAY
        at = (_BEGIN + timedelta(days=day)).timestamp() + number
        messages += [
            {"role": role, "content": text, "timestamp": at} for role in ("user", "assistant")
        ]
    job = server.request("POST", "/v1/import", json.dumps(messages).encode()).json
    while job["status"] == "running":
        time.sleep(0.1)
        job = server.get(f"/v1/import/{job['id']}").json
    (chat,) = job["report"]
    path = f"/v1/chats/{chat['chat_id']}"
    while "unsearched_turns" in server.get(f"{path}/search?query=turn&limit=1").json:
        time.sleep(0.1)
    return str(server.get(path).json["head"])


def _measure(page: Page) -> dict[str, float]:
    """What the page holds once its garbage is gone."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    session.send("HeapProfiler.collectGarbage")
    metrics = session.send("Performance.getMetrics")["metrics"]
    session.detach()
    return {one["name"]: one["value"] for one in metrics}


def _count_nodes(page: Page) -> int:
    return int(_measure(page)["Nodes"])


@pytest.fixture(scope="module", params=[160, pytest.param(10_000, marks=pytest.mark.slow)])
def chat(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LongChat]:
    file = None if request.param < 1000 else tmp_path_factory.mktemp("long") / "a.db"
    with serving(PageModel().models("grok-4"), file) as server:
        yield server, _seed(server, request.param), request.param


def test_it_opens_at_its_end_with_few_elements(browser: Browser, chat: LongChat) -> None:
    server, head, turns = chat
    found = server.get(f"/v1/chats/{head}").json["id"]
    with watched(browser, server.url) as watching:
        page = watching.open(f"/c/{found}")
        expect(page.get_by_text(f"Turn number {turns - 1},").last).to_be_in_viewport()
        assert _count_nodes(page) <= _MAX_NODES


#: Notes how many turns are drawn, each time that changes, and how high one of them stands.
_WATCH_TURNS = """
  window.counts = [];
  window.heights = [];
  addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
    const turns = document.querySelectorAll("[data-turn]");
    if (!turns.length || turns.length === counts.at(-1)) return;
    counts.push(turns.length);
    requestAnimationFrame(() => requestAnimationFrame(() => {
      const { top } = document.querySelector("[data-position='%d']").getBoundingClientRect();
      heights.push(Math.round(top));
    }));
  }).observe(document.body, { childList: true, subtree: true }));
"""


@pytest.mark.parametrize("is_at_end", [True, False])
def test_the_turns_in_view_are_drawn_first_and_stay_where_they_are(
    browser: Browser, chat: LongChat, is_at_end: bool
) -> None:
    server, head, turns = chat
    number = turns - 1 if is_at_end else turns // 2
    found = server.get(f"/v1/chats/{head}").json["id"]
    around = server.get(f"/v1/responses/{head}/turns?limit=1&position={number}").json["data"][0]
    path = f"/c/{found}" if is_at_end else f"/r/{around['response']['id']}"
    with watched(browser, server.url) as watching:
        watching.context.add_init_script(_WATCH_TURNS % number)
        page = watching.open(path)
        until(page, "counts.at(-1) >= 20 && heights.length === counts.length")
        assert page.evaluate("counts[0]") < 10
        first, *others = page.evaluate("heights")
        assert 0 < first < 800
        assert all(abs(one - first) <= 1 for one in others)


def test_any_turn_is_a_jump_away(browser: Browser, chat: LongChat) -> None:
    server, head, turns = chat
    with watched(browser, server.url) as watching:
        page = watching.open(f"/r/{head}")
        for number in (1, turns // 2, turns - 3):
            page.get_by_role("button", name="Go to a turn").click()
            page.get_by_role("spinbutton", name="Number").fill(str(number))
            page.keyboard.press("Enter")
            expect(page.locator(f'[data-position="{number - 1}"]')).to_be_in_viewport()
            assert _count_nodes(page) <= _MAX_NODES


def test_the_last_of_two_jumps_is_where_the_page_ends(browser: Browser, chat: LongChat) -> None:
    server, head, turns = chat
    held: list[Route] = []
    with watched(browser, server.url) as watching:
        page = watching.open(f"/r/{head}")
        expect(page.locator("[data-turn]").last).to_be_visible()
        page.route("**/turns?*position=0*", lambda route: held.append(route))  # noqa: PLW0108
        page.get_by_role("button", name="Go to a turn").click()
        page.get_by_role("button", name="First turn").click()
        page.get_by_role("button", name="Go to a turn").click()
        page.get_by_role("spinbutton", name="Number").fill(str(turns // 2))
        page.keyboard.press("Enter")
        wanted = page.locator(f'[data-position="{turns // 2 - 1}"]')
        expect(wanted).to_be_in_viewport()
        with page.expect_response("**/turns?*position=0*"):
            held.pop().continue_()
        expect(wanted).to_be_in_viewport()
        expect(page.locator('[data-position="0"]')).to_have_count(0)


def _jump_to_day(page: Page, days: int) -> None:
    page.get_by_role("button", name="Go to a turn").click()
    page.get_by_label("Day").fill(f"{_BEGIN + timedelta(days=days):%Y-%m-%d}")
    page.keyboard.press("Enter")


def _count_windows(requests: list[Request]) -> int:
    return sum(path.endswith("/turns") for path in paths_of(requests))


def test_a_day_is_a_jump_away(browser: Browser, chat: LongChat) -> None:
    server, head, turns = chat
    with watched(browser, server.url, timezone_id="UTC") as watching:
        page = watching.open(f"/r/{head}")
        for days in (1, turns // _TURNS_A_DAY // 2):
            expect(page.get_by_role("button", name="Go to a turn")).to_be_visible()
            before = _count_windows(watching.requests)
            _jump_to_day(page, days)
            first = page.locator(f'[data-position="{days * _TURNS_A_DAY}"]')
            expect(first).to_be_in_viewport()
            # However long it is: what is found, what is shown, and what is near it.
            assert _count_windows(watching.requests) - before <= 8
            assert _count_nodes(page) <= _MAX_NODES


def test_a_day_of_an_uneven_chat_is_a_jump_away(browser: Browser) -> None:
    days = [0] * 90 + [300] * 40 + [301, 302, 310, 365]
    with (
        serving(PageModel().models("grok-4")) as server,
        watched(browser, server.url, timezone_id="UTC") as watching,
    ):
        page = watching.open(f"/r/{_seed(server, len(days), days)}")
        for day, number in ((1, 90), (301, 130), (0, 0), (303, 132), (400, 133), (-9, 0)):
            _jump_to_day(page, day)
            expect(page.locator(f'[data-position="{number}"].found')).to_be_in_viewport()


def test_a_jump_waits_for_a_server_that_is_away(browser: Browser, chat: LongChat) -> None:
    server, head, turns = chat
    with watched(browser, server.url) as watching:
        watching.allowed = ("ERR_FAILED",)
        page = watching.open(f"/r/{head}")
        expect(page.locator("[data-turn]").last).to_be_visible()
        left = [None] * 3
        page.route(
            "**/turns?*",
            lambda route: route.abort() if left and not left.pop() else route.continue_(),
        )
        page.get_by_role("button", name="Go to a turn").click()
        page.get_by_role("button", name="First turn").click()
        expect(page.locator('[data-position="0"]')).to_be_in_viewport()
        assert not left
        # It reads on from there.
        page.get_by_role("button", name="Go to the end").click()
        expect(page.locator(f'[data-position="{turns - 1}"]')).to_be_in_viewport()


def test_the_keys_of_the_browsers_search_find_what_is_not_in_view(
    browser: Browser, chat: LongChat
) -> None:
    server, head, _ = chat
    with watched(browser, server.url) as watching:
        page = watching.open(f"/r/{head}")
        expect(page.locator("[data-turn]").last).to_be_visible()
        page.keyboard.press("Control+f")
        expect(page.get_by_role("dialog", name="Search in")).to_be_visible()
        page.evaluate(_NOTE_KEYS)
        # Once more: the browser's own.
        page.keyboard.press("Control+f")
        assert page.evaluate("window.kept") == ["Control", "f"]
        page.get_by_role("combobox").fill("number 37")
        expect(page.locator(".option").first).to_contain_text("Turn 38")
        page.keyboard.press("Enter")
        expect(page.locator('[data-position="37"]')).to_be_in_viewport()
        assert _count_nodes(page) <= _MAX_NODES


#: Keys that are left to the browser.
_NOTE_KEYS = """() => {
  window.kept = [];
  addEventListener('keydown', (event) => event.defaultPrevented || window.kept.push(event.key));
}"""


def test_the_browsers_search_is_left_alone_in_a_short_chat(browser: Browser) -> None:
    with (
        serving(PageModel().models("grok-4")) as server,
        watched(browser, server.url) as watching,
    ):
        head = server.respond("Short").json["id"]
        page = watching.open(f"/r/{head}")
        expect(page.get_by_text("You asked: Short")).to_be_visible()
        page.evaluate(_NOTE_KEYS)
        page.keyboard.press("Control+f")
        assert page.evaluate("window.kept") == ["Control", "f"]
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_scrolling_through_does_not_grow(browser: Browser, chat: LongChat) -> None:
    server, head, turns = chat
    with watched(browser, server.url) as watching:
        page = watching.open(f"/r/{head}")
        expect(page.locator(f'[data-position="{turns - 1}"]')).to_be_in_viewport()
        first, most = page.evaluate(_SCROLL_TO_THE_BEGINNING)
        assert first == 0
        assert most <= _MAX_NODES
        held = _measure(page)
        assert held["Nodes"] <= _MAX_NODES
        assert held["JSHeapUsedSize"] <= _MAX_HEAP


def test_a_chat_that_is_left_while_it_scrolls_is_gone(browser: Browser, chat: LongChat) -> None:
    server, head, turns = chat
    with watched(browser, server.url) as watching:
        page = watching.open(f"/r/{head}")
        expect(page.locator(f'[data-position="{turns - 1}"]')).to_be_in_viewport()
        # The event of the scrolling comes with the next frame.
        page.evaluate("""() => {
          document.querySelector('.scroller').scrollTop -= 300;
          document.querySelector('a[href="/"]').click();
        }""")
        expect(page.locator(".scroller")).to_have_count(0)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


#: Goes up as soon as there is something to go up to: where that ends, and the most elements.
_SCROLL_TO_THE_BEGINNING = """async () => {
  const scroller = document.querySelector('.scroller');
  const first = () => Number(document.querySelector('[data-turn]').dataset.position);
  let most = 0;
  for (let before = first() + 1; before > first(); ) {
    before = first();
    for (let n = 0; n < 6000 && before && first() === before; n++) {
      scroller.scrollTop -= 700;
      await new Promise((done) => setTimeout(done, 5));
    }
    most = Math.max(most, document.querySelectorAll('*').length);
  }
  return [first(), most];
}"""


def test_what_is_read_above_does_not_move_the_view(browser: Browser, chat: LongChat) -> None:
    server, head, turns = chat
    with watched(browser, server.url) as watching:
        page = watching.open(f"/r/{head}")
        expect(page.locator(f'[data-position="{turns - 1}"]')).to_be_in_viewport()
        moved = page.evaluate(
            """async () => {
              const scroller = document.querySelector('.scroller');
              const first = () => Number(document.querySelector('[data-turn]').dataset.position);
              const before = first();
              scroller.scrollTop = 700;
              await new Promise((done) => requestAnimationFrame(done));
              const article = [...document.querySelectorAll('[data-turn]')]
                .find((one) => one.getBoundingClientRect().bottom > 100);
              const top = article.getBoundingClientRect().top;
              for (let n = 0; n < 600 && first() === before; n++)
                await new Promise((done) => setTimeout(done, 10));
              await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
              return [first() < before, Math.abs(article.getBoundingClientRect().top - top)];
            }"""
        )
        assert moved[0]
        assert moved[1] <= 1


def test_the_view_follows_an_answer_whose_blocks_are_tall_or_become_smaller(
    browser: Browser,
) -> None:
    formula = (
        "$$\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix} = \\frac{\\sqrt{x_1}}{\\sum_i y_i}$$"
    )
    answer = f"echo {'A few words. ' * 9}\n\n{formula}\n\n```\n{'line' * 4}\n```\n\n" * 30
    with (
        serving(PageModel(delay=0.001).models("grok-4")) as server,
        watched(browser, server.url) as watching,
    ):
        page = watching.open()
        page.get_by_role("textbox", name="Message").fill(f"echo {answer}")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        expect(page.get_by_role("button", name="Stop")).to_have_count(0)
        until(page, "() => document.querySelectorAll('.maths .katex').length >= 30")
        until(
            page,
            """() => { const one = document.querySelector('.scroller');
              return one.scrollHeight - one.scrollTop - one.clientHeight < 2 }""",
        )


def test_the_view_moves_with_an_answer_only_at_the_end(browser: Browser) -> None:
    model = PageModel(delay=0.002)
    with serving(model.models("grok-4")) as server, watched(browser, server.url) as watching:
        for _ in range(3):
            server.respond("tour please", model="grok-4")
        head = server.get("/v1/responses?limit=1").json["data"][0]["id"]
        page = watching.open(f"/r/{head}")
        expect(page.get_by_text("ever lost").last).to_be_visible()
        page.get_by_role("textbox", name="Message").fill("tour again")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        page.locator(".scroller").evaluate("(one) => { one.scrollTop = 10 }")
        page.wait_for_timeout(50)
        expect(page.get_by_role("button", name="Stop")).to_have_count(0)
        assert page.locator(".scroller").evaluate("(one) => one.scrollTop") == 10
        page.get_by_role("button", name="Go to the end").click()
        until(
            page,
            """() => { const one = document.querySelector('.scroller');
              return one.scrollHeight - one.scrollTop - one.clientHeight < 2 }""",
        )
