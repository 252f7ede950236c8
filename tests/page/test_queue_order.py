"""The order in which messages of a chat are sent, and that they are sent there and nowhere else."""

from __future__ import annotations

from playwright.sync_api import expect

from page.test_queue import chips, questions, wait_for_statuses
from support.browser import Watched, hold_message, send_message, wait_until_handed_over
from support.http_server import ThreadServer
from support.page_model import PageModel


def test_message_that_waits_as_another_chat_is_opened_is_sent_in_its_own(
    world: Watched, server: ThreadServer
) -> None:
    page = world.open()
    send_message(page, "hello")
    page.wait_for_url("**/c/chat_*")
    held = hold_message(page, lambda: send_message(page, "one"))
    send_message(page, "two")
    expect(chips(page)).to_have_text(["two"])
    page.get_by_role("link", name="New chat").first.click()
    expect(questions(page)).to_have_count(0)
    page.locator(".chat-row a").first.click()
    expect(questions(page)).to_have_text(["hello"])
    expect(chips(page)).to_have_text(["two"])
    held.continue_()
    expect(questions(page)).to_have_text(["hello", "one", "two"])
    expect(chips(page)).to_have_count(0)
    wait_for_statuses(server, *["completed"] * 3)


#: Nothing can be sent from this page: a route would let through what is sent as the page goes.
_LOSE_WHAT_IS_SENT = """() => {
  const real = window.fetch;
  window.fetch = (...request) =>
    request[1]?.method === "POST" ? Promise.reject(new TypeError("lost")) : real(...request);
}"""


def test_messages_of_an_earlier_page_are_sent_in_their_order(
    world: Watched, server: ThreadServer
) -> None:
    page = world.open()
    send_message(page, "hello")
    page.wait_for_url("**/c/chat_*")
    expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
    page.evaluate(_LOSE_WHAT_IS_SENT)
    send_message(page, "one")
    expect(questions(page)).to_have_text(["hello", "one"])
    send_message(page, "two")
    expect(chips(page)).to_have_text(["two"])
    held = hold_message(page, page.reload)
    expect(questions(page)).to_have_text(["hello"])
    expect(chips(page)).to_have_text(["two"])
    held.continue_()
    expect(questions(page)).to_have_text(["hello", "one", "two"])
    expect(page.get_by_text("Messages so far: 5.")).to_be_visible()


def test_message_of_a_conversation_goes_behind_the_turn_of_another_program_that_just_began(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    conversation = server.post("/v1/conversations").json["id"]
    ask = {"model": "grok-4", "conversation": conversation}
    first = server.respond("hello", **ask).json["id"]
    chat = server.get(f"/v1/chats/{first}").json["id"]
    page = world.open(f"/c/{chat}")
    expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
    held = hold_message(page, lambda: send_message(page, "then that"))
    server.respond("hold this", background=True, **ask)
    held.continue_()
    wait_for_statuses(server, "completed", "in_progress")
    server.set(model.resume)
    wait_for_statuses(server, *["completed"] * 3)
    expect(questions(page)).to_have_text(["hello", "hold this", "then that"])
    expect(page.get_by_text("Messages so far: 5.")).to_be_visible()


def test_message_whose_conversation_cannot_be_moved_is_given_back_once(
    world: Watched, server: ThreadServer
) -> None:
    world.allowed = ("409",)
    conversation = server.post("/v1/conversations").json["id"]
    ask = {"model": "grok-4", "conversation": conversation}
    first = server.respond("hello", **ask).json["id"]
    server.respond("and on", **ask)
    page = world.open(f"/r/{first}")
    expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
    page.get_by_role("button", name="Branch from here").first.click()
    error = {"message": "Another turn is running.", "code": "conversation_locked"}
    page.route(
        f"**/v1/conversations/{conversation}",
        lambda route: route.fulfill(status=409, json={"error": error}),
        times=1,
    )
    send_message(page, "then that")
    expect(page.get_by_role("alert")).to_contain_text("Another turn is running.")
    page.get_by_role("link", name="New chat").first.click()
    page.get_by_role("button", name="Write it again").click()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("then that")
    page.locator(".chat-row a").first.click()
    expect(questions(page)).to_have_text(["hello", "and on"])
    expect(chips(page)).to_have_count(0)
    wait_until_handed_over(page)
    wait_for_statuses(server, "completed", "completed")


#: The answer in view ends, and before the page does anything about that another chat is opened.
_END_AND_LEAVE = """async () => {
  const app = document.querySelector("script[type=module]").src;
  const { set, state } = await import(app.replace(/app.js$/, "core.js"));
  const { conversation } = state;
  const end = ({ response, ...turn }) =>
    ({ ...turn, live: null, response: { ...response, status: "completed" } });
  set({ conversation: { ...conversation, turns: conversation.turns.map(end) } });
  for (let n = 0; n < 20; n++) await null;
  document.querySelector('a[href="/"]').click();
}"""


def test_message_is_not_sent_to_a_chat_that_is_opened_as_the_answer_before_it_ends(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    conversation = server.post("/v1/conversations").json["id"]
    first = server.respond("hello", model="grok-4", conversation=conversation).json["id"]
    page = world.open(f"/c/{server.get(f'/v1/chats/{first}').json['id']}")
    expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
    send_message(page, "hold this")
    expect(page.get_by_text("First half,")).to_be_visible()
    send_message(page, "then that")
    expect(chips(page)).to_have_text(["then that"])
    page.evaluate(_END_AND_LEAVE)
    expect(questions(page)).to_have_count(0)
    page.locator(".chat-row a").first.click()
    expect(questions(page)).to_have_text(["hello", "hold this"])
    expect(chips(page)).to_have_text(["then that"])
    server.set(model.resume)
    expect(questions(page)).to_have_text(["hello", "hold this", "then that"])
    wait_for_statuses(server, *["completed"] * 3)
    assert len(server.get("/v1/chats").json["data"]) == 1
