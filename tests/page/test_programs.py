"""What the page does, other programs do too: the texts beside its actions are run as they are."""

from __future__ import annotations

import json
import random
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from antiphon.models.scripted import ScriptedModel, ScriptedReply, call, calls
from antiphon.turn.protocols import ModelInfo
from support.browser import Watched, watched
from support.chat_exports import chatgpt_chat, zipped
from support.command_line import PROGRAM, environment
from support.http_server import ThreadServer, serving
from support.mcp_toolsets import stdio_config
from support.page_model import PageModel
from support.pseudo_terminal import CTRL_D, Terminal
from support.serve_process import running_server

_CONFIG = """
model = "grok-4"
store = "sqlite:turns.db"
[models.grok-4]
kind = "scripted"
"""
_MCP = [{"type": "mcp", "server_label": "meteo", "require_approval": "always"}]
_FUNCTION = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
_ERASURES = ("Erase it", "Erase it and all that followed")
Texts = dict[str, str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    (folder / "c.toml").write_text(_CONFIG)
    (folder / "export.zip").write_bytes(zipped({"conversations.json": [chatgpt_chat()]}))
    return folder


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[ThreadServer]:
    page_model = PageModel()

    def reply(messages: list[dict[str, Any]]) -> ScriptedReply:
        if messages[-1]["content"] == "meteo please":
            return calls(call("meteo__weather", {"city": "Lisbon"}))
        return page_model.reply(messages)

    models = {name: ScriptedModel(reply, info=ModelInfo(name)) for name in ("grok-4", "smollm2")}
    config = stdio_config("meteo", require_approval="always")
    with serving(models, home / "turns.db", mcp=[config]) as started:
        yield started


@pytest.fixture(scope="module")
def world(browser: Browser, server: ThreadServer) -> Iterator[Watched]:
    with watched(browser, server.url) as watching:
        # A chat may be erased before the page reads it again.
        watching.allowed = ("404",)
        yield watching


class Walk:
    """A walk through the dialogs, which notes what one program is told to do in each."""

    def __init__(self, page: Page, server: ThreadServer, program: str) -> None:
        self.page, self.program = page, program
        self.texts: Texts = {}
        self._origin = server.url

    def show(self, path: str) -> None:
        self.page.goto(self._origin + path)
        expect(self.page.locator("[data-turn]").last).to_be_visible()

    def note(self, wanted: Callable[[str], bool] = lambda _: True) -> None:
        """Note the actions of the dialog that is open, and close it."""
        dialog = self.page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        if (fold := dialog.locator(".programs-fold:not([open]) summary")).count():
            fold.click()
        actions = dialog.locator("#programs-action")
        title = dialog.get_by_role("heading", level=2).inner_text()
        names = actions.locator("option").all_inner_texts() if actions.count() else [title]
        for name in filter(wanted, names):
            if actions.count():
                actions.select_option(label=name)
            tab = dialog.get_by_role("button", name=self.program, exact=True)
            if tab.count():
                tab.click()
                self.texts[f"{title}: {name}"] = dialog.locator(".programs pre").inner_text()
        self.page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)

    def click(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).last.click()

    def press(self, key: str) -> None:
        self.page.locator("[data-turn]").last.focus()
        self.page.keyboard.press(key)


def _walk(page: Page, server: ThreadServer, program: str) -> Texts:
    """What a program is told by every dialog, in an order in which all of it can be done."""

    def ask(text: str, parent: str | None = None, **more: object) -> str:
        answer = server.respond(text, model="grok-4", previous_response_id=parent, **more)
        return str(answer.json["id"])

    first = ask("What's first?")
    second = ask('And "second"?', first)
    kept = ask("Another chat")
    called = ask("tool please", tools=[_FUNCTION])
    waiting = {ask("meteo please", tools=_MCP) for _ in range(2)}
    walk = Walk(page, server, program)

    walk.show(f"/r/{kept}")
    walk.press("Control+k")
    walk.page.get_by_role("combobox").fill("first")
    walk.note()
    walk.press("m")
    walk.note()
    walk.click("grok-4")
    walk.note()
    walk.click("What the model saw")
    walk.note()
    walk.click("Usage")
    walk.note()
    walk.click("Import and export")
    walk.note()
    walk.click("Share and export")
    walk.click("Make a link")
    expect(page.get_by_label("The link")).to_be_visible()
    walk.note()
    walk.press("i")
    expect(page.get_by_role("dialog").get_by_role("listitem").first).to_be_visible()
    # A call is decided once.
    walk.note(lambda name: name.startswith("Approve"))
    (left,) = (one for one in waiting if one not in "".join(walk.texts.values()))
    page.get_by_role("textbox", name="Message").fill("Which is best?")
    page.get_by_title("Ask several models, side by side").click()
    walk.note()
    walk.click("More about this chat")
    walk.note()
    walk.show(f"/r/{called}")
    walk.click("More")
    walk.note(lambda name: name not in _ERASURES)
    walk.show(f"/r/{left}")
    walk.click("More")
    walk.note(lambda name: name.startswith("Refuse"))
    walk.show(f"/r/{second}")
    walk.click("More")
    walk.note(lambda name: name == _ERASURES[0])
    walk.show(f"/r/{first}")
    walk.page.get_by_role("button", name="More", exact=True).first.click()
    walk.note(lambda name: name == _ERASURES[1])
    return walk.texts


def _run(arguments: list[str], home: Path, stdin: str = "") -> str:
    path = f"{Path(PROGRAM).parent}:/usr/bin:/bin"
    env = {**environment(home), "PATH": path, "ANTIPHON_CONFIG": "c.toml"}
    done = subprocess.run(
        arguments,
        cwd=home,
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


def _check_erased(server: ThreadServer, texts: Texts) -> None:
    for name, text in texts.items():
        if "Erase" in name:
            path = next(word for word in text.split() if "resp_" in word or "chat_" in word)
            found = path.strip("\"'(),").rpartition("/")[2].partition("?")[0]
            kind = "chats" if found.startswith("chat_") else "responses"
            assert server.get(f"/v1/{kind}/{found}").status == 404, name


@pytest.mark.slow
def test_curl_does_what_the_page_does(world: Watched, server: ThreadServer, home: Path) -> None:
    page = world.open()
    texts = _walk(page, server, "curl")
    for name, text in texts.items():
        out = _run(["bash", "-c", f"{text} -sS"], home)
        assert out, name
        if out.startswith("{"):
            assert not json.loads(out.splitlines()[0]).get("error"), (name, text, out)
    assert len(texts) >= 34
    _check_erased(server, texts)
    page.close()


@pytest.mark.slow
def test_python_does_what_the_page_does(world: Watched, server: ThreadServer, home: Path) -> None:
    page = world.open()
    texts = _walk(page, server, "Python")
    run = "import json, sys\nfor one in json.load(sys.stdin): exec(compile(one, one, 'exec'), {})"
    assert _run([sys.executable, "-c", run], home, json.dumps([*texts.values()]))
    assert len(texts) >= 34
    _check_erased(server, texts)
    page.close()


@pytest.mark.slow
def test_a_terminal_does_what_the_page_does(
    world: Watched, server: ThreadServer, home: Path
) -> None:
    page = world.open()
    texts = _walk(page, server, "Terminal")
    assert len(texts) >= 25
    for name, text in texts.items():
        command, *lines = text.splitlines()
        if not command.startswith("antiphon chat"):
            assert _run(["bash", "-c", command], home, "y\n" if "Erase" in name else ""), name
            continue
        env = {**environment(home), "ANTIPHON_CONFIG": "c.toml"}
        with Terminal([PROGRAM, *shlex.split(command)[1:]], env, home) as terminal:
            terminal.expect("> ")
            for line in lines:
                terminal.type(f"{line}\n")
                if "approve" in line:
                    terminal.expect("decide on number")
                    terminal.type("\n")
                if "erase" in line:
                    terminal.expect("[y/N]")
                    terminal.type("y\n")
                    terminal.expect("erased")
            terminal.type(CTRL_D)
            assert terminal.leave() == 0, (name, terminal.shown)
            assert "is no command" not in terminal.shown
    page.close()


def _two_free_ports() -> int:
    """A port that is free as the next one is, where gRPC is served."""
    while True:
        # Below those that a system gives out by itself: nobody gets one of them meanwhile.
        port = random.randrange(20_000, 30_000)
        with (
            suppress(OSError),
            closing(socket.create_server(("127.0.0.1", port))),
            closing(socket.create_server(("127.0.0.1", port + 1))),
        ):
            return port


@pytest.mark.slow
def test_the_xai_sdk_goes_on_with_a_turn(browser: Browser, tmp_path: Path) -> None:
    with (
        running_server(tmp_path, "--port", str(_two_free_ports())) as (_, host, found),
        watched(browser, f"http://{host}:{found}") as watching,
    ):
        page = watching.open()
        page.get_by_role("textbox", name="Message").fill("Begun on the page")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="More", exact=True).click()
        page.get_by_role("button", name="xai-sdk").click()
        text = page.locator(".programs pre").inner_text()
        assert "Go on." in _run([sys.executable, "-c", text], tmp_path)
        page.keyboard.press("Escape")
        expect(page.locator(".bubble", has_text="Go on.")).to_be_visible()
