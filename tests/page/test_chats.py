"""Chats on the page: sent once, streamed, stopped, resumed, and the same in every tab."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from support.browser import Watched, send_message, until
from support.http_server import ThreadServer
from support.page_model import PageModel

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def turns(page: Page) -> list[str]:
    return page.locator("[data-turn]").all_inner_texts()


def stored(server: ThreadServer) -> list[str]:
    return [one["id"] for one in server.get("/v1/responses?limit=100").json["data"]]


def test_a_message_is_answered_listed_and_there_after_a_reload(
    world: Watched, server: ThreadServer
) -> None:
    page = world.open()
    send_message(page, "Why is the sky blue?")
    expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
    expect(page.get_by_role("link", name="Why is the sky blue?")).to_be_visible()
    assert "/c/chat_" in page.url
    send_message(page, "And at night?")
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    assert page.locator("[data-turn]").count() == 2
    assert page.title() == "Why is the sky blue? · antiphon"
    assert len(stored(server)) == 2


def test_a_hundred_clicks_send_one_turn(world: Watched, server: ThreadServer) -> None:
    page = world.open()
    page.get_by_role("textbox", name="Message").fill("Once")
    page.evaluate(
        "() => { for (let n = 0; n < 100; n++) document.querySelector('.round.primary')?.click() }"
    )
    expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
    assert len(stored(server)) == 1


def test_stopping_keeps_what_came(world: Watched, server: ThreadServer) -> None:
    page = world.open()
    send_message(page, "hang on")
    expect(page.get_by_text("Some words")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Stopped.")).to_be_visible()
    expect(page.get_by_text("Some words")).to_be_visible()
    assert page.get_by_role("button", name="Stop").count() == 0


def test_a_failure_shows_what_arrived_and_can_be_retried(world: Watched) -> None:
    page = world.open()
    send_message(page, "fail now")
    expect(page.get_by_text("This turn failed. The upstream broke.")).to_be_visible()
    expect(page.get_by_text("Half an answer")).to_be_visible()
    page.get_by_role("button", name="Ask again").last.click()
    expect(page.get_by_text("2/2")).to_be_visible()


def test_a_reload_in_the_middle_of_an_answer_shows_all_of_it(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    page = world.open()
    send_message(page, "hold it")
    expect(page.get_by_text("First half,")).to_be_visible()
    until(page, "location.pathname.startsWith('/c/')")
    page.reload()
    expect(page.get_by_text("First half,")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    server.set(model.resume)
    expect(page.get_by_text("First half, second half.")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    assert len(stored(server)) == 1


def test_a_draft_survives_a_reload(world: Watched) -> None:
    page = world.open()
    page.get_by_role("textbox", name="Message").fill("Not sent yet")
    page.reload()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("Not sent yet")


def test_what_is_sent_offline_waits_and_is_sent_once(world: Watched, server: ThreadServer) -> None:
    world.allowed = ("ERR_INTERNET_DISCONNECTED", "ERR_NETWORK")
    page = world.open()
    page.get_by_role("textbox", name="Message").fill("first")
    until(page, _HAS_LOADED, ["turn_list", "turn_actions", "turn_window", "turns", "live_turn"])
    until(page, _HAS_LOADED, ["markdown", "code", "sending", "text_marks"])
    world.context.set_offline(True)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Waiting for the server…")).to_be_visible()
    assert stored(server) == []
    world.context.set_offline(False)
    expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
    assert len(stored(server)) == 1


#: An entry is there when its file has come.
_HAS_LOADED = """(names) => {
  const urls = performance.getEntriesByType("resource").map((one) => one.name);
  return names.every((name) => urls.some((url) => url.endsWith(`/${name}.js`)));
}"""


def test_what_could_not_be_sent_is_sent_by_the_next_page(
    world: Watched, server: ThreadServer
) -> None:
    world.allowed = ("ERR_INTERNET_DISCONNECTED", "ERR_NETWORK", "ERR_FAILED")
    page = world.open()
    page.get_by_role("textbox", name="Message").fill("left behind")
    until(page, _HAS_LOADED, ["turn_list", "turn_actions", "turn_window", "turns", "live_turn"])
    until(page, _HAS_LOADED, ["markdown", "code", "sending", "text_marks"])
    world.context.set_offline(True)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Waiting for the server…")).to_be_visible()
    page.close()
    world.context.set_offline(False)
    page = world.open()
    expect(page.get_by_role("link", name="left behind")).to_be_visible()
    assert len(stored(server)) == 1


def test_a_picture_is_sent_and_read_by_reference(
    world: Watched, server: ThreadServer, tmp_path: Path
) -> None:
    (tmp_path / "dot.png").write_bytes(PNG)
    page = world.open()
    page.get_by_label("Pictures", exact=True).set_input_files(tmp_path / "dot.png")
    expect(page.get_by_alt_text("Picture 1")).to_be_visible()
    send_message(page, "What is this?")
    expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
    page.reload()
    expect(page.get_by_alt_text("Picture that was sent")).to_have_attribute(
        "src", re.compile("^blob:")
    )


def test_a_temporary_chat_stores_nothing(world: Watched, server: ThreadServer) -> None:
    page = world.open()
    page.get_by_role("button", name="Temporary").click()
    send_message(page, "secret one")
    expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
    send_message(page, "secret two")
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    assert stored(server) == []
    assert "secret" not in page.evaluate("JSON.stringify({ ...localStorage, ...sessionStorage })")


def test_messages_wait_in_a_queue_while_an_answer_runs_and_survive_a_reload(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    page = world.open()
    send_message(page, "hold this")
    expect(page.get_by_text("First half,")).to_be_visible()
    send_message(page, "then that")
    expect(page.get_by_role("list", name="Messages to be sent next")).to_contain_text("then that")
    page.reload()
    expect(page.get_by_role("list", name="Messages to be sent next")).to_contain_text("then that")
    server.set(model.resume)
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    assert len(stored(server)) == 2


def test_messages_that_wait_after_a_failure_are_sent_by_enter(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    page = world.open()
    send_message(page, "break this")
    expect(page.get_by_text("First half,")).to_be_visible()
    send_message(page, "then that")
    server.set(model.resume)
    expect(page.get_by_text("This turn failed.")).to_be_visible()
    expect(page.get_by_role("list", name="Messages to be sent next")).to_contain_text("then that")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_enabled()
    page.get_by_role("textbox", name="Message").press("Enter")
    expect(page.get_by_text("You asked: then that")).to_be_visible()
    expect(page.get_by_role("list", name="Messages to be sent next")).to_have_count(0)
    assert len(stored(server)) == 2


def test_message_that_is_sent_while_the_page_itself_is_not_loaded_waits_for_it(
    world: Watched, server: ThreadServer
) -> None:
    world.allowed = ("Failed to load",)
    page = world.open()
    page.route("**/turn_actions.js", lambda route: route.abort())
    send_message(page, "Sent too early")
    expect(page.get_by_role("list", name="Messages to be sent next")).to_contain_text("too early")
    page.unroute_all()
    page.reload()
    expect(page.get_by_text("You asked: Sent too early")).to_be_visible()
    assert len(stored(server)) == 1
