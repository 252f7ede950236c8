"""Words that are typed and not sent yet: no reload, other chat, Escape or refusal loses them."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from antiphon.models.scripted import ScriptedModel, ScriptedReply, call, calls, say
from support.browser import Watched, send_message, until, watched
from support.http_server import ThreadServer, serving
from support.mcp_toolsets import stdio_config

_REFUSAL = {"error": {"message": "Not with these words.", "code": "x"}}


def _chat(server: ThreadServer, *questions: str) -> str:
    """A chat with some turns; the last one's id."""
    head: str | None = None
    for question in questions:
        head = server.respond(question, model="grok-4", previous_response_id=head).json["id"]
    assert head
    return head


def _editor(page: Page) -> Locator:
    return page.get_by_label("Edit the question")


def _begin_edit(page: Page, words: str) -> None:
    page.get_by_role("button", name="Edit and ask again").last.click()
    _editor(page).fill(words)


def _stored(page: Page) -> str:
    return str(page.evaluate("JSON.stringify(localStorage)"))


def _wait_until_forgotten(page: Page, words: str) -> None:
    until(page, "(words) => !JSON.stringify(localStorage).includes(words)", words)


def test_an_edited_question_is_there_after_a_reload_and_in_no_message(
    world: Watched, server: ThreadServer
) -> None:
    page = world.open(f"/r/{_chat(server, 'one', 'two')}")
    _begin_edit(page, "two, in other words")
    page.reload()
    expect(_editor(page)).to_have_value("two, in other words")
    expect(page.get_by_role("textbox", name="Message")).to_have_value("")
    page.locator(".editor").get_by_role("button", name="Send").click()
    expect(page.get_by_text("You asked: two, in other words")).to_be_visible()
    expect(_editor(page)).to_have_count(0)
    page.get_by_role("button", name="Previous version").click()
    expect(page.get_by_text("You asked: two", exact=True)).to_be_visible()
    expect(_editor(page)).to_have_count(0)
    assert "in other words" not in _stored(page)


def test_two_questions_that_are_edited_keep_their_words_in_another_chat(
    world: Watched, server: ThreadServer
) -> None:
    _chat(server, "Another chat")
    page = world.open(f"/r/{_chat(server, 'one', 'two')}")
    for index, words in enumerate(("one changed", "two changed")):
        page.get_by_role("button", name="Edit and ask again").nth(0).click()
        _editor(page).nth(index).fill(words)
    page.get_by_role("link", name="Another chat", exact=True).click()
    expect(page.get_by_text("You asked: Another chat")).to_be_visible()
    page.go_back()
    expect(_editor(page)).to_have_count(2)
    for index, words in enumerate(("one changed", "two changed")):
        expect(_editor(page).nth(index)).to_have_value(words)


def test_an_edited_question_survives_what_others_do_to_its_chat(
    world: Watched, server: ThreadServer
) -> None:
    page = world.open()
    for words in ("one", "two"):
        send_message(page, words)
        expect(page.get_by_text(f"You asked: {words}")).to_be_visible()
    page.wait_for_url("**/c/chat_*")
    page.get_by_role("button", name="Edit and ask again").first.click()
    _editor(page).fill("one, changed")
    last, first = (one["id"] for one in server.get("/v1/responses").json["data"])
    server.respond("three", model="grok-4", previous_response_id=last)
    expect(page.get_by_text("You asked: three")).to_be_visible()
    assert server.request("DELETE", f"/v1/responses/{last}").status == 200
    expect(page.get_by_text("You asked: two")).to_have_count(0)
    expect(_editor(page)).to_have_value("one, changed")
    expect(_editor(page)).to_be_focused()
    # With its question, they are gone.
    assert server.request("DELETE", f"/v1/responses/{first}").status == 200
    expect(_editor(page)).to_have_count(0)
    expect(page.get_by_text("You asked: one")).to_have_count(0)
    assert "one, changed" not in _stored(page)


def test_an_edit_that_is_left_can_be_taken_up_again(world: Watched, server: ThreadServer) -> None:
    page = world.open(f"/r/{_chat(server, 'one')}")
    _begin_edit(page, "one, changed")
    page.keyboard.press("Escape")
    expect(_editor(page)).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(_editor(page)).to_have_value("one, changed")
    page.get_by_role("button", name="Cancel").click()
    page.reload()
    expect(page.get_by_text("You asked: one")).to_be_visible()
    expect(_editor(page)).to_have_count(0)
    assert "changed" not in _stored(page)


def test_a_result_that_was_refused_is_in_its_box(world: Watched, server: ThreadServer) -> None:
    world.allowed = ("400",)
    page = world.open(f"/r/{_chat(server, 'tool')}")
    page.get_by_role("button", name="Write its result").click()
    box = page.get_by_label("Result of get_weather")
    box.fill("Snow, and later")
    page.reload()
    expect(box).to_have_value("Snow, and later")
    box.press_sequentially(" sun")
    page.route("**/v1/responses", lambda route: route.fulfill(status=400, json=_REFUSAL), times=1)
    page.get_by_role("button", name="Send the result").click()
    expect(page.get_by_role("alert")).to_contain_text("Not with these words.")
    page.get_by_role("button", name="Write it again").click()
    expect(box).to_have_value("Snow, and later sun")
    expect(page.get_by_role("textbox", name="Message")).to_have_value("")
    page.reload()
    page.get_by_role("button", name="Send the result").click()
    expect(page.get_by_text("The tool gave: Snow, and later sun")).to_be_visible()
    _wait_until_forgotten(page, "Snow")


def test_a_remark_is_kept_where_its_decision_is_refused_and_is_the_same_in_the_inbox(
    browser: Browser,
) -> None:
    def reply(messages: list[dict[str, object]]) -> ScriptedReply:
        if messages[-1]["role"] == "tool":
            return say("Decided.")
        return calls(call("meteo__weather", {"city": "Lisbon"}))

    tools = [{"type": "mcp", "server_label": "meteo", "require_approval": "always"}]
    config = stdio_config("meteo", require_approval="always")
    with (
        serving(ScriptedModel(reply), mcp=[config]) as server,
        watched(browser, server.url) as watching,
    ):
        watching.allowed = ("400",)
        made = server.respond("Do we need an umbrella?", tools=tools).json["id"]
        page = watching.open(f"/r/{made}")
        remark = page.get_by_label("Remark", exact=True)
        remark.fill("Not today")
        page.reload()
        expect(remark).to_have_value("Not today")
        page.get_by_role("button", name="Approvals").click()
        inbox = page.get_by_role("dialog", name="Approvals")
        expect(inbox.get_by_label("Remark on weather")).to_have_value("Not today")
        page.keyboard.press("Escape")
        once = {"status": 400, "json": _REFUSAL}
        page.route("**/v1/responses", lambda route: route.fulfill(**once), times=1)
        page.get_by_role("button", name="Refuse").click()
        expect(page.get_by_role("alert")).to_contain_text("Not with these words.")
        page.reload()
        expect(remark).to_have_value("Not today")
        page.get_by_role("button", name="Refuse").click()
        expect(page.get_by_text("Refused: Not today")).to_be_visible()
        _wait_until_forgotten(page, "Not today")


def test_a_system_prompt_is_kept_until_it_is_used_and_until_it_was_sent(
    world: Watched, server: ThreadServer
) -> None:
    page = world.open()
    choice = page.get_by_role("button", name="Default model")
    prompt = page.get_by_role("textbox", name="System prompt")
    choice.click()
    prompt.fill("Be brief.")
    page.keyboard.press("Escape")
    page.reload()
    choice.click()
    expect(prompt).to_have_value("Be brief.")
    page.get_by_role("button", name="Discard it").click()
    expect(prompt).to_have_value("")
    prompt.fill("Be long.")
    page.get_by_role("button", name="Use", exact=True).click()
    expect(page.get_by_title("With a system prompt")).to_be_visible()
    page.reload()
    expect(page.get_by_title("With a system prompt")).to_be_visible()
    send_message(page, "one")
    expect(page.get_by_text("You asked: one")).to_be_visible()
    page.wait_for_url("**/c/chat_*")
    (made,) = server.get("/v1/responses").json["data"]
    assert server.get(f"/v1/responses/{made['id']}").json["instructions"] == "Be long."
    assert "Be long." not in _stored(page)


def test_a_name_that_is_typed_stays_where_something_else_is_done(
    world: Watched, server: ThreadServer
) -> None:
    _chat(server, "Old name")
    page = world.open()
    more = page.get_by_role("button", name="More about Old name")
    more.click()
    dialog = page.get_by_role("dialog", name="Old name")
    dialog.get_by_label("Name").fill("New name")
    dialog.get_by_role("button", name="Pin").click()
    expect(dialog).to_have_count(0)
    more.click()
    expect(dialog.get_by_label("Name")).to_have_value("New name")
    dialog.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("link", name="New name")).to_be_visible()
    assert "words." not in _stored(page)


def test_a_message_outlives_the_chat_that_others_erase(
    world: Watched, server: ThreadServer
) -> None:
    page = world.open(f"/r/{_chat(server, 'one')}")
    expect(page.get_by_text("You asked: one")).to_be_visible()
    chat = server.get("/v1/chats").json["data"][0]["id"]
    page.get_by_role("textbox", name="Message").fill("Half a mess")
    _begin_edit(page, "one, changed")
    assert server.request("DELETE", f"/v1/chats/{chat}").status == 200
    expect(page.get_by_text("There is nothing here.")).to_be_visible()
    page.get_by_role("link", name="New chat").last.click()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("Half a mess")
    assert "changed" not in _stored(page)


@pytest.mark.parametrize("act", ["reload", "new chat"])
def test_words_of_a_temporary_chat_are_stored_nowhere(world: Watched, act: str) -> None:
    page = world.open()
    page.get_by_role("button", name="Temporary").click()
    send_message(page, "secret")
    expect(page.get_by_text("You asked: secret")).to_be_visible()
    _begin_edit(page, "secret, changed")
    assert "secret" not in _stored(page)
    if act == "reload":
        page.reload()
    else:
        page.get_by_role("link", name="New chat").first.click()
    expect(page.get_by_text("You asked: secret")).to_have_count(0)
    expect(_editor(page)).to_have_count(0)
