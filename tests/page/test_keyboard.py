"""Fifteen tasks by keyboard alone: no pointer moves in this file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from support.browser import Watched, watched
from support.http_server import ThreadServer


@pytest.fixture(scope="module")
def world(browser: Browser, module_server: ThreadServer) -> Iterator[Watched]:
    with watched(browser, module_server.url) as watching:
        watching.allowed = ("404",)
        yield watching


@pytest.fixture
def page(world: Watched, module_server: ThreadServer) -> Iterator[Page]:
    """A chat of three turns; the second has two versions."""
    first = module_server.respond("first question", model="grok-4").json["id"]
    module_server.respond("old second", model="grok-4", previous_response_id=first)
    second = module_server.respond("new second", model="grok-4", previous_response_id=first).json[
        "id"
    ]
    third = module_server.respond("third", model="grok-4", previous_response_id=second).json["id"]
    opened = world.open(f"/r/{third}")
    expect(opened.get_by_text("You asked: third")).to_be_visible()
    yield opened
    opened.close()


def tab_to(page: Page, name: str, key: str = "Tab", most: int = 80) -> None:
    """Press Tab until the element with this name has the focus."""
    for _ in range(most):
        focused = page.evaluate(
            """() => { const one = document.activeElement;
              return one.getAttribute('aria-label') || one.textContent.trim() || one.id }"""
        )
        if focused == name:
            return
        page.keyboard.press(key)
    raise AssertionError(f"Tab never comes to {name!r}")


def dialog(page: Page, name: str) -> None:
    expect(page.get_by_role("dialog", name=name)).to_be_visible()


def test_send_a_message(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("by keys")
    page.keyboard.press("Enter")
    expect(page.get_by_text("You asked: by keys")).to_be_visible()


def test_begin_a_new_chat(page: Page) -> None:
    page.keyboard.press("Alt+n")
    expect(page.get_by_text("What is on your mind?")).to_be_visible()
    page.keyboard.type("from the new chat")
    page.keyboard.press("Enter")
    expect(page.get_by_text("You asked: from the new chat")).to_be_visible()


def test_write_more_lines(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(page.get_by_role("textbox", name="Message")).to_have_value("one\ntwo")


def test_stop_an_answer(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("hang there")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Some words")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Stopped.")).to_be_visible()


def test_edit_a_question(page: Page) -> None:
    page.locator("[data-turn]").last.focus()
    page.keyboard.press("e")
    expect(page.get_by_label("Edit the question")).to_be_focused()
    page.keyboard.type(", better")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("You asked: third, better")).to_be_visible()


def test_leave_the_editor(page: Page) -> None:
    page.keyboard.press("e")
    expect(page.get_by_label("Edit the question")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_label("Edit the question")).to_have_count(0)


def test_ask_again(page: Page) -> None:
    page.keyboard.press("r")
    expect(page.get_by_text("2/2").last).to_be_visible()


def test_look_through_versions(page: Page) -> None:
    page.keyboard.press("[")
    expect(page.get_by_text("You asked: old second")).to_be_visible()
    page.keyboard.press("]")
    expect(page.get_by_text("You asked: new second")).to_be_visible()


def test_go_from_turn_to_turn(page: Page) -> None:
    page.locator("[data-turn]").last.focus()
    page.keyboard.press("k")
    page.keyboard.press("k")
    expect(page.locator("[data-turn]").first).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator("[data-turn]").nth(1)).to_be_focused()


def test_find_a_word_and_go_there(page: Page) -> None:
    # Without a wait: nothing that is typed while the search is being loaded is lost.
    page.keyboard.press("Control+k")
    page.keyboard.type("old second")
    dialog(page, "Search and commands")
    expect(page.locator(".option .excerpt").first).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_text("You asked: old second")).to_be_visible()


def test_run_a_command(page: Page) -> None:
    page.keyboard.press("Control+k")
    dialog(page, "Search and commands")
    page.keyboard.type("usage")
    page.keyboard.press("Enter")
    dialog(page, "Usage")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_rename_a_chat(page: Page) -> None:
    tab_to(page, "More about this chat", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Name")).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("Named by keys")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Named by keys")).to_be_visible()


def test_choose_a_branch_on_the_map(page: Page) -> None:
    page.keyboard.press("m")
    dialog(page, "Map of branches")
    branches = page.get_by_role("list", name="Branches")
    expect(branches.locator("[aria-current=true]")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_choose_a_model(page: Page) -> None:
    tab_to(page, "grok-4")
    page.keyboard.press("Enter")
    dialog(page, "Model and system prompt")
    expect(page.get_by_role("radio", name="grok-4")).to_be_checked()
    page.get_by_role("radio", name="grok-4").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="smollm2")).to_be_visible()


def test_erase_a_turn(page: Page) -> None:
    page.locator("[data-turn]").last.focus()
    tab_to(page, "More")
    page.keyboard.press("Enter")
    dialog(page, "Turn 3")
    tab_to(page, "Erase…")
    page.keyboard.press("Enter")
    tab_to(page, "Erase this turn")
    page.keyboard.press("Enter")
    expect(page.get_by_text("You asked: third")).to_have_count(0)


def test_open_help_and_close_it(page: Page) -> None:
    page.locator("[data-turn]").last.focus()
    page.keyboard.press("?")
    dialog(page, "Keys and help")
    page.keyboard.press("Escape")
    expect(page.locator("[data-turn]").last).to_be_focused()
