"""The queue of next messages: the server's, the same in every tab, sent only while it is wanted."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import APIResponse, Locator, Page, Route, expect

from support.browser import Watched, hold_message, send_message, wait_until_handed_over
from support.http_server import TIMEOUT, ThreadServer
from support.page_model import PageModel


def chips(page: Page) -> Locator:
    return page.get_by_role("list", name="Messages to be sent next").get_by_role("listitem")


def responses(server: ThreadServer) -> list[dict[str, Any]]:
    """What is stored, oldest first."""
    data: list[dict[str, Any]] = server.get("/v1/responses?order=asc").json["data"]
    return data


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + TIMEOUT
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def wait_for_statuses(server: ThreadServer, *statuses: str) -> None:
    wait_until(lambda: [one["status"] for one in responses(server)] == list(statuses))


def questions(page: Page) -> Locator:
    return page.locator(".question .bubble")


def begin(page: Page, server: ThreadServer, *later: str) -> None:
    """A turn that runs, and what is to be sent behind it."""
    send_message(page, "hold this")
    expect(page.get_by_text("First half,")).to_be_visible()
    for text in later:
        send_message(page, text)
    wait_for_statuses(server, "in_progress", *["queued"] * len(later))
    page.wait_for_url("**/c/chat_*")
    wait_until_handed_over(page)


def test_queue_is_seen_in_every_tab_and_sent_though_none_is_open(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    page = world.open()
    begin(page, server, "then that", "and this")
    other = world.open(page.url.removeprefix(world.origin))
    expect(chips(other)).to_contain_text(["then that", "and this"])
    send_message(other, "and more")
    expect(chips(page)).to_contain_text(["then that", "and this", "and more"])
    wait_until_handed_over(other)
    address = page.url.removeprefix(world.origin)
    page.close()
    other.close()
    server.set(model.resume)
    wait_for_statuses(server, *["completed"] * 4)
    page = world.open(address)
    expect(page.get_by_text("Messages so far: 7.")).to_be_visible()
    expect(questions(page)).to_have_text(["hold this", "then that", "and this", "and more"])
    expect(chips(page)).to_have_count(0)


def test_queue_goes_on_in_view_in_every_tab(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    page = world.open()
    begin(page, server, "then that", "and this")
    other = world.open(page.url.removeprefix(world.origin))
    expect(chips(other)).to_have_count(2)
    server.set(model.resume)
    for one in (page, other):
        expect(one.get_by_text("Messages so far: 5.")).to_be_visible()
        expect(chips(one)).to_have_count(0)
        expect(questions(one)).to_have_text(["hold this", "then that", "and this"])
    assert len(responses(server)) == 3


def test_queue_is_edited_moved_and_removed_until_it_begins(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    page = world.open()
    begin(page, server, "one", "two", "three")
    expect(chips(page)).to_contain_text(["one", "two", "three"])
    move_up = page.get_by_role("button", name="Send before the one in front")
    expect(move_up).to_have_count(2)
    move_up.last.click()
    expect(chips(page)).to_contain_text(["one", "three", "two"])
    chips(page).first.get_by_role("button", name="Remove from the queue").click()
    expect(chips(page)).to_contain_text(["three", "two"])
    chips(page).first.get_by_role("button", name="three").click()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("three")
    expect(chips(page)).to_contain_text(["two"])
    send_message(page, "three and a half")
    expect(chips(page)).to_contain_text(["two", "three and a half"])
    wait_for_statuses(server, "in_progress", "queued", "queued")
    wait_until_handed_over(page)
    page.reload()
    expect(chips(page)).to_contain_text(["two", "three and a half"])
    server.set(model.resume)
    expect(page.get_by_text("You asked: three and a half")).to_be_visible()
    expect(questions(page)).to_have_text(["hold this", "two", "three and a half"])


def test_queue_behind_a_stopped_answer_says_why_it_waits_and_is_sent_by_enter(
    world: Watched, server: ThreadServer
) -> None:
    page = world.open()
    begin(page, server, "then that", "and this")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("so these wait until you send them")).to_be_visible()
    page.reload()
    expect(page.get_by_text("so these wait until you send them")).to_be_visible()
    wait_for_statuses(server, "cancelled", "queued", "queued")
    page.get_by_role("textbox", name="Message").press("Enter")
    expect(page.get_by_text("Messages so far: 5.")).to_be_visible()
    expect(questions(page)).to_have_text(["hold this", "then that", "and this"])
    wait_for_statuses(server, "cancelled", "completed", "completed")


def test_queue_goes_behind_the_answer_that_is_asked_for_again(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    page = world.open()
    begin(page, server, "then that")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("so these wait until you send them")).to_be_visible()
    server.set(model.resume)
    page.get_by_role("button", name="Ask again", exact=True).click()
    expect(page.get_by_text("You asked: then that")).to_be_visible()
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    wait_for_statuses(server, "cancelled", "completed", "completed")
    expect(chips(page)).to_have_count(0)


def test_seconds_of_an_answer_are_counted_from_when_its_turn_began(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    page = world.open()
    begin(page, server, "then that")
    wait_until(lambda: time.time() >= responses(server)[1]["created_at"] + 3)
    server.set(model.resume)
    wait_for_statuses(server, "completed", "completed")
    before, waited = responses(server)
    assert waited["created_at"] < before["completed_at"]
    seconds = waited["completed_at"] - before["completed_at"]
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    facts = page.locator(".turn").last.locator(".facts")
    expect(facts).to_contain_text("token")
    shown = [one for one in facts.locator("span").all_inner_texts() if one.endswith(" s")]
    assert shown == ([f"{seconds} s"] if seconds else [])


def test_removed_message_stays_away_though_an_answer_that_was_on_its_way_has_it(
    world: Watched, server: ThreadServer
) -> None:
    page = world.open()
    begin(page, server, "one")
    expect(chips(page)).to_have_text(["one"])
    held: list[tuple[Route, APIResponse]] = []
    end_of_the_branch = re.compile(r"/turns\?(.*&)?limit=20(&|$)")
    page.route(end_of_the_branch, lambda route: held.append((route, route.fetch())))
    send_message(page, "two")
    while not held:
        page.wait_for_timeout(10)
    chips(page).first.get_by_role("button", name="Remove from the queue").click()
    expect(chips(page)).to_have_text(["two"])
    wait_for_statuses(server, "in_progress", "queued")
    for route, answer in held:
        with page.expect_response(route.request.url):
            route.fulfill(response=answer)
    wait_until_handed_over(page)
    page.evaluate("fetch('/v1/models').then((answer) => answer.text())")
    expect(chips(page)).to_have_text(["two"])


def test_message_goes_behind_the_one_before_where_that_in_front_was_just_removed(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    world.allowed = ("400",)
    page = world.open()
    begin(page, server, "one")
    expect(chips(page)).to_have_text(["one"])
    removed = responses(server)[1]["id"]
    held = hold_message(page, lambda: send_message(page, "two"))
    assert server.request("DELETE", f"/v1/responses/{removed}").status == 200
    held.continue_()
    wait_until_handed_over(page)
    wait_for_statuses(server, "in_progress", "queued")
    expect(chips(page)).to_have_text(["two"])
    server.set(model.resume)
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    expect(questions(page)).to_have_text(["hold this", "two"])


#: The server gets what is sent, and its answer never arrives.
_LOSE_ANSWERS = """() => {
  const real = fetch;
  window.fetch = async (path, options) => {
    const answer = await real(path, options);
    return options?.method === "POST" ? new Promise(() => {}) : answer;
  };
}"""


def test_turn_that_is_read_twice_as_it_begins_is_shown_once(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    page = world.open()
    begin(page, server)
    (first,) = responses(server)
    held: list[Route] = []
    is_released = False

    def hold(route: Route) -> None:
        """Hold what is read before the turn is queued, and all that is read when it begins."""
        is_held = not is_released and (not held or model.resume.is_set())
        if is_held and first["id"] not in route.request.url:
            held.append(route)
        else:
            route.continue_()

    page.route(re.compile(r"/turns\?(.*&)?limit=1(&|$)"), hold)
    # Sender and feed both ask for it; the one that is answered reads the queue.
    with page.expect_response(re.compile(r"/turns\?(.*&)?limit=20(&|$)")):
        send_message(page, "then that")
    expect(chips(page)).to_have_text(["then that"])
    server.set(model.resume)
    wait_for_statuses(server, "completed", "completed")
    while len(held) < 2:
        page.wait_for_timeout(10)
    is_released = True
    for route in held:
        with page.expect_response(route.request.url):
            route.continue_()
        expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    # What is done after an answer is done before the next one is there.
    page.evaluate("fetch('/v1/models').then((answer) => answer.text())")
    expect(questions(page)).to_have_text(["hold this", "then that"])
    expect(chips(page)).to_have_count(0)


def test_message_that_the_server_took_before_a_reload_is_shown_and_sent_once(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    page = world.open()
    begin(page, server)
    page.evaluate(_LOSE_ANSWERS)
    send_message(page, "then that")
    wait_for_statuses(server, "in_progress", "queued")
    page.reload()
    expect(chips(page)).to_have_text(["then that"])
    # A second one is noticed: what is sent with the same key behind another turn is refused.
    page.get_by_role("textbox", name="Message").fill("and this")
    page.keyboard.press("Enter")
    expect(chips(page)).to_contain_text(["then that", "and this"])
    wait_until_handed_over(page)
    server.set(model.resume)
    expect(page.get_by_text("Messages so far: 5.")).to_be_visible()
    expect(page.locator(".question .bubble")).to_have_text(["hold this", "then that", "and this"])
    wait_for_statuses(server, *["completed"] * 3)


def test_message_that_cannot_be_queued_is_sent_when_the_answer_has_ended(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    world.allowed = ("400",)
    page = world.open()
    begin(page, server)
    refused = []

    def refuse(route: Route) -> None:
        if "on_busy" not in (route.request.post_data or ""):
            route.continue_()
            return
        refused.append(route.request)
        route.fulfill(status=400, json={"error": {"message": "No queue here.", "code": "x"}})

    page.route("**/v1/responses", refuse)
    send_message(page, "then that")
    expect(page.get_by_text("No queue here.")).to_be_visible()
    expect(chips(page)).to_have_text(["then that"])
    server.set(model.resume)
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    expect(questions(page)).to_have_text(["hold this", "then that"])
    assert len(refused) == 1


def test_message_that_is_refused_after_its_chat_was_left_and_opened_again_stays_in_the_queue(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    world.allowed = ("404",)
    page = world.open()
    begin(page, server)
    held = hold_message(page, lambda: send_message(page, "then that"))
    page.get_by_role("link", name="New chat").first.click()
    expect(page.get_by_text("First half,")).to_have_count(0)
    page.locator(".chat-row a").first.click()
    expect(page.get_by_text("First half,")).to_be_visible()
    # As where the message before it in the queue has just been erased.
    error = {"message": "It was erased.", "code": "previous_response_not_found"}
    held.fulfill(status=404, json={"error": error})
    expect(chips(page)).to_have_text(["then that"])
    server.set(model.resume)
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    expect(questions(page)).to_have_text(["hold this", "then that"])


def test_what_two_tabs_queue_at_once_is_sent_though_one_is_loaded_again(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    page = world.open()
    begin(page, server)
    other = world.open(page.url.removeprefix(world.origin))
    expect(other.get_by_text("First half,")).to_be_visible()
    # Neither gets an answer to its first message before both have a second one.
    held: list[Route] = []
    for tab in (page, other):
        tab.route("**/v1/responses", lambda route: held.append(route), times=1)  # noqa: PLW0108
    for number in ("one", "two"):
        for name, tab in (("this", page), ("that", other)):
            send_message(tab, f"{name} {number}")
    while len(held) < 2:
        page.wait_for_timeout(10)
    page.reload()
    for route in held:
        if route.request.frame.page == other:
            route.continue_()
    for tab in (page, other):
        wait_until_handed_over(tab)
    wait_for_statuses(server, "in_progress", *["queued"] * 4)
    server.set(model.resume)
    wait_for_statuses(server, *["completed"] * 5)
    asked = [
        server.get(f"/v1/responses/{one['id']}/input_items?order=asc").json["data"][-1]
        for one in responses(server)
    ]
    words = sorted(one["content"][0]["text"] for one in asked)
    assert words == ["hold this", "that one", "that two", "this one", "this two"]


def test_turn_of_another_tab_is_not_shown_behind_a_message_that_continues_the_same_turn(
    world: Watched, server: ThreadServer
) -> None:
    page = world.open()
    send_message(page, "First")
    expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
    page.wait_for_url("**/c/chat_*")
    (first,) = responses(server)
    held: list[tuple[Route, APIResponse]] = []
    own: list[Route] = []

    def hold_answer(route: Route) -> None:
        held.append((route, route.fetch()))

    def hold(route: Route) -> None:
        own.append(route)

    page.route(re.compile(r"/turns\?(.*&)?limit=1(&|$)"), hold_answer)
    page.route("**/v1/responses", hold)
    server.respond("From a program", model="grok-4", previous_response_id=first["id"])
    while not held:
        page.wait_for_timeout(10)
    send_message(page, "From here")
    while not own:
        page.wait_for_timeout(10)
    (route, answer), *_ = held
    with page.expect_response(route.request.url):
        route.fulfill(response=answer)
    own[0].continue_()
    expect(page.get_by_text("You asked: From here")).to_be_visible()
    expect(page.locator(".answer[aria-busy=true]")).to_have_count(0)
    expect(page.locator(".question .bubble")).to_have_text(["First", "From here"])
