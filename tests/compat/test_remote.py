"""The old Chat SDK's surface with a host: its turns go over gRPC, to its own service."""

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


def begun(server: GrpcTestServer, *, fun_mode: bool = False, **options: Any) -> Conversation:
    client = Client(api_host=server.address, **options)
    return client.chat.create_conversation(fun_mode)


def said(conversation: Conversation) -> list[tuple[StatelessResponse.Sender, str]]:
    return [(one.sender, one.message) for one in conversation.history]


def failing(conversation: Conversation, text: str = "Hi") -> Exception:
    """What a turn fails with."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is asked
        run(conversation.add_response_no_stream(text))
    return caught.value


async def test_a_conversation_on_a_server() -> None:
    model = ScriptedModel([say("Hello", ", Alice!"), "You are Alice."])

    with grpc_serving(model) as server:
        conversation = begun(server)
        tokens, future = conversation.add_response("I am Alice.")
        assert "".join([token async for token in tokens]) == "Hello, Alice!"
        assert (await future) == StatelessResponse(ASSISTANT, "Hello, Alice!")
        assert (await conversation.add_response_no_stream("Who?")).message == "You are Alice."
        assert server.http.stored_count() == 0
    assert conversation.response_id is None
    assert said(conversation) == [
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


def test_an_old_program_with_a_host(tmp_path: Path) -> None:
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


def test_fun_mode_is_the_servers() -> None:
    model = ScriptedModel(["Ha."])
    with grpc_serving(model, fun_prompt="Be very funny.") as server:
        conversation = begun(server, fun_mode=True)
        run(conversation.add_response_no_stream("Hi"))
    assert conversation.fun_mode
    assert model.context()[0] == {"role": "system", "content": "Be very funny."}


def test_a_model_is_asked_by_its_name() -> None:
    models = {"one": ScriptedModel(["One."]), "two": ScriptedModel(["Two."])}
    with grpc_serving(models) as server:
        answer = run(begun(server, model="two").add_response_no_stream("Hi"))
        assert answer.message == "Two."
        unknown = failing(begun(server, model="three"))
        assert isinstance(unknown, NotFoundError)
        assert unknown.code == "model_not_found"


def test_a_failure_leaves_the_conversation_where_it_was() -> None:
    model = ScriptedModel(
        [
            "Hello.",
            fail(UpstreamRateLimitError("Slow down.", retry_after=7)),
            say("Hel") + fail(ModelError("Broken.")),
            "Here.",
        ]
    )
    with grpc_serving(model) as server:
        conversation = begun(server)
        run(conversation.add_response_no_stream("Hi"))
        limited = failing(conversation)
        assert isinstance(limited, UpstreamRateLimitError)
        assert (limited.message, limited.retry_after) == ("Slow down.", 7)
        broken = failing(conversation)
        assert isinstance(broken, ModelError)
        assert broken.message == "Broken."
        assert isinstance(failing(conversation, "\ud800"), InvalidRequestError)
        empty = failing(begun(server), "")
        assert isinstance(empty, InvalidRequestError)
        assert empty.param == "input"
        assert said(conversation) == [(HUMAN, "Hi"), (ASSISTANT, "Hello.")]
        assert run(conversation.add_response_no_stream("More")).message == "Here."
    assert [one["content"] for one in model.context()] == ["Hi", "Hello.", "More"]


def test_a_key_goes_to_the_host_and_shows_nowhere() -> None:
    with grpc_serving(ScriptedModel(["In."])) as server:
        key = server.key("acme")
        for wrong in (None, "ap-wrong"):
            refused = failing(begun(server, api_key=wrong))
            assert isinstance(refused, AuthenticationError)
            assert "wrong" not in str(refused)
        conversation = begun(server, api_key=key)
        assert run(conversation.add_response_no_stream("Hi")).message == "In."
        assert key not in repr(vars(conversation))


def test_a_stream_that_is_closed_half_way_stops_the_model() -> None:
    reached = asyncio.Event()
    model = ScriptedModel([say("Hel") + hang(), hang(reached), "Bye."])

    async def closed(conversation: Conversation) -> StatelessResponse:
        tokens, future = conversation.add_response("Hi")
        assert await anext(tokens) == "Hel"
        await tokens.aclose()
        return await future

    with grpc_serving(model) as server:
        conversation = begun(server)
        assert run(closed(conversation)).message == "Hel"
        server.http.wait(model.cancelled)
        assert said(conversation) == [(HUMAN, "Hi"), (ASSISTANT, "Hel")]

        # Before anything was said, there is nothing to keep.
        async def cancelled() -> None:
            work = asyncio.create_task(conversation.add_response_no_stream("More"))
            await asyncio.to_thread(server.http.wait, reached)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work

        run(cancelled())
        assert said(conversation) == [(HUMAN, "Hi"), (ASSISTANT, "Hel")]
        assert run(conversation.add_response_no_stream("Bye")).message == "Bye."


def test_a_server_that_is_not_there() -> None:
    with grpc_serving() as server:
        conversation = begun(server)
    gone = failing(conversation)
    assert isinstance(gone, ModelUnavailableError)
    assert server.address in gone.message
    assert said(conversation) == []


def test_other_hosts_are_asked_by_tls() -> None:
    with grpc_serving(ScriptedModel(["Plain."])) as server:
        # Another name for the same address, which says nothing of this machine.
        there = f"ipv4:{server.address}"
        guarded = Client(api_host=there).chat.create_conversation()
        assert isinstance(failing(guarded), ModelUnavailableError)
        plain = Client(api_host=there, use_insecure_channel=True).chat.create_conversation()
        assert run(plain.add_response_no_stream("Hi")).message == "Plain."


@pytest.mark.parametrize("host", ["", "http://localhost:8081", "[::1"])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        Client(api_host=host)


@pytest.mark.parametrize(
    "option", [{"settings": Settings(store="memory:")}, {"fun_prompt": "Joke."}]
)
def test_what_is_the_servers_to_say(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="api_host"):
        Client(api_host="localhost:1", **option)


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "antiphon.compat.remote", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ConfigError, match=r"antiphon\[grpc\]"):
        Client(api_host="localhost:1")


def test_what_is_not_used_is_not_loaded() -> None:
    look = "import sys, antiphon.compat.chat_sdk; print('grpc' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
