"""What comes late, in another order or not at all: what was wished last is what is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pytest
from playwright.sync_api import FilePayload, Locator, Page, Route, expect

from support.browser import Held, Watched, click_often, send_message
from support.http_server import ThreadServer

_BROKEN = json.dumps({"error": {"message": "It broke here.", "code": "server_error"}})
_AWAY = "The server cannot be reached."


def _chat_of(server: ThreadServer, question: str) -> str:
    made = server.respond(question, model="grok-4").json["id"]
    found: str = server.get(f"/v1/chats/{made}").json["id"]
    return found


def _head_of(server: ThreadServer, chat: str) -> str:
    found: str = server.get(f"/v1/chats/{chat}").json["head"]
    return found


def _link(page: Page, name: str) -> Locator:
    return page.get_by_role("link", name=name, exact=True)


def test_an_older_row_of_the_list_never_takes_the_place_of_a_newer_one(
    world: Watched, server: ThreadServer
) -> None:
    chat, open_chat = _chat_of(server, "zero"), _chat_of(server, "In view")
    page = world.open(f"/c/{open_chat}")
    expect(_link(page, "zero")).to_be_visible()
    held = Held(page, f"**/v1/chats/{chat}")
    held.wait(partial(server.post, f"/v1/chats/{chat}", title="one"))
    server.post(f"/v1/chats/{chat}", title="two")
    # The page has heard of it once it shows what came later.
    head = _head_of(server, open_chat)
    server.respond("Later", model="grok-4", previous_response_id=head)
    expect(page.get_by_text("You asked: Later")).to_be_visible()
    held.release()
    expect(_link(page, "two")).to_be_visible()
    expect(_link(page, "one")).to_have_count(0)


def test_a_chat_that_is_erased_while_its_row_is_read_stays_away(
    world: Watched, server: ThreadServer
) -> None:
    chat, other = _chat_of(server, "zero"), _chat_of(server, "another")
    page = world.open()
    expect(_link(page, "zero")).to_be_visible()
    held = Held(page, f"**/v1/chats/{chat}")
    held.wait(partial(server.post, f"/v1/chats/{chat}", title="one"))
    assert server.request("DELETE", f"/v1/chats/{chat}").status == 200
    expect(_link(page, "zero")).to_have_count(0)
    held.release()
    server.post(f"/v1/chats/{other}", title="read after it")
    expect(_link(page, "read after it")).to_be_visible()
    expect(_link(page, "one")).to_have_count(0)


def test_the_way_back_in_one_chat_keeps_no_other_from_view(
    world: Watched, server: ThreadServer
) -> None:
    first = server.respond("one", model="grok-4").json["id"]
    second = server.respond("two", model="grok-4", previous_response_id=first).json["id"]
    other = _chat_of(server, "Another chat")
    page = world.open(f"/r/{second}")
    expect(page.get_by_text("You asked: two")).to_be_visible()
    page.get_by_role("button", name="Branch from here").first.click()
    expect(page.get_by_text("You asked: two")).to_have_count(0)
    held = Held(page, f"**/v1/responses/{_head_of(server, other)}/turns?*")
    held.wait(_link(page, "Another chat").click)
    page.get_by_role("button", name="Back").click()
    held.release()
    expect(page.get_by_text("You asked: Another chat")).to_be_visible()
    expect(page.get_by_text("You asked: one")).to_have_count(0)


def test_a_day_that_is_found_late_moves_nothing_once_its_dialog_is_left(
    world: Watched, server: ThreadServer
) -> None:
    head = None
    for number in range(24):
        text = f"number {number}"
        head = server.respond(text, model="grok-4", previous_response_id=head).json["id"]
    page = world.open(f"/r/{head}")
    expect(page.get_by_text("You asked: number 23")).to_be_visible()
    page.get_by_role("button", name="Go to a turn").click()
    page.get_by_label("Day", exact=True).fill("2020-01-01")
    held = Held(page, "**/turns?*position=*")
    held.wait(partial(page.keyboard.press, "Enter"))
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys and help")).to_be_visible()
    held.release()
    # What is done after an answer is done before the next one is there.
    page.evaluate("fetch('/v1/models').then((answer) => answer.text())")
    expect(page.get_by_role("dialog", name="Keys and help")).to_be_visible()
    expect(page.get_by_text("You asked: number 23")).to_be_in_viewport()


def test_who_types_while_a_turn_is_being_opened_goes_on_typing(
    world: Watched, server: ThreadServer
) -> None:
    turn = server.respond("one", model="grok-4").json["id"]
    page = world.open()
    held = Held(page, f"**/v1/responses/{turn}/turns?*")
    held.wait(lambda: page.goto(f"{world.origin}/r/{turn}"))
    box = page.get_by_role("textbox", name="Message")
    box.press_sequentially("two")
    held.release()
    expect(page.get_by_text("You asked: one")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_text("You asked: two")).to_be_visible()


def test_the_browsers_way_back_closes_what_was_open(world: Watched, server: ThreadServer) -> None:
    chat = _chat_of(server, "one")
    page = world.open()
    _link(page, "one").click()
    page.wait_for_url(f"**/c/{chat}")
    page.get_by_role("button", name="Share and export").click()
    expect(page.get_by_role("dialog", name="Share and export")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_text("What is on your mind?")).to_be_visible()


def test_what_is_typed_before_the_search_is_there_is_searched(
    world: Watched, server: ThreadServer
) -> None:
    made = server.respond("Where do herons sleep?", model="grok-4").json["id"]
    page = world.open()
    held: list[Route] = []
    page.route("**/palette.js", lambda route: held.append(route))  # noqa: PLW0108
    page.keyboard.press("Control+k")
    page.keyboard.type("herons")
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Message")).to_have_value("")
    held.pop().continue_()
    expect(page.locator(f'[data-turn="{made}"]')).to_be_focused()


def test_a_new_chat_gets_its_address_though_the_server_was_away(
    world: Watched, server: ThreadServer
) -> None:
    world.allowed = ("ERR_FAILED",)
    page = world.open()
    left = [None] * 2
    page.route(
        "**/v1/chats/resp_*",
        lambda route: route.abort() if left and not left.pop() else route.continue_(),
    )
    send_message(page, "one")
    page.wait_for_url("**/c/chat_*")
    assert not left
    expect(_link(page, "one")).to_be_visible()


def test_a_chat_that_could_not_be_erased_is_listed_again(
    world: Watched, server: ThreadServer
) -> None:
    world.allowed = ("ERR_FAILED",)
    _chat_of(server, "To stay")
    page = world.open()
    page.get_by_role("button", name="More about To stay").click()
    page.get_by_role("button", name="Erase").click()
    expect(_link(page, "To stay")).to_have_count(0)
    page.route("**/v1/chats/*", lambda route: route.abort())
    # The server is asked when the time to undo it is over, or here.
    page.evaluate("dispatchEvent(new Event('pagehide'))")
    expect(page.get_by_text(_AWAY)).to_be_visible()
    expect(_link(page, "To stay")).to_be_visible()


def test_a_name_is_selected_to_be_changed_and_kept_where_it_cannot_be(
    world: Watched, server: ThreadServer
) -> None:
    world.allowed = ("ERR_FAILED",)
    _chat_of(server, "Old name")
    page = world.open()
    page.get_by_role("button", name="More about Old name").click()
    dialog = page.get_by_role("dialog", name="Old name")
    expect(dialog.get_by_label("Name")).to_be_focused()
    page.route("**/v1/chats/*", lambda route: route.abort())
    page.keyboard.type("New name")
    page.keyboard.press("Enter")
    expect(dialog.get_by_text(_AWAY)).to_be_visible()
    expect(dialog.get_by_label("Name")).to_have_value("New name")
    page.unroute("**/v1/chats/*")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(_link(page, "New name")).to_be_visible()


@pytest.mark.slow
def test_dialogs_say_why_they_have_nothing_to_show(world: Watched, server: ThreadServer) -> None:
    world.allowed = ("500",)
    made = server.respond("Once", model="grok-4").json["id"]
    server.post("/v1/responses", input="Twice", model="grok-4", sibling_of=made)
    page = world.open(f"/r/{made}")
    for path in ("siblings?*limit=6*", "rhythm", "context"):
        page.route(f"**/{path}", lambda route: route.fulfill(status=500, body=_BROKEN))
    for name, within in (
        ("Versions side by side", "More"),
        ("Replay", "More"),
        ("What the model saw", None),
    ):
        if within:
            page.get_by_role("button", name=within, exact=True).click()
        page.get_by_role("button", name=name).click()
        dialog = page.get_by_role("dialog", name=name.removeprefix("Versions ").capitalize())
        expect(dialog.get_by_text("It broke here.").first).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.slow
def test_an_answer_that_cannot_be_followed_says_so_beside_the_others(
    world: Watched, server: ThreadServer
) -> None:
    world.allowed = ("404",)
    page = world.open()
    page.get_by_role("textbox", name="Message").fill("hang on")
    page.get_by_title("Ask several models, side by side").click()
    page.get_by_label("One more of grok-4").click()
    gone = json.dumps({"error": {"message": "It is gone.", "code": "not_found"}})
    page.route("**/v1/responses/resp_*", lambda route: route.fulfill(status=404, body=gone))
    page.get_by_role("button", name="Ask 1").click()
    column = page.get_by_role("region", name="grok-4")
    expect(column).to_contain_text("It is gone.")
    expect(column).to_have_attribute("aria-busy", "false")


def test_a_picture_that_cannot_be_read_leaves_its_message_in_the_queue(
    world: Watched, server: ThreadServer
) -> None:
    world.allowed = ("422",)
    page = world.open()
    send_message(page, "hang on")
    expect(page.get_by_text("Some words")).to_be_visible()
    page.wait_for_url("**/c/chat_*")
    head = server.get("/v1/responses").json["data"][0]["id"]
    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{_PNG}"}
    words = {"type": "input_text", "text": "with a picture"}
    message = {"type": "message", "role": "user", "content": [words, picture]}
    queued = {"background": True, "on_busy": "queue", "previous_response_id": head}
    server.post("/v1/responses", input=[message], model="grok-4", **queued)
    chips = page.get_by_role("list", name="Messages to be sent next").get_by_role("listitem")
    expect(chips).to_contain_text(["with a picture"])
    refused = "**/input_items"
    page.route(refused, lambda route: route.fulfill(status=422, body=_BROKEN))
    chips.get_by_role("button", name="with a picture").click()
    expect(page.get_by_text("It broke here.")).to_be_visible()
    expect(chips).to_contain_text(["with a picture"])
    page.unroute(refused)
    chips.get_by_role("button", name="with a picture").click()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("with a picture")
    expect(page.get_by_alt_text("Picture 1")).to_be_visible()
    expect(chips).to_have_count(0)


_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.mark.parametrize("width", [320, pytest.param(1280, marks=pytest.mark.slow)])
def test_the_notice_of_a_lost_connection_covers_neither_head_nor_queue(
    world: Watched, server: ThreadServer, width: int
) -> None:
    world.allowed = ("ERR_FAILED",)
    world.context.route("**/v1/feed", lambda route: route.abort())
    page = world.open()
    page.set_viewport_size({"width": width, "height": 700})
    send_message(page, "hang on")
    expect(page.get_by_text("Some words")).to_be_visible()
    send_message(page, "and this")
    expect(page.get_by_role("list", name="Messages to be sent next")).to_be_visible()
    expect(page.get_by_text("Not connected.")).to_be_visible()
    assert not page.evaluate(_COVERED)


#: What lies below a notice, cannot be scrolled, and could be clicked.
_COVERED = """() => {
  const notice = document.querySelector(".offline").getBoundingClientRect();
  const meets = (one) => one.top < notice.bottom && one.bottom > notice.top
    && one.left < notice.right && one.right > notice.left;
  const used = document.querySelectorAll(".head button, .composer :is(button, textarea)");
  return [...used].filter((one) => meets(one.getBoundingClientRect())).map((one) => one.outerHTML);
}"""


def _settle(page: Page) -> None:
    """What is done after an answer is done before the next one is there."""
    page.evaluate("fetch('/v1/models').then((answer) => answer.text())")


def _open_with_more(page: Page, name: str) -> Locator:
    page.get_by_role("button", name=f"More about {name}").click()
    return page.get_by_role("dialog", name=name)


def test_a_chat_that_is_erased_while_the_list_is_read_is_not_listed(
    world: Watched, server: ThreadServer
) -> None:
    chat, open_chat = _chat_of(server, "zero"), _chat_of(server, "In view")
    first = world.open()
    expect(_link(first, "zero")).to_be_visible()
    page = world.open(f"/c/{open_chat}")
    expect(_link(page, "zero")).to_be_visible()
    held = Held(page, "**/v1/chats?*")
    held.wait(page.reload)
    assert server.request("DELETE", f"/v1/chats/{chat}").status == 200
    # The other tab has told it once it shows what came later.
    head = _head_of(server, open_chat)
    server.respond("Later", model="grok-4", previous_response_id=head)
    expect(page.get_by_text("You asked: Later")).to_be_visible()
    held.release()
    expect(_link(page, "In view")).to_be_visible()
    expect(_link(page, "zero")).to_have_count(0)


def test_a_chat_that_goes_on_while_its_erasure_can_be_undone_is_listed_once_it_is(
    world: Watched, server: ThreadServer
) -> None:
    chat, other = _chat_of(server, "zero"), _chat_of(server, "another")
    page = world.open(f"/c/{chat}")
    _open_with_more(page, "zero").get_by_role("button", name="Erase").click()
    expect(_link(page, "zero")).to_have_count(0)
    server.post(f"/v1/chats/{chat}", title="renamed")
    server.post(f"/v1/chats/{other}", title="read after it")
    expect(_link(page, "read after it")).to_be_visible()
    _settle(page)
    expect(_link(page, "renamed")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(_link(page, "renamed")).to_be_visible()
    page.wait_for_url(f"**/c/{chat}")


def test_an_erasure_that_fails_takes_nobody_away_from_another_chat(
    world: Watched, server: ThreadServer
) -> None:
    world.allowed = ("ERR_FAILED",)
    chat, other = _chat_of(server, "To stay"), _chat_of(server, "another")
    page = world.open(f"/c/{chat}")
    _open_with_more(page, "To stay").get_by_role("button", name="Erase").click()
    _link(page, "another").click()
    page.wait_for_url(f"**/c/{other}")
    page.route(f"**/v1/chats/{chat}", lambda route: route.abort())
    page.evaluate("dispatchEvent(new Event('pagehide'))")
    expect(page.get_by_text(_AWAY)).to_be_visible()
    expect(_link(page, "To stay")).to_be_visible()
    assert page.url.endswith(f"/c/{other}")


def test_a_name_that_others_have_changed_since_is_the_one_that_is_shown(
    world: Watched, server: ThreadServer
) -> None:
    chat = _chat_of(server, "zero")
    page = world.open()
    held = Held(page, f"**/v1/chats/{chat}", "POST")
    _open_with_more(page, "zero").get_by_label("Name").fill("one")
    held.wait(partial(page.keyboard.press, "Enter"))
    server.post(f"/v1/chats/{chat}", title="two")
    expect(page.get_by_role("navigation").get_by_text("two")).to_be_attached()
    held.release()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(_link(page, "two")).to_be_visible()


def test_many_clicks_make_one_link_and_a_revoked_one_stays_away(
    world: Watched, server: ThreadServer
) -> None:
    page = world.open(f"/r/{server.respond('one', model='grok-4').json['id']}")
    page.get_by_role("button", name="Share and export").click()
    dialog = page.get_by_role("dialog", name="Share and export")
    links = dialog.get_by_role("listitem")
    make = dialog.get_by_role("button", name="Make a link")
    click_often(make)
    expect(dialog.get_by_label("The link")).to_be_visible()
    expect(links).to_have_count(1)
    assert len(server.get("/v1/shares").json["data"]) == 1
    held = Held(page, "**/v1/shares?*", times=1)
    held.wait(make.click)
    links.get_by_role("button", name="Revoke").click()
    # The second link was made before the first one was revoked.
    expect(links).to_have_count(1)
    held.release()
    _settle(page)
    expect(links).to_have_count(1)


def test_a_dialog_that_cannot_be_loaded_closes_no_other(world: Watched) -> None:
    world.allowed = ("ERR_FAILED",)
    held: list[Route] = []
    world.context.route("**/usage.js", lambda route: held.append(route))  # noqa: PLW0108
    page = world.open()
    page.get_by_role("button", name="Usage").click()
    while not held:
        page.wait_for_timeout(10)
    page.keyboard.press("Control+k")
    palette = page.get_by_role("dialog", name="Search and commands")
    expect(palette).to_be_visible()
    for route in held:
        with page.expect_event("requestfailed"):
            route.abort()
    _settle(page)
    expect(palette).to_be_visible()


def test_usage_that_could_not_be_read_is_forgotten_once_other_is_there(
    world: Watched, server: ThreadServer
) -> None:
    world.allowed = ("500",)
    server.respond("one", model="grok-4")
    page = world.open()
    page.get_by_role("button", name="Usage").click()
    dialog = page.get_by_role("dialog", name="Usage")
    expect(dialog.get_by_role("table")).to_be_visible()
    page.route(
        "**/v1/usage?*by=day%2Cmodel*", lambda route: route.fulfill(status=500, body=_BROKEN)
    )
    dialog.get_by_label("by", exact=True).select_option("model")
    expect(dialog.get_by_role("alert")).to_contain_text("It broke here.")
    dialog.get_by_label("by", exact=True).select_option("day")
    expect(dialog.get_by_role("alert")).to_have_count(0)


def _ask_two(page: Page) -> Callable[[], None]:
    """Asks two models; begins the second answer when what it returns is called."""
    page.get_by_role("textbox", name="Message").fill("one")
    page.get_by_title("Ask several models, side by side").click()
    for name in ("grok-4", "qwen3"):
        page.get_by_label(f"One more of {name}").click()
    held: list[Route] = []

    def hold(route: Route) -> None:
        if '"qwen3"' in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route("**/v1/responses", hold)
    page.get_by_role("button", name="Ask 2").click()
    while not held:
        page.wait_for_timeout(10)
    return held[0].continue_


def test_what_is_typed_while_several_are_asked_stays(world: Watched, server: ThreadServer) -> None:
    page = world.open()
    begin_second = _ask_two(page)
    page.keyboard.press("Escape")
    box = page.get_by_role("textbox", name="Message")
    box.fill("other words")
    begin_second()
    while len(server.get("/v1/responses").json["data"]) < 2:
        page.wait_for_timeout(20)
    _settle(page)
    page.reload()
    expect(box).to_have_value("other words")


def test_a_file_that_did_not_arrive_is_sent_again(world: Watched) -> None:
    world.allowed = ("ERR_FAILED",)
    page = world.open()
    page.get_by_role("button", name="Import and export").click()
    page.route(
        "**/v1/import",
        lambda route: route.abort() if route.request.method == "POST" else route.continue_(),
    )
    messages = json.dumps([{"role": "user", "content": "A question"}]).encode()
    file = FilePayload(name="messages.json", mimeType="application/json", buffer=messages)
    page.get_by_label("File").set_input_files([file])
    expect(page.get_by_role("alert")).to_contain_text(_AWAY)
    page.unroute("**/v1/import")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("1 chat from a list of messages.")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_button_that_is_clicked_twice_says_in_the_end_what_it_does(
    world: Watched, server: ThreadServer
) -> None:
    page = world.open(f"/r/{server.respond('one', model='grok-4').json['id']}")
    button = page.get_by_role("button", name="Copy the answer")
    button.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    page.get_by_role("button", name="Copied").click()
    expect(button).to_be_visible()
