"""Chats on the page: sent once, streamed, stopped, resumed, and the same in every tab."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from playwright.sync_api import Browser, Page, Route, expect

from antiphon.errors import ModelError
from antiphon.models.scripted import ScriptedModel, fail
from support.browser import (
    Held,
    Watched,
    click_often,
    send_message,
    until,
    wait_until_handed_over,
    watched,
)
from support.http_server import ThreadServer, serving
from support.page_model import PageModel
from support.side_stores import all_bytes

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
    page.wait_for_url("**/c/chat_*")
    send_message(page, "And at night?")
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
    expect(page.locator("[data-turn]")).to_have_count(2)
    expect(page).to_have_title("Why is the sky blue? · antiphon")
    assert len(stored(server)) == 2


def test_a_hundred_clicks_begin_one_turn(world: Watched, server: ThreadServer) -> None:
    page = world.open()
    page.get_by_role("textbox", name="Message").fill("Once")
    click_often(page.get_by_role("button", name="Send", exact=True))
    expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
    assert len(stored(server)) == 1
    click_often(page.get_by_role("button", name="Ask again", exact=True))
    expect(page.get_by_text("2/2")).to_be_visible()
    expect(page.get_by_role("button", name="Ask again", exact=True)).to_be_enabled()
    assert len(stored(server)) == 2
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Edit and ask again").dispatch_event("click")
    page.get_by_label("Edit the question").fill("Once more")
    click_often(page.locator(".editor").get_by_role("button", name="Send"))
    expect(page.get_by_text("3/3")).to_be_visible()
    expect(page.get_by_text("You asked: Once more")).to_be_visible()
    assert len(stored(server)) == 3
    send_message(page, "fail")
    click_often(page.get_by_role("button", name="Go on from here"))
    expect(page.get_by_text("You asked: Go on from")).to_be_visible()
    assert len(stored(server)) == 5
    page.get_by_role("textbox", name="Message").fill("Side by side")
    page.get_by_title("Ask several models, side by side").click()
    page.get_by_label("One more of grok-4").click()
    click_often(page.get_by_role("button", name="Ask 1"))
    expect(page.get_by_role("button", name="Go on with this")).to_be_visible()
    assert len(stored(server)) == 6


def test_lost_answers_and_a_proxy_that_sends_everything_twice_make_one_turn(
    world: Watched, server: ThreadServer
) -> None:
    world.allowed = ("ERR_FAILED",)
    page = world.open()
    keys: list[str] = []

    def send_twice(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        answers = [route.fetch() for _ in range(2)]
        if len(keys) < 4:
            route.abort()
        else:
            route.fulfill(response=answers[-1])

    page.route("**/v1/responses", send_twice)
    page.get_by_role("textbox", name="Message").fill("Once")
    click_often(page.get_by_role("button", name="Send", exact=True))
    expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
    assert (len(keys), len({*keys}), len(stored(server))) == (4, 1, 1)


def test_stopping_keeps_what_came(world: Watched, server: ThreadServer) -> None:
    page = world.open()
    send_message(page, "hang on")
    expect(page.get_by_text("Some words")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Stopped.")).to_be_visible()
    expect(page.get_by_text("Some words")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)


def test_a_failure_shows_what_arrived_and_can_be_retried(world: Watched) -> None:
    page = world.open()
    send_message(page, "fail now")
    expect(page.get_by_text("This turn failed. The upstream broke.")).to_be_visible()
    expect(page.get_by_text("Half an answer")).to_be_visible()
    page.get_by_role("button", name="Ask again", exact=True).last.click()
    expect(page.get_by_text("2/2")).to_be_visible()


def test_nothing_that_never_began_is_gone_on_from(browser: Browser) -> None:
    model = ScriptedModel(lambda _: fail(ModelError("Nobody is there.")))
    with serving(model) as server, watched(browser, server.url) as watching:
        page = watching.open()
        send_message(page, "one")
        failure = page.get_by_role("alert").filter(has_text="Nobody is there.")
        expect(failure.get_by_role("button")).to_have_text(["Ask again"])


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


def test_what_is_selected_stays_selected_while_an_answer_grows_and_ends(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    page = world.open()
    send_message(page, "blocks")
    expect(page.get_by_text("The last")).to_be_visible()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('.answer .prose > p'))")
    server.set(model.resume)
    expect(page.get_by_text("After it.")).to_be_visible()
    expect(page.get_by_role("button", name="Ask again", exact=True)).to_be_enabled()
    expect(page.locator(".answer .prose > p")).to_have_count(5)
    assert page.evaluate("getSelection().toString()") == "First block."


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


def test_a_chat_that_is_opened_offline_says_so_and_is_shown_when_the_server_is_back(
    world: Watched, server: ThreadServer
) -> None:
    world.allowed = ("ERR_INTERNET_DISCONNECTED",)
    server.respond("Read me", model="grok-4")
    page = world.open()
    expect(page.get_by_role("link", name="Read me")).to_be_visible()
    world.context.set_offline(True)
    page.get_by_role("link", name="Read me").click()
    expect(page.get_by_text("Waiting for the server…")).to_be_visible()
    world.context.set_offline(False)
    expect(page.get_by_text("You asked: Read me")).to_be_visible()
    expect(page.get_by_text("Waiting for the server…")).to_have_count(0)


def test_what_the_next_page_cannot_send_is_given_back_until_it_is_taken(
    world: Watched, server: ThreadServer
) -> None:
    world.allowed = ("ERR_INTERNET_DISCONNECTED", "400")
    head = server.respond("To be erased", model="grok-4").json["id"]
    page = world.open(f"/r/{head}")
    expect(page.get_by_text("You asked: To be erased")).to_be_visible()
    world.context.set_offline(True)
    send_message(page, "left behind")
    expect(page.get_by_text("Waiting for the server…")).to_be_visible()
    # Erased before the page is closed: while it closes, it is connected and tries once more.
    assert server.request("DELETE", f"/v1/responses/{head}").status == 200
    page.close()
    world.context.set_offline(False)
    # Whoever does not take it is told again.
    for _ in range(2):
        page.close()
        page = world.open()
        expect(page.get_by_text("“left behind” could not be sent")).to_be_visible()
    page.get_by_role("button", name="Write it again").click()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("left behind")
    page.get_by_role("textbox", name="Message").press("Enter")
    expect(page.get_by_text("You asked: left behind")).to_be_visible()
    page.reload()
    expect(page.get_by_text("You asked: left behind")).to_be_visible()
    expect(page.get_by_text("could not be sent")).to_have_count(0)
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


#: All that a page has put into the browser's storage.
_KEPT = """async () => {
  const kept = [{ ...localStorage, ...sessionStorage }];
  for (const { name } of await indexedDB.databases()) {
    const opened = await new Promise((done) => {
      indexedDB.open(name).onsuccess = ({ target }) => done(target.result);
    });
    for (const store of opened.objectStoreNames)
      kept.push(await new Promise((done) => {
        const asked = opened.transaction(store).objectStore(store).getAll();
        asked.onsuccess = () => done(asked.result);
      }));
    opened.close();
  }
  return JSON.stringify(kept);
}"""


def test_a_temporary_chat_writes_nothing(browser: Browser, tmp_path: Path) -> None:
    with (
        serving(PageModel().models("grok-4"), tmp_path / "a.db") as server,
        watched(browser, server.url) as watching,
    ):
        page = watching.open()
        before = all_bytes(tmp_path)
        page.get_by_role("textbox", name="Message").fill("secret one")
        assert "secret" in page.evaluate(_KEPT)
        page.get_by_role("button", name="Temporary").click()
        # To ask several would store their answers.
        expect(page.get_by_title("Ask several models, side by side")).to_have_count(0)
        page.get_by_role("textbox", name="Message").press("Enter")
        expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
        page.get_by_role("button", name="Ask again", exact=True).click()
        expect(page.locator(".turn-footer .actions")).to_be_visible()
        expect(page.get_by_text("Messages so far: 1.")).to_be_visible()
        # What is stored nowhere has no link, no versions and no end to be kept from.
        for name in ("More", "What the model saw", "Next version", "Temporary"):
            expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)
        send_message(page, "secret two")
        expect(page.get_by_text("Messages so far: 3.")).to_be_visible()
        assert stored(server) == []
        assert all_bytes(tmp_path) == before
        assert "secret" not in page.evaluate(_KEPT)


def test_what_is_erased_leaves_other_tabs_the_file_and_the_browser(
    browser: Browser, tmp_path: Path
) -> None:
    with (
        serving(PageModel().models("grok-4"), tmp_path / "a.db") as server,
        watched(browser, server.url) as watching,
    ):
        watching.allowed = ("404",)
        page = watching.open()
        for words in ("gamboge", "heliotrope"):
            send_message(page, words)
            expect(page.get_by_text(f"You asked: {words}")).to_be_visible()
        page.get_by_role("textbox", name="Message").fill("A draft")
        other = watching.open(page.url.removeprefix(watching.origin))
        expect(other.get_by_text("You asked: heliotrope")).to_be_visible()
        assert b"heliotrope" in all_bytes(tmp_path)
        page.get_by_role("button", name="More", exact=True).last.click()
        page.get_by_role("button", name="Erase…").click()
        page.get_by_role("button", name="Erase this turn").click()
        for tab in (page, other):
            expect(tab.get_by_text("heliotrope")).to_have_count(0)
            expect(tab.get_by_text("You asked: gamboge")).to_be_visible()
        assert b"heliotrope" not in all_bytes(tmp_path)
        assert b"gamboge" in all_bytes(tmp_path)
        kept = page.evaluate(_KEPT)
        assert "heliotrope" not in kept
        assert "A draft" in kept
        page.get_by_role("button", name="More about this chat").click()
        page.get_by_role("button", name="Erase").click()
        # What waits is erased when the page is left.
        page.close()
        expect(other.get_by_text("There is nothing here.")).to_be_visible()
        assert b"gamboge" not in all_bytes(tmp_path)


def test_messages_wait_in_a_queue_while_an_answer_runs_and_survive_a_reload(
    world: Watched, server: ThreadServer, model: PageModel
) -> None:
    page = world.open()
    send_message(page, "hold this")
    expect(page.get_by_text("First half,")).to_be_visible()
    send_message(page, "then that")
    expect(page.get_by_role("list", name="Messages to be sent next")).to_contain_text("then that")
    wait_until_handed_over(page)
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


def test_a_picture_that_is_not_sent_stays_with_its_chat(
    world: Watched, server: ThreadServer, tmp_path: Path
) -> None:
    (tmp_path / "dot.png").write_bytes(PNG)
    server.respond("First", model="grok-4")
    page = world.open()
    page.get_by_role("link", name="First").click()
    expect(page.get_by_text("You asked: First")).to_be_visible()
    page.get_by_label("Pictures", exact=True).set_input_files(tmp_path / "dot.png")
    expect(page.get_by_alt_text("Picture 1")).to_be_visible()
    page.get_by_role("link", name="New chat").first.click()
    expect(page.get_by_role("heading", name="What is on your mind?")).to_be_visible()
    expect(page.get_by_alt_text("Picture 1")).to_have_count(0)
    page.get_by_role("link", name="First").click()
    expect(page.get_by_alt_text("Picture 1")).to_be_visible()


def test_a_queued_picture_that_is_edited_is_not_written_into_another_chat(
    world: Watched, server: ThreadServer, model: PageModel, tmp_path: Path
) -> None:
    (tmp_path / "dot.png").write_bytes(PNG)
    page = world.open()
    send_message(page, "hold this")
    expect(page.get_by_text("First half,")).to_be_visible()
    page.get_by_label("Pictures", exact=True).set_input_files(tmp_path / "dot.png")
    send_message(page, "What is this?")
    wait_until_handed_over(page)
    queued = page.get_by_role("list", name="Messages to be sent next").get_by_role("listitem")
    expect(queued).to_have_text(["What is this?"])
    pictures = Held(page, "**/input_items*")
    pictures.wait(queued.get_by_role("button", name="What is this?").click)
    page.get_by_role("link", name="New chat").first.click()
    expect(page.get_by_role("heading", name="What is on your mind?")).to_be_visible()
    pictures.release()
    server.set(model.resume)
    page.get_by_role("link", name="hold this").click()
    expect(page.get_by_text("You asked: What is this?")).to_be_visible()
    page.get_by_role("link", name="New chat").first.click()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("")
    expect(page.get_by_alt_text("Picture 1")).to_have_count(0)
