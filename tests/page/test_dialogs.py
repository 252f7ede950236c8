"""Dialogs of the page: keys, imports, shares, search, models, comparison, programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ViewportSize, expect

from antiphon.errors import ContextLengthExceededError
from antiphon.models.scripted import ScriptedModel, ScriptedReply, fail, say
from support.browser import Watched, send_message, watched
from support.chat_exports import chatgpt_chat, zipped
from support.http_server import ThreadServer, serving
from support.keyed_server import serving_with_keys
from support.misbehaving_upstream import usage
from support.scenario import DONE, UpstreamThread, data, end, stream_of, text
from support.serve_process import running_server


def test_with_keys_the_page_requests_one_and_sends_it_in_a_header_only(browser: Browser) -> None:
    with serving_with_keys() as keyed, watched(browser, keyed.server.url) as watching:
        watching.allowed = ("401",)
        client, other = keyed.client(), keyed.client("rival")
        theirs = other.respond("Not for you").json["id"]
        assert client.text is not None
        page = watching.open()
        expect(page.get_by_role("dialog", name="Key")).to_be_visible()
        # Nothing takes its place: whoever asked for the key would wait for ever.
        page.keyboard.press("Control+k")
        page.get_by_label("API key").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        page.get_by_label("API key").fill(client.text)
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_have_count(0)
        send_message(page, "With a key")
        expect(page.get_by_text("You said: With a key")).to_be_visible()
        expect(page.get_by_text("Not for you")).to_have_count(0)
        kept = page.evaluate(
            "JSON.stringify({ ...localStorage }) + document.cookie + location.href"
        )
        assert client.text not in kept
        assert client.text not in page.content()
        assert all(client.text not in one.url for one in watching.requests)
        watching.allowed = ("401", "404")
        page.goto(f"{watching.origin}/r/{theirs}")
        expect(page.get_by_text("There is nothing here.")).to_be_visible()


@pytest.mark.slow
def test_a_price_in_the_settings_is_a_cost_over_http_and_on_the_page(
    browser: Browser, tmp_path: Path
) -> None:
    with UpstreamThread() as upstream:
        upstream.upstream.default_answer = lambda _: stream_of(
            text("Much."), end(), data(usage(5, 2)), DONE
        )
        model = (
            f'[models.dear]\nbase_url = "{upstream.upstream.base_url}"\n'
            "price = { input = 1000000.0, output = 500000.0 }\n"
        )
        flags = ("--grpc-port", "0", "--model", "dear")
        with (
            running_server(tmp_path, *flags, more=model) as (_, host, port),
            watched(browser, f"http://{host}:{port}") as watching,
        ):
            _check_cost(watching)


def _check_cost(watching: Watched) -> None:
    page = watching.open()
    send_message(page, "What does it cost?")
    cost = page.locator(".facts [title='Cost']")
    expect(cost).to_be_visible()
    chat = json.loads(page.request.get(f"{watching.origin}/v1/chats").body())["data"][0]
    path = f"{watching.origin}/v1/responses/{chat['head']}/usage"
    used = json.loads(page.request.get(path).body())
    assert used["turn"]["cost"] == used["chain"]["cost"] == 6.0
    assert float(cost.inner_text()) == 6.0
    page.get_by_role("button", name="More about this chat").click()
    expect(page.locator(".facts-list")).to_contain_text("Expires")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Usage").click()
    dialog = page.get_by_role("dialog", name="Usage")
    expect(dialog.get_by_role("region", name="Usage as a table")).to_contain_text("6.0000")
    expect(dialog.get_by_role("region", name="What is stored")).to_contain_text("1 turn;")
    expect(dialog.get_by_role("link", name="What does it cost?")).to_be_visible()
    dialog.get_by_label("in", exact=True).select_option("cost")
    expect(dialog.locator(".chart .ends").first).to_have_text("6.0000")


def test_an_export_of_another_program_is_imported_with_a_report(
    world: Watched, server: ThreadServer, tmp_path: Path
) -> None:
    file = tmp_path / "export.zip"
    file.write_bytes(zipped({"conversations.json": [chatgpt_chat(title="Colours")]}))
    page = world.open()
    for result in ("imported", "unchanged"):
        page.get_by_role("button", name="Import and export").click()
        page.get_by_label("File", exact=True).set_input_files(file)
        report = page.get_by_role("region", name="Report")
        expect(report).to_contain_text("Colours")
        expect(report).to_contain_text(result)
        page.keyboard.press("Escape")
    assert len(server.get("/v1/chats").json["data"]) == 1
    expect(page.get_by_role("link", name="Colours")).to_be_visible()


def test_an_import_is_found_again_after_a_reload_and_others_of_the_day_are_listed(
    world: Watched, server: ThreadServer
) -> None:
    other = server.request("POST", "/v1/import", b"hello").json
    page = world.open()
    page.get_by_role("button", name="Import and export").click()
    export = zipped({"conversations.json": [chatgpt_chat(title="Colours")]})
    page.get_by_label("File").set_input_files(
        {"name": "export.zip", "mimeType": "application/zip", "buffer": export}
    )
    report = page.get_by_role("region", name="Report")
    expect(report).to_contain_text("Colours")
    page.reload()
    page.get_by_role("button", name="Import and export").click()
    expect(report).to_contain_text("Colours")
    (row,) = page.get_by_role("listitem").filter(has_text="failed").all()
    row.get_by_role("button", name="Report").click()
    job = server.get(f"/v1/import/{other['id']}").json
    expect(page.get_by_role("region", name="Import")).to_contain_text(job["error"]["message"])


def test_an_import_says_what_chats_are_called_or_why_there_are_none(world: Watched) -> None:
    page = world.open()
    page.get_by_role("button", name="Import and export").click()
    messages = [
        {"role": "user", "content": "What is amber?"},
        {"role": "assistant", "content": "Resin."},
    ]
    for content, words in (
        (messages, "What is amber?"),
        ({"hello": 1}, "Nothing was read: it is no chat of a known program."),
    ):
        page.get_by_label("File", exact=True).set_input_files(
            {
                "name": "a.json",
                "mimeType": "application/json",
                "buffer": json.dumps(content).encode(),
            }
        )
        expect(page.get_by_role("region", name="Import")).to_contain_text(words)


def test_a_chat_whose_model_is_not_here_goes_on_with_the_default_one(
    world: Watched, server: ThreadServer
) -> None:
    world.allowed = ("404",)
    chats = [chatgpt_chat(title="Colours")]
    server.request("POST", "/v1/import", zipped({"conversations.json": chats}))
    page = world.open()
    page.get_by_role("link", name="Colours").click()
    expect(page.locator("[data-turn]").last).to_be_visible()
    send_message(page, "And in winter?")
    expect(page.get_by_text("You asked: And in winter?")).to_be_visible()
    expect(page.get_by_text("the default one answers")).to_be_visible()
    expect(page.get_by_role("button", name="Default model")).to_be_visible()
    send_message(page, "And in spring?")
    expect(page.get_by_text("You asked: And in spring?")).to_be_visible()


DROP = """([name, type, content]) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(content)], name, { type }));
    for (const kind of ["dragover", "drop"])
        document.querySelector("#main").dispatchEvent(
            new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


def test_files_may_be_dropped_anywhere_and_each_export_is_a_file(
    world: Watched, server: ThreadServer
) -> None:
    page = world.open()
    export = zipped({"conversations.json": [chatgpt_chat(title="Colours")]})
    page.evaluate(DROP, ["export.zip", "application/zip", list(export)])
    expect(page.get_by_role("region", name="Report")).to_contain_text("imported")
    with page.expect_download() as everything:
        page.get_by_role("button", name="All chats as one file").click()
    page.keyboard.press("Escape")
    page.evaluate(DROP, ["dot.png", "image/png", list(b"\x89PNG")])
    expect(page.get_by_role("list", name="Pictures to be sent")).to_be_visible()
    page.get_by_role("link", name="Colours").click()
    chat = server.get("/v1/chats").json["data"][0]["id"]
    saved = {"everything": everything.value.path().read_text()}
    page.get_by_role("button", name="Share and export").click()
    for name, ending in (("Markdown", "md"), ("HTML", "html"), ("JSON, with", "json")):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        assert download.value.suggested_filename == f"Colours.{ending}"
        saved[ending] = download.value.path().read_text()
    assert json.loads(saved["everything"]) == json.loads(saved["json"])
    for ending, form in (("md", "markdown"), ("html", "html"), ("json", "json")):
        path = f"/v1/chats/{chat}/export?format={form}"
        assert saved[ending] == server.request("GET", path).body.decode()


def test_a_share_is_a_page_without_script_until_it_is_revoked(
    browser: Browser, world: Watched, server: ThreadServer
) -> None:
    head = server.respond("Share this", model="grok-4").json["id"]
    page = world.open(f"/r/{head}")
    page.get_by_role("button", name="Share and export").click()
    page.get_by_role("button", name="Make a link").click()
    link = page.get_by_label("The link").input_value()
    reader = browser.new_context(java_script_enabled=False).new_page()
    reader.goto(link)
    expect(reader.get_by_text("You asked: Share this")).to_be_visible()
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("button", name="Revoke")).to_have_count(0)
    # Nobody is to pass on a link that is none any more.
    expect(page.get_by_label("The link")).to_have_count(0)
    answer = reader.goto(link)
    assert answer is not None
    assert answer.status == 404
    reader.context.close()


def test_a_search_lands_on_the_turn_with_the_word_marked(
    world: Watched, server: ThreadServer
) -> None:
    first = server.respond("Where do herons sleep?", model="grok-4").json["id"]
    server.respond("And owls?", model="grok-4", previous_response_id=first)
    page = world.open()
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").fill("herons")
    expect(page.locator(".option .excerpt").first).to_contain_text("herons")
    page.keyboard.press("Enter")
    expect(page.locator(f'[data-turn="{first}"]')).to_be_focused()
    assert page.evaluate("[...CSS.highlights.get('found')].map(String)[0]") == "herons"


def test_another_model_and_a_system_prompt_are_sent(world: Watched, server: ThreadServer) -> None:
    page = world.open()
    page.get_by_title("Model and system prompt").click()
    page.get_by_role("radio", name="smollm2").check()
    page.get_by_role("textbox", name="System prompt").fill("Be brief.")
    page.get_by_role("button", name="Use", exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    send_message(page, "Hello")
    expect(page.get_by_text("You asked: Hello")).to_be_visible()
    response = server.get("/v1/responses?limit=1").json["data"][0]
    assert (response["model"], response["instructions"]) == ("smollm2", "Be brief.")
    send_message(page, "Again")
    expect(page.get_by_text("You asked: Again")).to_be_visible()
    assert server.get("/v1/responses?limit=1").json["data"][0]["instructions"] == "Be brief."


def test_several_models_answer_side_by_side(world: Watched, server: ThreadServer) -> None:
    page = world.open()
    page.get_by_role("textbox", name="Message").fill("Which is best?")
    page.get_by_title("Ask several models, side by side").click()
    for model in ("grok-4", "smollm2", "qwen3", "qwen3"):
        page.get_by_label(f"One more of {model}").click()
    page.get_by_role("button", name="Ask 4").click()
    expect(page.get_by_role("button", name="Go on with this")).to_have_count(4)
    page.get_by_role("button", name="Differences from the first").click()
    # Like is set beside like: Markdown as it is written.
    expect(page.get_by_text("Messages so far: **1**.")).to_have_count(4)
    page.get_by_role("button", name="Erase").nth(2).click()
    expect(page.get_by_role("button", name="Go on with this")).to_have_count(3)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name="Go on with this")).to_have_count(4)
    page.get_by_role("button", name="Go on with this").nth(1).click()
    expect(page.get_by_text("2/4")).to_be_visible()
    assert len(server.get("/v1/chats").json["data"]) == 1


def test_a_turn_can_go_on_in_other_programs(world: Watched, server: ThreadServer) -> None:
    head = server.respond("Go on elsewhere", model="grok-4").json["id"]
    page = world.open(f"/r/{head}")
    page.get_by_role("button", name="More", exact=True).click()
    dialog = page.get_by_role("dialog", name="Turn 1")
    for program, words in {
        "curl": f'"previous_response_id": "{head}"',
        "Python": f'previous_response_id="{head}"',
        "xai-sdk": "from xai_sdk import Client",
        "Terminal": f"antiphon chat --from {head}",
    }.items():
        dialog.get_by_role("button", name=program, exact=True).click()
        expect(dialog.locator("pre")).to_contain_text(words)
    dialog.get_by_role("button", name="Copy", exact=True).click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"antiphon chat --from {head}"


def test_a_stored_answer_is_replayed(world: Watched, server: ThreadServer) -> None:
    head = server.respond("Once more", model="grok-4", stream=True).events[0]["response"]["id"]
    page = world.open(f"/r/{head}")
    page.get_by_role("button", name="More", exact=True).click()
    page.get_by_role("button", name="Replay").click()
    replay = page.get_by_role("dialog", name="Replay")
    expect(replay).to_contain_text("You asked: Once more")
    expect(replay.get_by_role("button", name="Again")).to_be_visible()


def test_enter_that_is_pressed_before_anything_was_found_goes_where_it_would_then(
    world: Watched, server: ThreadServer
) -> None:
    first = server.respond("Where do herons sleep?", model="grok-4").json["id"]
    server.respond("And owls?", model="grok-4", previous_response_id=first)
    page = world.open()
    page.keyboard.press("Control+k")
    page.keyboard.type("herons")
    page.keyboard.press("Enter")
    expect(page.locator(f'[data-turn="{first}"]')).to_be_focused()
    # A command's name is meant before words that were said.
    server.respond("What is the usage of a comma?", model="grok-4")
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").fill("usage")
    expect(page.locator(".option .excerpt").first).to_contain_text("usage")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Usage")).to_be_visible()


def test_the_list_on_a_phone_closes_behind_what_was_chosen(
    browser: Browser, server: ThreadServer
) -> None:
    phone: ViewportSize = {"width": 390, "height": 844}
    with watched(browser, server.url, viewport=phone) as watching:
        page = watching.open()
        names = page.get_by_role("navigation", name="Chats")
        page.get_by_role("button", name="Open the list").click()
        names.get_by_role("button", name="Usage").click()
        expect(page.get_by_role("dialog", name="Usage")).to_be_visible()
        page.keyboard.press("Escape")
        expect(names).to_be_hidden()
        page.get_by_role("button", name="Open the list").click()
        expect(names).to_be_visible()
        page.keyboard.press("Escape")
        expect(names).to_be_hidden()
        send_message(page, "one")
        expect(page.get_by_text("You asked: one")).to_be_visible()
        page.get_by_role("link", name="New chat").click()
        expect(page.get_by_text("What is on your mind?")).to_be_visible()


def test_escape_closes_the_search_though_words_are_in_it(world: Watched) -> None:
    page = world.open()
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").fill("herons")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_search_finds_what_a_tool_was_called_with(world: Watched, server: ThreadServer) -> None:
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
    called = server.respond("tool please", model="grok-4", tools=[tool]).json["id"]
    page = world.open()
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").fill("Oslo")
    expect(page.locator(".option .excerpt").first).to_contain_text("Oslo")
    page.keyboard.press("Enter")
    # It is folded until it is looked for.
    turn = page.locator(f'[data-turn="{called}"]')
    expect(turn.get_by_text('"city": "Oslo"')).to_be_visible()


def test_a_share_shows_a_chat_up_to_a_turn(
    browser: Browser, world: Watched, server: ThreadServer
) -> None:
    first = server.respond("Share this", model="grok-4").json["id"]
    server.respond("Not that", model="grok-4", previous_response_id=first)
    page = world.open(f"/r/{first}")
    page.get_by_role("button", name="More", exact=True).first.click()
    page.get_by_role("button", name="Share up to here").click()
    expect(page.get_by_role("dialog")).to_contain_text("up to turn 1")
    page.get_by_role("button", name="Make a link").click()
    reader = browser.new_context(java_script_enabled=False).new_page()
    reader.goto(page.get_by_label("The link").input_value())
    expect(reader.get_by_text("You asked: Share this")).to_be_visible()
    assert "Not that" not in reader.content()
    reader.context.close()


def test_usage_is_a_chart_and_a_table(world: Watched, server: ThreadServer) -> None:
    server.respond("Count this", model="grok-4")
    page = world.open()
    page.get_by_role("button", name="Usage").click()
    table = page.get_by_role("region", name="Usage as a table")
    expect(table.get_by_role("row")).to_have_count(2)
    page.get_by_label("by", exact=True).select_option("model")
    expect(table).to_contain_text("grok-4")
    page.get_by_label("in", exact=True).select_option("turns")
    expect(page.locator(".chart .ends").first).to_have_text("1 turns")
    assert page.locator(".chart rect").count() == 1
    # Nobody came with a key.
    assert page.locator("#usage-by option").all_inner_texts() == ["day", "model"]


def test_usage_is_shown_by_key_where_there_are_keys(browser: Browser) -> None:
    with serving_with_keys() as keyed, watched(browser, keyed.server.url) as watching:
        watching.allowed = ("401",)
        clients = [keyed.client(), keyed.client()]
        for number, client in enumerate(clients):
            for _ in range(number + 1):
                client.respond("Count this")
        keyed.client("rival").respond("Not yours")
        assert clients[0].text is not None
        page = watching.open()
        page.get_by_label("API key").fill(clients[0].text)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Usage").click()
        page.get_by_label("by", exact=True).select_option("key")
        table = page.get_by_role("region", name="Usage as a table")
        expect(table.locator("tbody tr")).to_have_count(2)
        assert table.locator("tbody tr th").all_inner_texts() == [
            clients[1].key.id,
            clients[0].key.id,
        ]
        assert page.locator(".chart rect").count() == 2


def test_what_the_model_saw_names_what_was_left_out(world: Watched, server: ThreadServer) -> None:
    head = server.respond("Remember the heron.", model="grok-4").json["id"]
    head = server.respond("Which bird?", model="grok-4", previous_response_id=head).json["id"]
    sent = json.dumps(server.get(f"/v1/responses/{head}/context").json["messages"])
    assert "heron" in sent
    page = world.open(f"/r/{head}")
    page.get_by_role("button", name="What the model saw").last.click()
    lens = page.get_by_role("dialog", name="What the model saw")
    expect(lens).to_contain_text("Remember the heron.")
    expect(lens).to_contain_text("3 messages, as they were sent")


def test_what_was_left_out_is_counted_in_a_chat_that_is_not_all_in_view(browser: Browser) -> None:
    def reply(messages: list[dict[str, object]]) -> ScriptedReply:
        if messages[-1]["content"] == "short" and len(messages) > 11:
            return fail(ContextLengthExceededError("Too long.", used=len(messages), limit=11))
        return say("Fine.")

    with (
        serving(ScriptedModel(reply)) as server,
        watched(browser, server.url) as watching,
    ):
        head = None
        for number in range(40):
            made = server.respond(f"Go on, {number % 2}", previous_response_id=head)
            head = made.json["id"]
        page = watching.open(f"/r/{head}")
        page.get_by_role("button", name="What the model saw").last.click()
        lens = page.get_by_role("dialog", name="What the model saw")
        expect(lens).to_contain_text("79 messages, as they were sent")
        expect(lens.get_by_text("Not sent")).to_have_count(0)
        short = server.respond("short", previous_response_id=head, truncation="auto").json["id"]
        page.goto(f"{server.url}/r/{short}")
        page.get_by_role("button", name="What the model saw").last.click()
        shown = server.get(f"/v1/responses/{short}/context").json
        expect(lens).to_contain_text(f"Not sent: the {shown['turns_left_out']} oldest turns")
        assert len(shown["messages"]) == 2 * (40 - shown["turns_left_out"]) + 1
