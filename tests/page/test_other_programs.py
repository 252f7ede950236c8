"""What other tabs and other programs do to a chat: the page shows it, whenever it happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from antiphon.core.retention import DAY_SECONDS, RetentionPolicy
from antiphon.stores.memory.store import MemoryStore
from support.browser import Watched, send_message, watched
from support.chat_terminal import chat, chat_home, leave
from support.http_server import ThreadServer, serving
from support.openai_client import client_of
from support.page_model import PageModel


def questions(page: Page) -> Locator:
    return page.locator(".bubble")


@pytest.mark.parametrize("path", ["/", "/c/{chat}", "/r/{turn}"])
def test_change_between_the_first_answer_and_the_feed_is_seen(
    world: Watched, server: ThreadServer, path: str
) -> None:
    first = server.respond("one", model="grok-4").json["id"]
    chat_id = server.get(f"/v1/chats/{first}").json["id"]
    made: list[str] = []

    def begin(route: Route) -> None:
        if not made:
            answer = server.respond("two", model="grok-4", previous_response_id=first)
            server.request("POST", f"/v1/chats/{chat_id}", {"title": "Another name"})
            made.append(answer.json["id"])
        route.continue_()

    world.context.route("**/v1/feed", begin)
    page = world.open(path.format(chat=chat_id, turn=first))
    expect(page.get_by_role("link", name="Another name")).to_be_visible()
    if path != "/":
        expect(page.get_by_text("You asked: two")).to_be_visible()


def test_change_before_the_files_that_show_it_are_there_is_seen(
    world: Watched, server: ThreadServer
) -> None:
    first = server.respond("one", model="grok-4").json["id"]
    second = server.respond("two", model="grok-4", previous_response_id=first).json["id"]
    server.respond("three", model="grok-4", previous_response_id=second)
    chat_id = server.get(f"/v1/chats/{first}").json["id"]
    # This tab reads the feed, and tells the other one.
    teller = world.open(f"/c/{chat_id}")
    expect(teller.get_by_text("You asked: two")).to_be_visible()
    page = world.context.new_page()
    held: list[Route] = []
    page.route("**/turn_window.js", lambda route: held.append(route))  # noqa: PLW0108
    with page.expect_response(f"**/v1/chats/{chat_id}?*"):
        page.goto(f"{world.origin}/c/{chat_id}")
    while not held:
        page.wait_for_timeout(10)
    assert server.request("DELETE", f"/v1/responses/{second}").status == 200
    expect(teller.get_by_text("You asked: two")).to_have_count(0)
    held[0].continue_()
    expect(page.get_by_text("You asked: three")).to_be_visible()
    expect(page.get_by_text("You asked: two")).to_have_count(0)


def test_turn_that_is_read_before_the_one_it_continues_is_shown_behind_it(
    world: Watched, server: ThreadServer
) -> None:
    first = server.respond("one", model="grok-4").json["id"]
    chat_id = server.get(f"/v1/chats/{first}").json["id"]
    page = world.open(f"/c/{chat_id}")
    expect(page.get_by_text("You asked: one")).to_be_visible()
    begun: list[str] = []
    held: list[Route] = []

    def hold(route: Route) -> None:
        """Hold what is read of the second turn until it is let go."""
        if begun and begun[0] in route.request.url and len(begun) == 1:
            held.append(route)
        else:
            route.continue_()

    page.route(re.compile(r"/turns\?(.*&)?limit=1(&|$)"), hold)
    begun.append(server.respond("two", model="grok-4", previous_response_id=first).json["id"])
    while not held:
        page.wait_for_timeout(10)
    with page.expect_response(re.compile(r"/turns\?(.*&)?limit=1(&|$)")):
        server.respond("three", model="grok-4", previous_response_id=begun[0])
    expect(page.get_by_text("You asked: two")).to_have_count(0)
    begun.append("")
    for route in held:
        route.continue_()
    expect(page.locator(".bubble")).to_have_text(["one", "two", "three"])


def test_tab_that_takes_over_the_feed_goes_on_where_the_other_ended(
    world: Watched, server: ThreadServer
) -> None:
    first, second = world.open(), world.open()
    server.respond("Seen by both", model="grok-4")
    for page in (first, second):
        expect(page.get_by_role("link", name="Seen by both")).to_be_visible()
    made: list[str] = []

    def begin(route: Route) -> None:
        if not made:
            made.append(server.respond("Between two feeds", model="grok-4").json["id"])
        route.continue_()

    second.route("**/v1/feed", begin)
    first.close()
    expect(second.get_by_role("link", name="Between two feeds")).to_be_visible()


def test_five_tabs_and_another_program_agree(
    browser: Browser, server: ThreadServer, world: Watched
) -> None:
    world.allowed = ("404",)
    first = server.respond("Begun by a program", model="grok-4").json["id"]
    chat_id = server.get(f"/v1/chats/{first}").json["id"]
    tabs = [world.open(f"/c/{chat_id}") for _ in range(5)]
    for tab in tabs:
        expect(tab.get_by_text("You asked: Begun by a program")).to_be_visible()
    send_message(tabs[0], "From a tab")
    for tab in tabs:
        expect(tab.get_by_text("You asked: From a tab")).to_be_visible()
    head = server.get(f"/v1/chats/{chat_id}").json["head"]
    server.respond("From a program", model="grok-4", previous_response_id=head)
    for tab in tabs:
        expect(tab.get_by_text("You asked: From a program")).to_be_visible()
        expect(tab.locator("[data-turn]")).to_have_count(3)
    server.request("POST", f"/v1/chats/{chat_id}", {"title": "Another name"})
    for tab in tabs:
        expect(tab.get_by_role("link", name="Another name")).to_be_visible()
    server.request("DELETE", f"/v1/chats/{chat_id}")
    for tab in tabs:
        expect(tab.get_by_role("link", name="Another name")).to_have_count(0)
        expect(tab.get_by_text("There is nothing here.")).to_be_visible()


@pytest.mark.slow
def test_five_tabs_a_terminal_and_a_client_of_the_api_agree(
    browser: Browser, tmp_path: Path
) -> None:
    home = chat_home(tmp_path, "http://127.0.0.1:9/v1")
    with (
        serving(PageModel().models("echo"), home / "turns.db") as server,
        client_of(server) as client,
        watched(browser, server.url) as watching,
    ):
        watching.allowed = ("404",)
        first = client.responses.create(model="echo", input="From a client").id
        chat_id = server.get(f"/v1/chats/{first}").json["id"]
        tabs = [watching.open(f"/c/{chat_id}") for _ in range(5)]
        send_message(tabs[0], "From a tab")
        for tab in tabs:
            expect(tab.get_by_text("You asked: From a tab")).to_be_visible()
        head = server.get(f"/v1/chats/{chat_id}").json["head"]
        with chat(home, "--model", "echo", "--from", head) as terminal:
            terminal.expect("> ")
            terminal.type("From a terminal\n")
            terminal.expect("From a terminal")
            for tab in tabs:
                expect(tab.locator(".bubble", has_text="From a terminal")).to_be_visible()
            leave(terminal)
        head = server.get(f"/v1/chats/{chat_id}").json["head"]
        last = client.responses.create(
            model="echo", input="From a client again", previous_response_id=head
        ).id
        asked = ["From a client", "From a tab", "From a terminal", "From a client again"]
        for tab in tabs:
            expect(tab.get_by_text("You asked: From a client again")).to_be_visible()
            expect(questions(tab)).to_have_text(asked)
        with chat(home, "--model", "echo", "--from", last) as terminal:
            terminal.expect("> ")
            terminal.type("/context\n")
            for question in asked:
                terminal.expect(f"user: {question}")
            terminal.type("/erase chat\n")
            terminal.expect("[y/N]")
            terminal.type("y\n")
            terminal.expect("erased")
            for tab in tabs:
                expect(tab.get_by_text("There is nothing here.")).to_be_visible()
            leave(terminal)
        assert server.get(f"/v1/responses/{first}").status == 404


def test_chat_that_would_expire_can_be_kept(browser: Browser) -> None:
    async def make_store() -> MemoryStore:
        return MemoryStore(RetentionPolicy(12 * DAY_SECONDS))

    with (
        serving(PageModel().models("grok-4"), make_store) as server,
        watched(browser, server.url) as watching,
    ):
        first = server.respond("To be kept", model="grok-4").json["id"]
        page = watching.open(f"/r/{first}")
        tag = page.get_by_role("button", name="expires in 12 days")
        tag.click()
        page.get_by_role("button", name="Keep").click()
        expect(tag).to_have_count(0)
        assert server.get(f"/v1/chats/{first}").json["expires_at"] is None
        page.get_by_role("button", name="More about this chat").click()
        expect(page.locator(".facts-list")).to_contain_text("never")
        page.get_by_role("button", name="Let it expire").click()
        expect(tag).to_be_visible()


def test_count_that_ends_early_says_that_there_are_more(
    world: Watched, server: ThreadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("antiphon.stores.memory.chats", "antiphon.api.http.usage"):
        monkeypatch.setattr(f"{module}.MAX_COUNTED", 2)
    first = server.respond("One", model="grok-4").json["id"]
    for _ in range(2):
        first = server.respond("More", model="grok-4", previous_response_id=first).json["id"]
    page = world.open()
    page.get_by_role("button", name="Usage").click()
    expect(page.get_by_text("1 chat, 2+ turns")).to_be_visible()
