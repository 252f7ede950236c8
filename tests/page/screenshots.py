"""Screenshots of the page for the docs: ``make screenshots`` writes them to ``docs/images``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect

from antiphon.models.scripted import ScriptedModel, ScriptedReply, call, calls, say, think
from antiphon.turn.protocols import ModelInfo
from support.browser import chromium
from support.http_server import ThreadServer, serving
from support.mcp_toolsets import stdio_config
from support.page_model import TOUR

_FOLDER = Path(__file__).parents[2] / "docs" / "images"
_MODELS = ("grok-4", "smollm2", "qwen3-8b")
_ANSWERS = {
    "Plan a weekend in Lisbon": (
        "Two days are enough for the old town and the river.\n\n"
        "1. **Saturday:** Alfama on foot, lunch at a *tasca*, the tram 28 in the afternoon.\n"
        "2. **Sunday:** Belém by bicycle, the tower early, custard tarts at eleven.\n\n"
        "Shall I look for trains from Porto?"
    ),
    "Only by train, please": (
        "Then take the *Alfa Pendular* from Porto-Campanhã: 2 h 50 min, every hour, about €33"
        " second class.\n\n| Leaves | Arrives |\n|:--|:--|\n| 07:47 | 10:40 |\n| 09:47 | 12:40 |"
    ),
    "We like to eat fish": (
        "In that case begin at the *Mercado de Alvalade*, and book a table in Cacilhas, across"
        " the river: the ferry takes ten minutes."
    ),
    "Name our rowing boat": (
        "*Halcyon*: the kingfisher that calms the sea, and short enough for the stern."
    ),
    "Which of them is the cheapest?": "The early one, if it is booked eight days ahead: €14.50.",
}

#: What other models than the first say to a question.
_OTHER_ANSWERS = {
    "smollm2": {"Name our rowing boat": "*Patience*. You will need it, and so will she."},
    "qwen3-8b": {
        "Name our rowing boat": (
            "Three that read well on a stern:\n\n"
            "1. *Halcyon*, for calm water\n2. *Sandpiper*, for the shore\n3. *Second Wind*"
        )
    },
}


def _reply(model: str, messages: list[dict[str, Any]]) -> ScriptedReply:
    question = messages[-1]["content"] if messages[-1]["role"] == "user" else ""
    if question.startswith("Show"):
        return think("Headings, a table, code and a formula, then.") + say(TOUR)
    if question.startswith("Do we need"):
        return think("I should look it up.") + calls(call("meteo__weather", {"city": "Lisbon"}))
    other = _OTHER_ANSWERS.get(model, {}).get(question)
    return say(
        other or _ANSWERS.get(question, f"{question.rstrip('?')}: it depends on the season.")
    )


@contextmanager
def _server() -> Iterator[ThreadServer]:
    models = {name: ScriptedModel(partial(_reply, name), info=ModelInfo(name)) for name in _MODELS}
    with serving(models, mcp=[stdio_config("meteo", require_approval="always")]) as server:
        yield server


def _chat(server: ThreadServer, *questions: str, parent: str | None = None, **more: Any) -> str:
    for question in questions:
        answer = server.respond(question, model="grok-4", previous_response_id=parent, **more)
        parent = answer.json["id"]
    assert parent is not None
    return parent


class Album:
    """The pictures, each of one state of the page."""

    def __init__(self, browser: Browser, server: ThreadServer) -> None:
        self._browser, self._server = browser, server

    def take(
        self,
        name: str,
        path: str,
        act: Callable[[Page], None],
        *,
        phone: bool = False,
        scheme: Any = "light",
    ) -> None:
        size: ViewportSize = (
            {"width": 390, "height": 780} if phone else {"width": 1280, "height": 800}
        )
        context = self._browser.new_context(
            viewport=size,
            color_scheme=scheme,
            device_scale_factor=1.5,
            has_touch=phone,
            reduced_motion="reduce",
            locale="en-GB",
        )
        page = context.new_page()
        page.goto(self._server.url + path)
        act(page)
        page.evaluate("() => document.querySelector('dialog') || document.activeElement.blur()")
        page.evaluate("document.fonts.ready.then(() => true)")
        page.wait_for_timeout(400)
        # 256 colours are enough for a drawing, at a third of the size.
        picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
        _FOLDER.mkdir(parents=True, exist_ok=True)
        picture.quantize(256, dither=Image.Dither.NONE).save(
            _FOLDER / f"page-{name}.png", optimize=True
        )
        context.close()


def _shows(text: str) -> Callable[[Page], None]:
    return lambda page: expect(page.get_by_text(text).last).to_be_visible()


def _presses(key: str, shown: str, text: str) -> Callable[[Page], None]:
    def act(page: Page) -> None:
        _shows(shown)(page)
        page.locator("[data-turn]").last.focus()
        page.keyboard.press(key)
        _shows(text)(page)

    return act


def _clicks(name: str, shown: str, text: str) -> Callable[[Page], None]:
    def act(page: Page) -> None:
        _shows(shown)(page)
        page.get_by_role("button", name=name, exact=True).last.click()
        _shows(text)(page)

    return act


def _compares(page: Page) -> None:
    page.get_by_role("textbox", name="Message").fill("Name our rowing boat")
    page.get_by_title("Ask several models, side by side").click()
    for model in _MODELS:
        page.get_by_label(f"One more of {model}").click()
    page.get_by_role("button", name="Ask 3").click()
    expect(page.get_by_role("button", name="Go on with this")).to_have_count(3)


def main() -> None:
    with chromium() as browser, _server() as server:
        first = _chat(server, "Plan a weekend in Lisbon")
        train = _chat(
            server, "Only by train, please", "Which of them is the cheapest?", parent=first
        )
        _chat(server, "We like to eat fish", parent=first)
        fish = _chat(server, "And for vegetarians?", parent=first)
        for title in (
            "Rename a column in SQLite",
            "Why is the sea salty?",
            "A birthday card for Ada",
        ):
            _chat(server, title)
        tools = [{"type": "mcp", "server_label": "meteo", "require_approval": "always"}]
        waiting = _chat(server, "Do we need an umbrella?", tools=tools)
        tour = _chat(server, "Show me what an answer can hold")
        album = Album(browser, server)
        album.take("light", f"/r/{tour}", _shows("ever lost"))
        album.take("dark", f"/r/{train}", _shows("€14.50"), scheme="dark")
        album.take("phone", f"/r/{train}", _shows("€14.50"), phone=True)
        album.take("branches", f"/r/{fish}", _presses("m", "it depends", "branches"))
        album.take("approvals", f"/r/{waiting}", _shows("Approve"))
        album.take(
            "context", f"/r/{train}", _clicks("What the model saw", "€14.50", "as they were sent")
        )
        album.take("side-by-side", "/", _compares)
    sys.stdout.write(f"{len(list(_FOLDER.glob('page-*.png')))} pictures in {_FOLDER}\n")


if __name__ == "__main__":
    main()
