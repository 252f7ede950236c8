"""Approvals on the page: in a chat and in the inbox, and one decision however many decide."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from antiphon.models.scripted import ScriptedModel, ScriptedReply, call, calls, say
from support.browser import Held, Watched, click_often, watched
from support.http_server import ThreadServer, serving
from support.mcp_toolsets import stdio_config


def _weather(messages: list[dict[str, object]]) -> ScriptedReply:
    if messages[-1]["role"] == "tool":
        return say("Decided.")
    if str(messages[-1]["content"]).startswith("Chat"):
        return say("Fine.")
    return calls(call("meteo__weather", {"city": "Lisbon"}))


def _without_feed(watching: Watched) -> None:
    """Nobody learns what others decide but by deciding too."""
    watching.context.route("**/v1/feed", lambda route: route.abort())
    watching.allowed = ("ERR_FAILED", "409")


def _waiting(server: ThreadServer) -> str:
    tools = [{"type": "mcp", "server_label": "meteo", "require_approval": "always"}]
    made: str = server.respond("Do we need an umbrella?", tools=tools).json["id"]
    return made


def test_an_approval_is_decided_in_the_chat(browser: Browser) -> None:
    config = stdio_config("meteo", require_approval="always")
    with (
        serving(ScriptedModel(_weather), mcp=[config]) as server,
        watched(browser, server.url) as watching,
    ):
        waiting = _waiting(server)
        page = watching.open(f"/r/{waiting}")
        click_often(page.get_by_role("button", name="Approve", exact=True))
        expect(page.get_by_text("Decided.")).to_be_visible()
        expect(page.get_by_text("Approved")).to_be_visible()
        expect(page.get_by_text("needed an approval")).to_be_visible()
        expect(page.get_by_role("button", name="Approve", exact=True)).to_have_count(0)
        assert len(server.get(f"/v1/responses/{waiting}/children").json["data"]) == 1


def test_approvals_of_all_chats_are_in_the_inbox(browser: Browser) -> None:
    config = stdio_config("meteo", require_approval="always")
    with (
        serving(ScriptedModel(_weather), mcp=[config]) as server,
        watched(browser, server.url) as watching,
    ):
        first, second = _waiting(server), _waiting(server)
        page = watching.open()
        page.get_by_role("button", name="Approvals").click()
        inbox = page.get_by_role("dialog", name="Approvals")
        expect(inbox.get_by_role("listitem")).to_have_count(2)
        inbox.get_by_role("textbox").first.fill("Not today")
        inbox.get_by_role("button", name="Refuse").first.click()
        expect(inbox.get_by_role("listitem")).to_have_count(1)
        inbox.get_by_role("button", name="Approve", exact=True).click()
        expect(inbox.get_by_text("Nothing waits.")).to_be_visible()
        for one in (first, second):
            assert len(server.get(f"/v1/responses/{one}/children").json["data"]) == 1


def test_two_who_decide_at_once_make_one_decision(browser: Browser) -> None:
    config = stdio_config("meteo", require_approval="always")
    with (
        serving(ScriptedModel(_weather), mcp=[config]) as server,
        watched(browser, server.url) as watching,
    ):
        _without_feed(watching)
        tabs = [watching.open(), watching.open()]
        for buttons in ((0, 0), (0, 1)):
            waiting = _waiting(server)
            for tab in tabs:
                tab.get_by_role("button", name="Approvals").click()
                expect(tab.get_by_role("button", name="Approve", exact=True)).to_be_enabled()
            for tab, button in zip(tabs, buttons, strict=True):
                tab.evaluate(
                    f"document.querySelectorAll('dialog .decide button')[{button}].click()"
                )
            for tab in tabs:
                expect(tab.get_by_text("Nothing waits.")).to_be_visible()
                tab.keyboard.press("Escape")
            assert len(server.get(f"/v1/responses/{waiting}/children").json["data"]) == 1


def test_a_call_that_two_decide_in_its_chat_is_decided_once(browser: Browser) -> None:
    config = stdio_config("meteo", require_approval="always")
    with (
        serving(ScriptedModel(_weather), mcp=[config]) as server,
        watched(browser, server.url) as watching,
    ):
        _without_feed(watching)
        waiting = _waiting(server)
        chats = [watching.open(f"/r/{waiting}") for _ in range(2)]
        for tab in chats:
            expect(tab.get_by_role("button", name="Approve", exact=True)).to_be_enabled()
        for tab, name in zip(chats, ("Approve", "Refuse"), strict=True):
            tab.get_by_role("button", name=name, exact=True).click()
        for tab in chats:
            expect(tab.get_by_text("Decided.")).to_be_visible()
            expect(tab.locator("[data-turn]")).to_have_count(2)
        assert len(server.get(f"/v1/responses/{waiting}/children").json["data"]) == 1


def test_calls_that_wait_in_chats_that_are_not_listed_yet_are_counted(browser: Browser) -> None:
    config = stdio_config("meteo", require_approval="always")
    with (
        serving(ScriptedModel(_weather), mcp=[config]) as server,
        watched(browser, server.url) as watching,
    ):
        _waiting(server)
        for number in range(41):
            server.respond(f"Chat {number}")
        page = watching.open()
        expect(page.get_by_role("button", name="Approvals")).to_have_text("Approvals1")


def test_a_call_that_is_decided_stays_away_and_a_failure_takes_no_call_from_view(
    browser: Browser,
) -> None:
    config = stdio_config("meteo", require_approval="always")
    with (
        serving(ScriptedModel(_weather), mcp=[config]) as server,
        watched(browser, server.url) as watching,
    ):
        watching.allowed = ("500",)
        _waiting(server)
        page = watching.open()
        page.get_by_role("button", name="Approvals").click()
        inbox = page.get_by_role("dialog", name="Approvals")
        remark = inbox.get_by_label("Remark on weather")
        remark.fill("Not today")
        broken = {"error": {"message": "It broke here.", "code": "server_error"}}
        approvals = "**/v1/approvals?*"
        page.route(approvals, lambda route: route.fulfill(status=500, json=broken))
        server.respond("Chat one")
        expect(inbox.get_by_role("alert")).to_contain_text("It broke here.")
        expect(remark).to_have_value("Not today")
        page.unroute(approvals)
        held = Held(page, approvals, times=1)
        held.wait(lambda: server.respond("Chat two"))
        inbox.get_by_role("button", name="Refuse").click()
        expect(inbox.get_by_text("Nothing waits.")).to_be_visible()
        held.release()
        page.evaluate("fetch('/v1/models').then((answer) => answer.text())")
        expect(inbox.get_by_text("Nothing waits.")).to_be_visible()
        expect(inbox.get_by_role("alert")).to_have_count(0)
