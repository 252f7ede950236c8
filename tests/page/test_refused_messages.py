"""Messages that the server refuses: their words stay, whatever becomes of the page."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from support.browser import Watched, send_message, wait_until_handed_over
from support.http_server import ThreadServer

_REFUSAL = {"error": {"message": "Not with these words.", "code": "x"}}


@pytest.fixture
def page(world: Watched, server: ThreadServer) -> Page:
    """A chat with a turn; what is sent next is refused once."""
    world.allowed = ("400",)
    page = world.open()
    send_message(page, "First")
    expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
    page.wait_for_url("**/c/chat_*")
    page.route("**/v1/responses", lambda route: route.fulfill(status=400, json=_REFUSAL), times=1)
    return page


def refuse(page: Page, words: str = "Second") -> None:
    send_message(page, words)
    expect(page.get_by_role("alert")).to_contain_text("Not with these words.")


def questions(server: ThreadServer) -> list[str]:
    """What was asked, oldest first."""
    data = server.get("/v1/responses?order=asc").json["data"]
    paths = [f"/v1/responses/{one['id']}/input_items?order=asc" for one in data]
    return [server.get(path).json["data"][-1]["content"][0]["text"] for path in paths]


def message_box(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message")


def test_refused_message_is_given_back_by_the_next_page_and_not_sent_by_itself(
    page: Page, world: Watched, server: ThreadServer
) -> None:
    refuse(page)
    # Another page leaves it to the one that shows it.
    other = world.open()
    expect(other.get_by_role("link", name="First")).to_be_visible()
    other.wait_for_timeout(200)
    expect(other.get_by_text("could not be sent")).to_have_count(0)
    other.close()
    page.reload()
    expect(page.get_by_text("“Second” could not be sent: Not with these words.")).to_be_visible()
    page.get_by_role("button", name="Write it again").click()
    expect(message_box(page)).to_have_value("Second")
    wait_until_handed_over(page)
    assert questions(server) == ["First"]
    page.reload()
    expect(page.get_by_text("You asked: First")).to_be_visible()
    expect(page.get_by_text("could not be sent")).to_have_count(0)
    expect(message_box(page)).to_have_value("Second")


def test_refused_message_is_given_back_when_another_chat_is_opened(
    page: Page, server: ThreadServer
) -> None:
    refuse(page)
    page.get_by_role("link", name="New chat").first.click()
    expect(page.get_by_text("“Second” could not be sent: Not with these words.")).to_be_visible()
    page.get_by_role("button", name="Discard").click()
    expect(page.get_by_text("could not be sent")).to_have_count(0)
    wait_until_handed_over(page)
    expect(message_box(page)).to_have_value("")
    assert questions(server) == ["First"]


def test_refused_message_is_taken_back_and_changed(page: Page, server: ThreadServer) -> None:
    refuse(page)
    page.get_by_role("button", name="Write it again").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(message_box(page)).to_have_value("Second")
    wait_until_handed_over(page)
    send_message(page, "Second, in other words")
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    assert questions(server) == ["First", "Second, in other words"]


def test_refused_message_is_tried_again_in_its_place(page: Page, server: ThreadServer) -> None:
    refuse(page)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    expect(page.get_by_role("article", name="Turn 2")).to_be_visible()
    wait_until_handed_over(page)
    assert questions(server) == ["First", "Second"]


def test_refused_version_is_tried_again_in_its_place(page: Page, server: ThreadServer) -> None:
    page.unroute("**/v1/responses")
    send_message(page, "Second")
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    page.route("**/v1/responses", lambda route: route.fulfill(status=400, json=_REFUSAL), times=1)
    page.get_by_role("button", name="Edit and ask again").last.click()
    page.get_by_label("Edit the question").fill("Second, changed")
    page.get_by_role("button", name="Send", exact=True).first.click()
    refusal = page.get_by_text("“Second, changed” could not be sent: Not with these words.")
    expect(refusal).to_be_visible()
    # Nothing can go on from it: what is in view is what is stored.
    expect(page.locator(".question .bubble")).to_have_text(["First", "Second"])
    page.get_by_role("button", name="Try again").click()
    expect(refusal).to_have_count(0)
    expect(page.get_by_text("You asked: Second, changed")).to_be_visible()
    expect(page.locator(".question .bubble")).to_have_text(["First", "Second, changed"])
    wait_until_handed_over(page)
    assert questions(server) == ["First", "Second", "Second, changed"]


def test_refused_version_whose_chat_was_left_gives_its_words_back(
    page: Page, server: ThreadServer
) -> None:
    page.get_by_role("button", name="Ask again", exact=True).click()
    refusal = page.get_by_text("“First” could not be sent: Not with these words.")
    expect(refusal).to_be_visible()
    page.get_by_role("link", name="New chat").first.click()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    expect(refusal).to_be_visible()
    page.get_by_role("button", name="Write it again").click()
    expect(message_box(page)).to_have_value("First")
    assert questions(server) == ["First"]


def test_message_after_a_refused_version_goes_on_from_what_is_in_view(
    page: Page, server: ThreadServer
) -> None:
    page.get_by_role("button", name="Ask again", exact=True).click()
    expect(page.get_by_text("“First” could not be sent: Not with these words.")).to_be_visible()
    send_message(page, "Second")
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    expect(page.locator(".question .bubble")).to_have_text(["First", "Second"])
    page.get_by_role("button", name="Discard").click()
    wait_until_handed_over(page)
    assert questions(server) == ["First", "Second"]


def test_refused_message_leaves_the_view_as_another_program_goes_on(
    page: Page, server: ThreadServer
) -> None:
    refuse(page)
    (chat,) = server.get("/v1/chats").json["data"]
    server.respond("Meanwhile", model="grok-4", previous_response_id=chat["head"])
    expect(page.get_by_text("“Second” could not be sent: Not with these words.")).to_be_visible()
    expect(page.locator(".question .bubble")).to_have_text(["First", "Meanwhile"])
    page.get_by_role("button", name="Write it again").click()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Messages so far: 5.")).to_be_visible()
    assert questions(server) == ["First", "Meanwhile", "Second"]


def test_refused_message_leaves_the_view_as_another_one_is_sent(
    page: Page, server: ThreadServer
) -> None:
    refuse(page)
    send_message(page, "Third")
    expect(page.get_by_text("“Second” could not be sent: Not with these words.")).to_be_visible()
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    expect(page.locator(".question .bubble")).to_have_text(["First", "Third"])
    page.get_by_role("button", name="Write it again").click()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Messages so far: 5.")).to_be_visible()
    assert questions(server) == ["First", "Third", "Second"]
