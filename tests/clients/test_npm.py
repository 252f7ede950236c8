"""Clients from npm, unmodified, against the real server: ``openai``, and ``ai``.

They are installed once, as ``npm/package-lock.json`` says, into the user's cache folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon.errors import ModelError
from antiphon.models.scripted import ScriptedModel, ScriptedReply, call, calls, fail, say, think
from support.http_server import serving
from support.npm_packages import installed_packages

HERE = Path(__file__).parent / "npm"
#: Seconds that a program may take, on a slow day.
RUNNING = 120


def reply_to(messages: list[dict[str, Any]]) -> ScriptedReply:
    """What the clients' programs count on."""
    last = messages[-1]
    if last["role"] == "tool":
        return say("It is: ", last["content"])
    match last["content"]:
        case "The weather?":
            return calls(call("get_weather", {"city": "Oslo"}))
        case "Who was Ada?":
            return say('{"name":"Ada",', '"born":1815}')
        case "Think!":
            return think("Hm.") + say("I did.")
        case "Break!":
            return say("Hel") + fail(ModelError("It broke."))
    first = next(message["content"] for message in messages if message["role"] == "user")
    return say(f"{len(messages)} messages, ", f"the first: {first}")


@pytest.fixture(scope="module")
def installed() -> Path:
    """A folder with the clients in ``node_modules``."""
    return installed_packages(HERE)


class Outcome(msgspec.Struct, frozen=True):
    """What one program returned, or failed with."""

    value: Any = None
    error: str | None = None


def outcomes(program: str, installed: Path, folder: Path) -> dict[str, Outcome]:
    """What the functions of a program came to, by name."""
    for file in HERE.glob("*.mjs"):
        shutil.copy(file, folder)
    # A module is looked for beside the program, and nowhere else.
    (folder / "node_modules").symlink_to(installed / "node_modules")
    with serving(ScriptedModel(reply_to)) as server:
        done = subprocess.run(
            ["node", folder / program, server.base_url],
            capture_output=True,
            text=True,
            timeout=RUNNING,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, Outcome])


@pytest.fixture(scope="module")
def openai(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    return outcomes("openai.mjs", installed, tmp_path_factory.mktemp("openai"))


@pytest.fixture(scope="module")
def ai(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    return outcomes("ai.mjs", installed, tmp_path_factory.mktemp("ai"))


def value(outcomes: dict[str, Outcome], name: str) -> Any:
    outcome = outcomes[name]
    assert outcome.error is None, outcome.error
    return outcome.value


def test_openai_create(openai: dict[str, Outcome]) -> None:
    said = "3 messages, the first: I am Alice."
    assert value(openai, "create") == {
        "texts": ["1 messages, the first: I am Alice.", said, said],
        "input": ["Who?"],
        "gone": ["NotFoundError", 404, "response_not_found"],
    }


def test_openai_stream(openai: dict[str, Outcome]) -> None:
    came = value(openai, "stream")
    assert came["types"][0] == "response.created"
    assert came["types"][-1] == "response.completed"
    assert came["numbers"] == list(range(len(came["numbers"])))
    assert came["said"] == came["final"] == "1 messages, the first: Hi"


@pytest.mark.parametrize("name", ["tools", "chatTools"])
def test_openai_tools(openai: dict[str, Outcome], name: str) -> None:
    assert value(openai, name) == {"called": ["Oslo"], "text": "It is: snow"}


def test_openai_structured(openai: dict[str, Outcome]) -> None:
    assert value(openai, "structured") == {"name": "Ada", "born": 1815}


def test_openai_background(openai: dict[str, Outcome]) -> None:
    came = value(openai, "background")
    assert came == {
        "statuses": ["queued", "completed"],
        "first": 4,
        "last": "response.completed",
    }


def test_openai_conversations(openai: dict[str, Outcome]) -> None:
    assert value(openai, "conversations") == {
        "text": "3 messages, the first: I am Bob.",
        "conversation": True,
        "roles": ["user", "assistant", "user", "assistant"],
        "gone": ["NotFoundError", 404, "conversation_not_found"],
    }


def test_openai_chat(openai: dict[str, Outcome]) -> None:
    said = "1 messages, the first: Hi"
    assert value(openai, "chat") == {"whole": said, "streamed": said}


def test_openai_errors(openai: dict[str, Outcome]) -> None:
    assert value(openai, "errors") == [
        ["BadRequestError", 400, "empty_input"],
        ["NotFoundError", 404, "model_not_found"],
        ["BadRequestError", 400, "previous_response_not_found"],
    ]


def test_openai_websocket(openai: dict[str, Outcome]) -> None:
    assert value(openai, "websocket") == [
        "1 messages, the first: I am Carol.",
        "3 messages, the first: I am Carol.",
    ]


def test_ai_generate(ai: dict[str, Outcome]) -> None:
    came = value(ai, "generate")
    assert came["id"].startswith("resp_")
    assert came["tokens"] > 0
    assert (came["text"], came["finishReason"]) == ("1 messages, the first: Hi", "stop")


def test_ai_stream(ai: dict[str, Outcome]) -> None:
    assert value(ai, "stream") == {
        "parts": ["1 messages, ", "the first: Hi"],
        "finishReason": "stop",
    }


def test_ai_reasoning(ai: dict[str, Outcome]) -> None:
    assert value(ai, "reasoning") == {"text": "I did.", "reasoningText": "Hm."}


@pytest.mark.parametrize("name", ["tools", "streamedTools"])
def test_ai_tools(ai: dict[str, Outcome], name: str) -> None:
    assert value(ai, name) == {"text": "It is: snow in Oslo", "calls": ["Oslo"], "steps": 2}


@pytest.mark.parametrize("name", ["structured", "streamedStructured"])
def test_ai_structured(ai: dict[str, Outcome], name: str) -> None:
    assert value(ai, name) == {"name": "Ada", "born": 1815}


def test_ai_turns(ai: dict[str, Outcome]) -> None:
    assert value(ai, "turns") == "3 messages, the first: I am Alice."


def test_ai_previous_response(ai: dict[str, Outcome]) -> None:
    assert value(ai, "previous") == "3 messages, the first: I am Bob."


def test_ai_failure(ai: dict[str, Outcome]) -> None:
    assert value(ai, "failure") == {"failed": True}
