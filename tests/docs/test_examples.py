"""The small examples: each runs as a program, over a real socket, with a script for a model."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from support.embedded_model import needs_model
from support.example_programs import (
    ROOT,
    ProgramResult,
    environment,
    hanging_reply,
    replay_upstream,
    roles,
    run_example,
    run_examples,
    run_program,
    tool_call_reply,
    user_turns,
)
from support.http_server import ServerProcess
from support.pseudo_terminal import CTRL_C, Terminal

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
RECEIPT = EXAMPLES / "support_bot" / "receipts" / "ord-789.png"


def test_chat(tmp_path: Path) -> None:
    hello = "Hello Alice! Nice to meet you. How can I help you today?"
    with replay_upstream(hello, "Your name is Alice, as you just told me!") as upstream:
        ran = run_example("chat", tmp_path, upstream)
        assert upstream.sent_messages(1) == [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "My name is Alice."},
            {"role": "assistant", "content": hello},
            {"role": "user", "content": "What's my name?"},
        ]
    assert "Assistant: Your name is Alice, as you just told me!" in ran.lines
    assert ran.lines[-2:] == [
        "(5 messages so far)",
        "(1 message after a reset: the instructions)",
    ]


def test_streaming(tmp_path: Path) -> None:
    with replay_upstream("Once there was a robot.") as upstream:
        ran = run_example("streaming", tmp_path, upstream)
        assert upstream.requests[0]["stream"] is True
    assert ran.lines == ["Assistant: Once there was a robot.", "(23 characters, completed)"]


def test_ctrl_c_stops_a_story(tmp_path: Path) -> None:
    program = [str(EXAMPLES / "streaming.py")]
    with (
        replay_upstream(hanging_reply("Once there was")) as upstream,
        Terminal(program, environment(tmp_path, upstream), tmp_path, is_script=True) as terminal,
    ):
        terminal.expect("Assistant: Once there was")
        terminal.type(CTRL_C)
        terminal.expect("(stopped; 3 messages so far)\n")
        assert terminal.leave() == 0


def test_tools(tmp_path: Path) -> None:
    script = (
        tool_call_reply("get_weather", location="Tokyo"),
        "72 F and sunny in Tokyo.",
        tool_call_reply("get_time_zone", call_id="call_2", city="New York"),
        "New York is in America/New_York.",
    )
    with replay_upstream(*script) as upstream:
        ran = run_example("tools", tmp_path, upstream)
        names = [one["function"]["name"] for one in upstream.requests[0]["tools"]]
        assert names == ["get_time_zone", "get_weather"]
        shown = upstream.sent_messages()
    turn = ["user", "assistant", "tool"]
    assert roles(shown) == ["system", *turn, "assistant", *turn]
    assert json.loads(shown[3]["content"]) == {
        "temp": 72,
        "condition": "sunny",
        "location": "Tokyo",
    }
    assert shown[7]["content"] == "America/New_York"
    assert shown[7]["tool_call_id"] == "call_2"
    assert ran.lines[1::2] == [f"Assistant: {script[1]}", f"Assistant: {script[3]}"]


def test_images(tmp_path: Path) -> None:
    with replay_upstream("A receipt.", "Black and white.") as upstream:
        ran = run_example("images", tmp_path, upstream)
        again = upstream.sent_messages()
    url = "data:image/png;base64," + base64.b64encode(RECEIPT.read_bytes()).decode()
    picture = {"type": "image_url", "image_url": {"url": url, "detail": "high"}}
    assert again[0]["content"] == [{"type": "text", "text": "What's in this image?"}, picture]
    assert roles(again) == ["user", "assistant", "user"]
    assert ran.lines == ["A receipt.", "Black and white."]


def test_images_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    with replay_upstream() as upstream:
        ran = run_program([str(EXAMPLES / "images.py"), "nowhere.png"], tmp_path, upstream)
    assert ran == ProgramResult(1, "", "There is no file 'nowhere.png'.\n")


def test_structured(tmp_path: Path) -> None:
    item = {"name": "Ribollita", "price": 9.5, "description": "A soup."}
    menu = {"cuisine_type": "Italian", "price_range": "cheap", "items": [item] * 3}
    with replay_upstream(json.dumps(menu)) as upstream:
        ran = run_example("structured", tmp_path, upstream)
        assert upstream.requests[0]["response_format"]["type"] == "json_schema"
    assert ran.lines == ["Cuisine: Italian (cheap)", *["  - Ribollita: $9.50"] * 3]


def test_managed(tmp_path: Path) -> None:
    script = ("Nice.", "Noted.", "They want churches and coffee in Rome.", "Sant'Eustachio.")
    with replay_upstream(*script) as upstream:
        ran = run_example("managed", tmp_path, upstream)
        shown = upstream.sent_messages()
    assert any(script[2] in message["content"] for message in shown)
    assert not any("old churches" in message["content"] for message in shown)
    assert ran.lines[:2] == [f"Summary: {script[2]}", script[3]]
    assert ran.lines[2].startswith("(the model is shown 4 messages of ")


def test_server_side_state(tmp_path: Path) -> None:
    script = ("Noted.", "Your favorite color is blue.")
    with replay_upstream(*script) as upstream:
        ran = run_example("server_side_state", tmp_path, upstream)
        assert user_turns(upstream.sent_messages()) == [
            "My favorite color is blue.",
            "What's my favorite color?",
        ]
    assert ran.lines[1] == script[1]


def test_server_side_state_by_the_openai_client(tmp_path: Path) -> None:
    with (
        replay_upstream("Noted.", "Your favorite color is blue.") as upstream,
        ServerProcess(tmp_path, upstream.base_url) as server,
    ):
        ran = run_example("server_side_state", tmp_path, upstream, server.base_url)
        assert roles(upstream.sent_messages()) == ["user", "assistant", "user"]
    assert ran.lines[1] == "Your favorite color is blue."


def test_old_sdk(tmp_path: Path) -> None:
    with replay_upstream("Hello Alice!", "Alice.") as upstream:
        ran = run_example("old_sdk", tmp_path, upstream)
        assert roles(upstream.sent_messages()) == ["user", "assistant", "user"]
    assert ran.lines[:2] == ["Human: My name is Alice.", "Grok: Hello Alice!"]
    assert re.fullmatch(r"\(go on with: antiphon chat --from resp_\w+\)", ran.lines[-1])


def test_the_page_names_every_example() -> None:
    page = (EXAMPLES / "README.md").read_text("utf-8")
    named = set(re.findall(r"\]\(([\w/.]+)\)", page)) - {"support_bot/"}
    assert all((EXAMPLES / name).is_file() for name in named)
    own = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py")}
    assert {name for name in own if "__" not in name} <= named


# On the model on board, of which little can be said beforehand.


@needs_model
def test_on_the_embedded_model(tmp_path: Path) -> None:
    # Those whose answers cannot go on for ever, as a small model's do now and then.
    chat, structured = run_examples(["chat", "structured"], tmp_path)
    assert chat[::2] == ["You: My name is Alice.", "You: What's my name?", "(5 messages so far)"]
    assert re.fullmatch(r"Cuisine: .+ \((cheap|moderate|expensive)\)", structured[0])
    assert all(re.fullmatch(r"  - .+: \$[\d.]+", line) for line in structured[1:])
    assert len(structured) == 4


@needs_model
def test_the_embedded_model_says_that_it_sees_nothing(tmp_path: Path) -> None:
    ran = run_program([str(EXAMPLES / "images.py")], tmp_path)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith("cannot look at images.\n")
