"""Branches on the page: edited, asked again, looked through, linked to, drawn."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from antiphon.models.scripted import ScriptedModel, say
from support.browser import Watched, send_message, watched
from support.http_server import ThreadServer, serving
from support.page_model import PageModel

_PRESS = """(keys) => keys.forEach((key) => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true })))"""


def chain(server: ThreadServer, *questions: str, parent: str | None = None) -> list[str]:
    made = []
    for question in questions:
        parent = server.respond(question, previous_response_id=parent).json["id"]
        made.append(parent)
    return made


def questions(page: Page) -> Locator:
    return page.locator(".bubble")


def test_an_edited_question_is_another_version_and_the_first_stays(
    world: Watched, server: ThreadServer
) -> None:
    first, second = chain(server, "one", "two")
    page = world.open(f"/r/{second}")
    page.locator(".bubble", has_text="two").hover()
    page.get_by_role("button", name="Edit and ask again").last.click()
    page.get_by_label("Edit the question").fill("two, better")
    page.get_by_role("button", name="Send", exact=True).first.click()
    expect(page.get_by_text("You asked: two, better")).to_be_visible()
    expect(page.get_by_text("2/2")).to_be_visible()
    expect(questions(page)).to_have_text(["one", "two, better"])
    page.get_by_role("button", name="Previous version").click()
    expect(page.get_by_text("1/2")).to_be_visible()
    expect(questions(page)).to_have_text(["one", "two"])
    assert server.get(f"/v1/responses/{first}/children").json["data"][1]["opening"]


def test_the_first_question_can_be_edited_too(world: Watched, server: ThreadServer) -> None:
    (first,) = chain(server, "begin")
    page = world.open(f"/r/{first}")
    page.locator(".bubble", has_text="begin").hover()
    page.get_by_role("button", name="Edit and ask again").click()
    page.get_by_label("Edit the question").fill("begin again")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("2/2")).to_be_visible()
    assert len(server.get("/v1/chats").json["data"]) == 1


def test_any_answer_is_asked_for_again(world: Watched, server: ThreadServer) -> None:
    first, second = chain(server, "one", "two")
    page = world.open(f"/r/{second}")
    page.get_by_role("button", name="Ask again", exact=True).first.click()
    expect(page.get_by_text("2/2")).to_be_visible()
    expect(questions(page)).to_have_text(["one"])
    page.get_by_role("button", name="Previous version").click()
    expect(page.locator(f'[data-turn="{second}"]')).to_be_visible()
    expect(questions(page)).to_have_text(["one", "two"])
    assert server.get(f"/v1/responses/{first}").json["previous_response_id"] is None


def test_another_version_is_seen_before_the_server_has_it(
    world: Watched, server: ThreadServer
) -> None:
    (only,) = chain(server, "one")
    page = world.open(f"/r/{only}")
    expect(page.get_by_text("You asked: one")).to_be_visible()
    world.allowed = ("ERR_INTERNET_DISCONNECTED",)
    world.context.set_offline(True)
    page.keyboard.press("r")
    expect(page.get_by_label("Version 2 of 2")).to_be_visible()
    expect(page.get_by_role("button", name="Previous version")).to_be_disabled()
    assert server.stored_count() == 1
    world.context.set_offline(False)
    page.get_by_role("button", name="Previous version").click()
    expect(page.get_by_label("Version 1 of 2")).to_be_visible()
    assert server.stored_count() == 2


def test_another_result_of_a_call_is_a_branch(world: Watched, server: ThreadServer) -> None:
    made = server.respond("tool call").json
    call_id = next(one["call_id"] for one in made["output"] if one["type"] == "function_call")
    result = {"type": "function_call_output", "call_id": call_id, "output": "sunny"}
    last = server.post("/v1/responses", input=[result], previous_response_id=made["id"]).json["id"]
    page = world.open(f"/r/{last}")
    expect(page.get_by_text("The tool gave: sunny")).to_be_visible()
    page.get_by_role("button", name="Branch from here").first.click()
    expect(page.get_by_text("The tool gave: sunny")).to_have_count(0)
    page.get_by_role("button", name="Write its result").click()
    page.get_by_label("Result of").fill("rainy")
    page.get_by_role("button", name="Send the result").click()
    expect(page.get_by_text("The tool gave: rainy")).to_be_visible()
    assert len(server.get(f"/v1/responses/{made['id']}/children").json["data"]) == 2


def test_half_an_answer_is_gone_on_from_in_several_ways(
    world: Watched, server: ThreadServer
) -> None:
    page = world.open()
    send_message(page, "hang on")
    expect(page.get_by_text("Some words")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Stopped.")).to_be_visible()
    half = page.locator("[data-turn]").get_attribute("data-turn")
    send_message(page, "one way")
    expect(page.get_by_text("You asked: one way")).to_be_visible()
    page.get_by_role("button", name="Branch from here").first.click()
    expect(page.get_by_text("You asked: one way")).to_have_count(0)
    send_message(page, "another way")
    expect(page.get_by_text("You asked: another way")).to_be_visible()
    ways = server.get(f"/v1/responses/{half}/children").json["data"]
    assert [one["opening"] for one in ways] == ["one way", "another way"]
    for one in ways:
        context = server.get(f"/v1/responses/{one['response_id']}/context").json["messages"]
        assert "Some words" in str(context)


def test_keys_go_through_the_versions(world: Watched, server: ThreadServer) -> None:
    (root,) = chain(server, "root")
    for name in ("a", "b", "c"):
        chain(server, name, f"after {name}", parent=root)
    page = world.open(f"/r/{root}")
    expect(page.get_by_text("3/3")).to_be_visible()
    expect(questions(page)).to_have_text(["root", "c", "after c"])
    page.locator("[data-turn]").first.focus()
    page.keyboard.press("[")
    expect(page.get_by_text("2/3")).to_be_visible()
    expect(questions(page)).to_have_text(["root", "b", "after b"])
    page.keyboard.press("[")
    expect(page.get_by_text("1/3")).to_be_visible()
    page.keyboard.press("]")
    expect(page.get_by_text("2/3")).to_be_visible()


@pytest.mark.parametrize("pressed", ["keys", "buttons"])
def test_no_step_through_the_versions_is_lost(
    world: Watched, server: ThreadServer, pressed: str
) -> None:
    (root,) = chain(server, "root")
    made = [chain(server, f"way {number}", "below", parent=root)[0] for number in range(5)]
    page = world.open(f"/r/{made[4]}")
    expect(page.locator(f'[data-turn="{made[4]}"]')).to_be_focused()
    if pressed == "keys":
        # Before an answer of the server can be there. No step but the last comes to the second.
        page.evaluate(_PRESS, ["[", "[", "]", "[", "["])
        expect(page.get_by_text("2/5")).to_be_visible()
        expect(page.locator(f'[data-turn="{made[1]}"]')).to_be_focused()
    else:
        button = page.get_by_role("button", name="Previous version")
        button.evaluate("(one) => { one.focus(); one.click(); one.click() }")
        expect(page.get_by_text("3/5")).to_be_visible()
        # What had the focus has it where it was: Enter goes on.
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_text("2/5")).to_be_visible()
    expect(questions(page)).to_have_text(["root", "way 1", "below"])


def test_versions_of_very_many_are_gone_through(world: Watched, server: ThreadServer) -> None:
    (root,) = chain(server, "root")
    made = [chain(server, f"way {number}", parent=root)[0] for number in range(30)]
    below = chain(server, "below 24", parent=made[24])[0]
    page = world.open(f"/r/{made[24]}")
    expect(page.locator(f'[data-turn="{below}"]')).to_be_visible()
    expect(page.get_by_text("25/30")).to_be_visible()
    page.keyboard.press("]")
    expect(page.get_by_text("26/30")).to_be_visible()
    expect(questions(page)).to_have_text(["root", "way 25"])
    page.keyboard.press("[")
    expect(page.get_by_text("25/30")).to_be_visible()
    expect(questions(page)).to_have_text(["root", "way 24", "below 24"])


def test_a_turn_has_an_address_that_opens_its_branch(world: Watched, server: ThreadServer) -> None:
    (root,) = chain(server, "root")
    old = chain(server, "old way", "old end", parent=root)
    chain(server, "new way", "new end", parent=root)
    page = world.open(f"/r/{old[0]}")
    expect(page.get_by_text("old end", exact=True)).to_be_visible()
    expect(questions(page)).to_have_text(["root", "old way", "old end"])
    expect(page.locator(f'[data-turn="{old[0]}"]')).to_be_focused()


def test_what_is_sent_after_a_branch_goes_on_from_that_turn(
    world: Watched, server: ThreadServer
) -> None:
    made = chain(server, "one", "two", "three")
    page = world.open(f"/r/{made[0]}")
    page.locator(".bubble", has_text="one").hover()
    page.get_by_role("button", name="Branch from here").first.click()
    expect(questions(page)).to_have_text(["one"])
    page.get_by_role("textbox", name="Message").fill("another two")
    page.keyboard.press("Enter")
    expect(page.get_by_text("You asked: another two")).to_be_visible()
    expect(questions(page)).to_have_text(["one", "another two"])
    assert len(server.get(f"/v1/responses/{made[0]}/children").json["data"]) == 2


def test_the_map_shows_every_branch_and_opens_it(world: Watched, server: ThreadServer) -> None:
    (root,) = chain(server, "root")
    for name in ("a", "b", "c"):
        chain(server, f"way {name}", parent=root)
    page = world.open(f"/r/{root}")
    page.get_by_role("button", name="3 branches").click()
    branches = page.get_by_role("list", name="Branches").get_by_role("button")
    expect(branches).to_have_count(3)
    # Each by the first words that the others do not have, the one that they leave too.
    for name in ("a", "b", "c"):
        expect(branches.filter(has_text=f"way {name}")).to_have_count(1)
    branches.filter(has_text="way b").click()
    expect(page.get_by_text("You asked: way b")).to_be_visible()


def test_branches_are_named_by_the_words_in_which_they_differ(
    world: Watched, server: ThreadServer
) -> None:
    (root,) = chain(server, "root")
    for end in ("of the sea", "of the hills", "for Ada"):
        chain(server, f"Please write a poem {end}", parent=root)
    page = world.open(f"/r/{root}")
    page.get_by_role("button", name="3 branches").click()
    names = page.get_by_role("list", name="Branches").locator(".option-title")
    expect(names).to_have_text(["… of the sea", "… of the hills", "… for Ada"])


def test_branches_of_one_question_are_named_by_their_answers(browser: Browser) -> None:
    answers = iter(["root", *(f"It is a matter of {one}" for one in ("taste", "time", "luck"))])
    with (
        serving(ScriptedModel(lambda _: say(next(answers)))) as server,
        watched(browser, server.url) as watching,
    ):
        (root,) = chain(server, "root")
        for _ in range(3):
            chain(server, "What is it?", parent=root)
        page = watching.open(f"/r/{root}")
        page.get_by_role("button", name="3 branches").click()
        branches = page.get_by_role("list", name="Branches")
        expect(branches.locator(".option-title")).to_have_text(["… taste", "… time", "… luck"])
        expect(branches.locator(".excerpt").first).to_contain_text("What is it?")


#: Notes how many branches the map has each time that it changes.
_COUNT_BRANCHES = """() => {
  window.counts = [];
  new MutationObserver(() => counts.push(document.querySelectorAll('.map button').length))
    .observe(document.body, { childList: true, subtree: true });
}"""


def test_the_map_draws_the_branches_around_the_one_in_view_first(
    world: Watched, server: ThreadServer
) -> None:
    (root,) = chain(server, "root")
    made = [chain(server, f"way {number}", parent=root)[0] for number in range(130)]
    page = world.open(f"/r/{made[100]}")
    expect(page.get_by_text("You asked: way 100")).to_be_visible()
    page.evaluate(_COUNT_BRANCHES)
    page.keyboard.press("m")
    branches = page.get_by_role("list", name="Branches").get_by_role("button")
    expect(branches).to_have_count(len(made))
    expect(branches.filter(has_text="way 100")).to_be_focused()
    expect(branches.filter(has_text="way 100")).to_be_in_viewport()
    assert 0 < next(filter(None, page.evaluate("counts"))) < len(made)
    names = branches.locator(".option-title").all_text_contents()
    assert names == [f"way {number}" for number in range(len(made))]
    # The room that is kept for a row is what it takes.
    heights = page.evaluate(
        "[...document.querySelectorAll('.map li')].map((one) => one.getBoundingClientRect().height)"
    )
    assert set(heights) == {52}


@pytest.mark.slow
def test_the_map_shows_a_thousand_branches_and_keeps_the_one_in_view_in_focus(
    world: Watched, server: ThreadServer
) -> None:
    (root,) = chain(server, "root")
    made = [chain(server, f"way {number}", parent=root)[0] for number in range(1000)]
    page = world.open(f"/r/{made[700]}")
    expect(page.get_by_text("You asked: way 700")).to_be_visible()
    page.get_by_role("button", name="1000 branches").click()
    branches = page.get_by_role("list", name="Branches").get_by_role("button")
    expect(branches).to_have_count(1000)
    expect(page.get_by_role("status").filter(has_text="1000 branches")).to_be_visible()
    expect(branches.filter(has_text="way 700")).to_have_attribute("aria-current", "true")
    expect(branches.filter(has_text="way 700")).to_be_focused()
    branches.filter(has_text="way 999").click()
    expect(page.get_by_text("You asked: way 999")).to_be_visible()


def test_answers_that_were_compared_go_on_when_the_page_is_closed(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    page = world.open()
    page.get_by_role("textbox", name="Message").fill("hold on")
    page.get_by_title("Ask several models, side by side").click()
    for name in ("grok-4", "qwen3"):
        page.get_by_label(f"One more of {name}").click()
    page.get_by_role("button", name="Ask 2").click()
    expect(page.get_by_text("First half,")).to_have_count(2)
    page.close()
    server.set(model.resume)
    page = world.open()
    page.get_by_role("link", name="hold on").click()
    expect(page.get_by_text("2/2")).to_be_visible()
    page.get_by_role("button", name="More", exact=True).last.click()
    page.get_by_role("button", name="Versions side by side").click()
    columns = page.get_by_role("dialog", name="Side by side")
    expect(columns.get_by_text("First half, second half.")).to_have_count(2)
    columns.get_by_role("button", name="Differences from the first").click()
    columns.get_by_role("button", name="Go on with this").first.click()
    expect(page.get_by_text("1/2")).to_be_visible()


def test_another_address_is_nothing(world: Watched) -> None:
    world.allowed = ("404",)
    page = world.open("/c/chat_" + "0" * 32)
    expect(page.get_by_text("There is nothing here.")).to_be_visible()


def test_what_is_pinned_is_listed_first_and_no_chat_is_missing(
    world: Watched, server: ThreadServer
) -> None:
    names = [f"chat {number:02}" for number in range(90)]
    chats = [server.get(f"/v1/chats/{chain(server, name)[0]}").json["id"] for name in names]
    server.post(f"/v1/chats/{chats[0]}", pinned=True)
    page = world.open()
    pinned = page.get_by_role("region", name="Pinned").get_by_role("link")
    expect(pinned).to_have_text(["chat 00"])
    # One that is not listed yet is changed: the list goes on where it ended.
    server.post(f"/v1/chats/{chats[5]}", title="chat 05 and more")
    expect(page.get_by_role("link", name="chat 05 and more")).to_be_attached()
    links = page.locator(".chat-row a")
    while links.count() < len(names):
        links.last.scroll_into_view_if_needed()
    assert sorted(one[:7] for one in links.all_inner_texts()) == names


def test_names_pins_and_erasure_with_undo(world: Watched, server: ThreadServer) -> None:
    (made,) = chain(server, "To be named")
    page = world.open(f"/r/{made}")
    page.get_by_role("button", name="More about this chat").click()
    page.get_by_role("textbox", name="Name").fill("A good name")
    page.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("link", name="A good name")).to_be_visible()
    page.get_by_role("button", name="More about this chat").click()
    page.get_by_role("button", name="Pin").click()
    expect(page.get_by_role("heading", name="Pinned")).to_be_visible()
    page.get_by_role("button", name="More about this chat").click()
    page.get_by_role("button", name="Erase").click()
    expect(page.get_by_role("link", name="A good name")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("link", name="A good name")).to_be_visible()
    assert server.get(f"/v1/responses/{made}").status == 200
    page.get_by_role("button", name="More about A good name").click()
    page.get_by_role("button", name="Erase").click()
    # What waits is erased when the page is left.
    page.close()
    page = world.open()
    expect(page.get_by_role("link", name="A good name")).to_have_count(0)
    assert server.get(f"/v1/responses/{made}").status == 404
