"""The old Chat SDK's API with a host: turns go over gRPC to the legacy service."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from antiphon import (
    ConfigError,
    InvalidRequestError,
    ModelError,
    NotFoundError,
    Settings,
    UpstreamRateLimitError,
)
from antiphon.compat.chat_sdk import Client, Conversation, StatelessResponse
from antiphon.errors import AuthenticationError, ModelUnavailableError
from antiphon.models.scripted import ScriptedModel, fail, hang, say
from support.example_programs import SEEDS, ProgramResult, run_program
from support.grpc_client import GrpcTestServer, grpc_serving
from support.http_server import TIMEOUT

HUMAN, ASSISTANT = StatelessResponse.Sender.HUMAN, StatelessResponse.Sender.ASSISTANT
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, TIMEOUT))


def open_conversation(
    server: GrpcTestServer, *, fun_mode: bool = False, **options: Any
) -> Conversation:
    client = Client(api_host=server.address, **options)
    return client.chat.create_conversation(fun_mode)


def stored_texts(conversation: Conversation) -> list[tuple[StatelessResponse.Sender, str]]:
    return [(one.sender, one.message) for one in conversation.history]


def turn_error(conversation: Conversation, text: str = "Hi") -> Exception:
    """The exception of a failing turn."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is asked
        run(conversation.add_response_no_stream(text))
    return caught.value


async def test_conversation_over_grpc() -> None:
    model = ScriptedModel([say("Hello", ", Alice!"), "You are Alice."])

    with grpc_serving(model) as server:
        conversation = open_conversation(server)
        tokens, future = conversation.add_response("I am Alice.")
        assert "".join([token async for token in tokens]) == "Hello, Alice!"
        assert (await future) == StatelessResponse(ASSISTANT, "Hello, Alice!")
        assert (await conversation.add_response_no_stream("Who?")).message == "You are Alice."
        assert server.http.stored_count() == 0
    assert conversation.response_id is None
    assert stored_texts(conversation) == [
        (HUMAN, "I am Alice."),
        (ASSISTANT, "Hello, Alice!"),
        (HUMAN, "Who?"),
        (ASSISTANT, "You are Alice."),
    ]
    assert model.context() == [
        {"role": "user", "content": "I am Alice."},
        {"role": "assistant", "content": "Hello, Alice!"},
        {"role": "user", "content": "Who?"},
    ]


def test_old_program_with_a_host(tmp_path: Path) -> None:
    written = (SEEDS / "simple_chat.py.txt").read_text("utf-8")
    with grpc_serving(ScriptedModel(["Hello Alice!", "Bye."])) as server:
        for old, new in (
            ("\nimport xai_sdk\n", "\nimport antiphon.compat.chat_sdk as xai_sdk\n"),
            ("xai_sdk.Client()", f'xai_sdk.Client("any", api_host="{server.address}")'),
        ):
            assert old in written
            written = written.replace(old, new)
        (tmp_path / "program.py").write_text(written)
        ran = run_program(["program.py"], tmp_path, stdin="My name is Alice.\nBye\n\n")
    answers = "Human: \nGrok: Hello Alice!\n\nHuman: \nGrok: Bye.\n\nHuman: \n"
    assert ran == ProgramResult(0, f"Enter an empty message to quit.\n\n{answers}", "")


def test_fun_mode_is_applied_by_the_server() -> None:
    model = ScriptedModel(["Ha."])
    with grpc_serving(model, fun_prompt="Be very funny.") as server:
        conversation = open_conversation(server, fun_mode=True)
        run(conversation.add_response_no_stream("Hi"))
    assert conversation.fun_mode
    assert model.context()[0] == {"role": "system", "content": "Be very funny."}


def test_model_name_is_sent() -> None:
    models = {"one": ScriptedModel(["One."]), "two": ScriptedModel(["Two."])}
    with grpc_serving(models) as server:
        answer = run(open_conversation(server, model="two").add_response_no_stream("Hi"))
        assert answer.message == "Two."
        unknown = turn_error(open_conversation(server, model="three"))
        assert isinstance(unknown, NotFoundError)
        assert unknown.code == "model_not_found"


def test_failed_turn_does_not_move_the_conversation() -> None:
    model = ScriptedModel(
        [
            "Hello.",
            fail(UpstreamRateLimitError("Slow down.", retry_after=7)),
            say("Hel") + fail(ModelError("Broken.")),
            "Here.",
        ]
    )
    with grpc_serving(model) as server:
        conversation = open_conversation(server)
        run(conversation.add_response_no_stream("Hi"))
        limited = turn_error(conversation)
        assert isinstance(limited, UpstreamRateLimitError)
        assert (limited.message, limited.retry_after) == ("Slow down.", 7)
        broken = turn_error(conversation)
        assert isinstance(broken, ModelError)
        assert broken.message == "Broken."
        assert isinstance(turn_error(conversation, "\ud800"), InvalidRequestError)
        empty = turn_error(open_conversation(server), "")
        assert isinstance(empty, InvalidRequestError)
        assert empty.param == "input"
        assert stored_texts(conversation) == [(HUMAN, "Hi"), (ASSISTANT, "Hello.")]
        assert run(conversation.add_response_no_stream("More")).message == "Here."
    assert [one["content"] for one in model.context()] == ["Hi", "Hello.", "More"]


def test_key_is_sent_to_the_host_and_shown_nowhere() -> None:
    with grpc_serving(ScriptedModel(["In."])) as server:
        key = server.key("acme")
        for wrong in (None, "ap-wrong"):
            refused = turn_error(open_conversation(server, api_key=wrong))
            assert isinstance(refused, AuthenticationError)
            assert "wrong" not in str(refused)
        conversation = open_conversation(server, api_key=key)
        assert run(conversation.add_response_no_stream("Hi")).message == "In."
        assert key not in repr(vars(conversation))


def test_closing_a_stream_cancels_the_model_call() -> None:
    reached = asyncio.Event()
    model = ScriptedModel([say("Hel") + hang(), hang(reached), "Bye."])

    async def closed(conversation: Conversation) -> StatelessResponse:
        tokens, future = conversation.add_response("Hi")
        assert await anext(tokens) == "Hel"
        await tokens.aclose()
        return await future

    with grpc_serving(model) as server:
        conversation = open_conversation(server)
        assert run(closed(conversation)).message == "Hel"
        server.http.wait(model.cancelled)
        assert stored_texts(conversation) == [(HUMAN, "Hi"), (ASSISTANT, "Hel")]

        # Before anything was said, there is nothing to keep.
        async def cancelled() -> None:
            work = asyncio.create_task(conversation.add_response_no_stream("More"))
            await asyncio.to_thread(server.http.wait, reached)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work

        run(cancelled())
        assert stored_texts(conversation) == [(HUMAN, "Hi"), (ASSISTANT, "Hel")]
        assert run(conversation.add_response_no_stream("Bye")).message == "Bye."


def test_unreachable_server_is_an_error() -> None:
    with grpc_serving() as server:
        conversation = open_conversation(server)
    gone = turn_error(conversation)
    assert isinstance(gone, ModelUnavailableError)
    assert server.address in gone.message
    assert stored_texts(conversation) == []


def test_remote_hosts_use_tls() -> None:
    with grpc_serving(ScriptedModel(["Plain."])) as server:
        # Another name for the same address, which says nothing of this machine.
        there = f"ipv4:{server.address}"
        guarded = Client(api_host=there).chat.create_conversation()
        assert isinstance(turn_error(guarded), ModelUnavailableError)
        plain = Client(api_host=there, use_insecure_channel=True).chat.create_conversation()
        assert run(plain.add_response_no_stream("Hi")).message == "Plain."


@pytest.mark.parametrize("host", ["", "http://localhost:8081", "[::1"])
def test_invalid_host_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        Client(api_host=host)


@pytest.mark.parametrize(
    "option", [{"settings": Settings(store="memory:")}, {"fun_prompt": "Joke."}]
)
def test_server_side_option_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="api_host"):
        Client(api_host="localhost:1", **option)


def test_missing_grpc_extra_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "antiphon.compat.remote", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ConfigError, match=r"antiphon\[grpc\]"):
        Client(api_host="localhost:1")


def test_chat_sdk_import_does_not_import_grpc() -> None:
    look = "import sys, antiphon.compat.chat_sdk; print('grpc' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
