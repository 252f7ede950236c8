"""Shared and exported pages in a real browser: they load nothing, run nothing and break no rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from antiphon.models.scripted import ScriptedModel, say
from support.chat_exports import PNG_URL
from support.hostile_strings import HOSTILE as STRINGS
from support.http_server import ThreadServer, serving

HOSTILE = (
    "<script>document.title='run'</script>",
    "<img src=/x onerror=\"document.title='run'\">",
    "[click](javascript:document.title='run')",
    "![pixel](https://evil.example/pixel.png)",
    "<svg onload=\"document.title='run'\">",
    "<iframe srcdoc='<script>parent.document.title=\"run\"</script>'>",
    "```html\n<script>document.title='run'</script>\n```",
    "</style><style>body{background:url(https://evil.example/)}</style>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "\x1b]0;run\x07 \x00",
)


def watched(browser: Browser, scheme: str) -> tuple[Page, list[str], list[str]]:
    """A page, what it asks for, and what its console says, such as violations of its policy."""
    page = browser.new_page(color_scheme="dark" if scheme == "dark" else "light")
    requests: list[str] = []
    messages: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    return page, requests, messages


def hostile_chat(server: ThreadServer) -> str:
    name: str | None = None
    for text in HOSTILE:
        content = [
            {"type": "input_text", "text": text},
            {"type": "input_image", "image_url": PNG_URL},
        ]
        given = [{"role": "user", "content": content}]
        name = server.post("/v1/responses", input=given, previous_response_id=name).json["id"]
    assert name is not None
    return name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_shared_and_an_exported_page_load_and_run_nothing(
    browser: Browser, tmp_path: Path, scheme: str
) -> None:
    with serving(ScriptedModel(lambda _: say("\n\n".join(STRINGS)))) as server:
        name = hostile_chat(server)
        url = server.url + server.post("/v1/shares", response_id=name).json["url"]
        file = tmp_path / "chat.html"
        file.write_bytes(server.get(f"/v1/chats/{name}/export?format=html").body)
        for address in (url, file.as_uri()):
            page, requests, messages = watched(browser, scheme)
            page.goto(address)
            title = page.title()
            assert title.startswith("<script>document.title='run'")
            assert page.locator("article").count() == len(HOSTILE)
            assert page.locator("script, iframe, svg, object, form, base, [onerror]").count() == 0
            images = page.locator("img")
            assert images.count() == len(HOSTILE)
            for index in range(images.count()):
                assert images.nth(index).evaluate("image => image.naturalWidth") == 4
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert background == ("rgb(24, 23, 21)" if scheme == "dark" else "rgb(253, 252, 250)")
            width = page.evaluate("[document.body.scrollWidth, innerWidth]")
            assert width[0] <= width[1]
            pages = [one for one in requests if not one.startswith("data:")]
            assert pages == [address], "nothing else was loaded"
            assert messages == []
            page.close()
