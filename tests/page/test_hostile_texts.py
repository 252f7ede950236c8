"""Hostile strings through every field that shows text: no element, no request, no violation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from antiphon.errors import ModelError
from antiphon.models.scripted import ScriptedModel, ScriptedReply, call, calls, fail, say, think
from antiphon.turn.protocols import ModelInfo
from support.browser import Watched, until
from support.hostile_strings import HOSTILE
from support.http_server import ThreadServer, serving

#: How many texts a chat has, in its questions, thoughts, answers, arguments and results.
_TURNS = 12
#: Elements that the page never makes, and attributes that would run something.
_BAD = """
    script:not([src^="/web/"]), iframe, object, embed, style, base, video, audio, template,
    math:not(.katex *), meta:not([name=viewport], [name="color-scheme"], [charset]),
    form:not(.composer, .row, .stack, .editor), link:not([rel=stylesheet], [rel=modulepreload],
    [rel=icon], head > [rel=preload][as=fetch][href^="/v1/"]),
    img:not([src^="data:image/png"]), a[href^="javascript" i], a[href^="data" i],
    a[href^="vbscript" i], [onerror], [onload], [onclick], [onfocus], [srcdoc]
"""


def _reply(messages: list[dict[str, Any]]) -> ScriptedReply:
    question = messages[-1]["content"]
    if not isinstance(question, str) or messages[-1]["role"] != "user":
        return say("Done.")
    kind, _, text = question.partition(" ")
    match kind:
        case "calls":
            share = json.loads(text)
            arguments = [call("lookup", {"text": one}) for one in HOSTILE[share::_TURNS]]
            return think(*(one + "\n" for one in HOSTILE[share::_TURNS])) + calls(*arguments)
        case "fails":
            return fail(ModelError(text))
    return say(*(one + "\n\n" for one in HOSTILE[json.loads(text) :: _TURNS]))


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    names = ["m", *(one for one in HOSTILE if one.isprintable() and len(one) < 100)]
    models = {name: ScriptedModel(_reply, info=ModelInfo(name)) for name in names}
    with serving(models) as started:
        yield started


def _assert_harmless(page: Page) -> None:
    found = page.evaluate(
        "(bad) => [...document.querySelectorAll(bad)].map((one) => one.outerHTML.slice(0, 200))",
        _BAD,
    )
    assert found == []
    assert page.title() != "run"


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 200


def test_questions_thoughts_answers_arguments_and_results(
    world: Watched, server: ThreadServer
) -> None:
    parent = None
    for share in range(_TURNS):
        for kind in ("says", "calls"):
            made = server.respond(f"{kind} {share}", previous_response_id=parent).json
            parent = made["id"]
        results = [
            {
                "type": "function_call_output",
                "call_id": one["call_id"],
                "output": json.loads(one["arguments"])["text"],
            }
            for one in made["output"]
            if one["type"] == "function_call"
        ]
        parent = server.post("/v1/responses", input=results, previous_response_id=parent).json["id"]
    page = world.open(f"/r/{parent}")
    expect(page.get_by_text("Done.").last).to_be_visible()
    for _ in range(12):
        page.evaluate(
            "() => document.querySelectorAll('details').forEach((one) => { one.open = true })"
        )
        _assert_harmless(page)
        page.locator(".scroller").evaluate("(one) => { one.scrollTop = 0 }")
        page.wait_for_timeout(60)
    page.get_by_role("button", name="What the model saw").last.dispatch_event("click")
    expect(page.get_by_role("dialog")).to_contain_text("messages, as they were sent")
    _assert_harmless(page)


def test_titles_models_and_searches(world: Watched, server: ThreadServer) -> None:
    texts = [one for one in HOSTILE if one.strip() and "\x00" not in one][:60]
    for text in texts:
        made = server.respond("says 0").json
        chat = server.get(f"/v1/chats/{made['id']}").json["id"]
        assert server.request("POST", f"/v1/chats/{chat}", {"title": text[:80]}).status == 200
    page = world.open()
    for _ in range(6):
        page.locator(".chats").evaluate("(one) => { one.scrollTop = one.scrollHeight }")
        page.wait_for_timeout(60)
    expect(page.locator(".chat-row").nth(50)).to_be_attached()
    _assert_harmless(page)
    page.get_by_title("Model and system prompt").click()
    expect(page.get_by_role("radio").nth(50)).to_be_attached()
    _assert_harmless(page)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").fill("script")
    until(page, "document.querySelectorAll('.option').length > 2")
    _assert_harmless(page)


@pytest.mark.slow
def test_errors_file_names_and_addresses(
    world: Watched, server: ThreadServer, tmp_path: Path
) -> None:
    world.allowed = ("404",)
    for text in HOSTILE[::9]:
        server.respond(f"fails {text}")
    names = [one["id"] for one in server.get("/v1/responses?limit=30").json["data"]]
    page = world.open()
    for name in names[:12]:
        page.goto(f"{world.origin}/r/{name}")
        expect(page.get_by_text("This turn failed.")).to_be_visible()
        _assert_harmless(page)
    odd = tmp_path / "<img src=x onerror=run>.html"
    odd.write_text("<script>document.title='run'</script>")
    page.get_by_label("Pictures", exact=True).set_input_files(odd)
    expect(page.get_by_text("is no picture")).to_be_visible()
    _assert_harmless(page)
    page.goto(f"{world.origin}/r/%3Cimg%20src=x%20onerror=run%3E")
    _assert_harmless(page)
