"""One conversation through all interfaces: each continues where the previous one stopped.

A server, programs of their own and this process have the same database open.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import grpc
import msgspec
import openai
import pytest
import xai_sdk  # type: ignore[import-untyped]
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import Client, types
from xai_sdk.chat import system, user  # type: ignore[import-untyped]

from antiphon import Conversation, NotFoundError, Settings
from antiphon.settings import ModelSettings
from support.command_line import PROGRAM, Command, CommandResult, commands, environment
from support.example_programs import ReplayUpstream, replay_upstream
from support.grpc_client import wait_until
from support.http_server import TIMEOUT, ServerProcess
from support.mcp_clients import call, over_http, program, tool_error

SYSTEM = "Be brief."
#: Who is to say what, and what the model says to that.
TURNS = [
    ("grpc", "My name is Alice.", "Hello, Alice!"),
    ("http", "And I am nine.", "That is a fine age."),
    ("mcp over stdio", 'I like "tea"\n\tand ☃.', "Tea \\ noted. 😀"),
    ("mcp over http", "Also cake.", "Cake, too."),
    ("terminal", "What do I like?", "Tea and cake."),
    ("python", "Who am I?", "Alice, nine."),
    ("grpc", "Thanks.", "You are welcome."),
]
Messages: TypeAlias = list[dict[str, str]]
#: An answer, and the id to go on from.
Turn: TypeAlias = tuple[str, str]
T = TypeVar("T")


def expected_messages() -> Messages:
    """The whole conversation, as every interface should show it."""
    told = [{"role": "system", "content": SYSTEM}]
    for _, said, answer in TURNS:
        told.append({"role": "user", "content": said})
        told.append({"role": "assistant", "content": answer})
    return told


class Stage(msgspec.Struct, frozen=True):
    """A server, and direct access to its database."""

    home: Path
    upstream: ReplayUpstream
    server: ServerProcess
    official: Any
    openai: openai.OpenAI
    here: Command
    portal: BlockingPortal
    pipes: Client
    door: Client

    @property
    def store(self) -> str:
        return f"sqlite:{self.server.database}"

    @property
    def settings(self) -> Settings:
        model = ModelSettings(kind="chat_completions", base_url=self.upstream.base_url)
        return Settings(store=self.store, model="m", models={"m": model})

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--store", self.store, "--config", str(self.home / "antiphon.toml"))

    def read(self, *command: str) -> CommandResult:
        """A command that reads, in this process: that is quicker."""
        return self.here(*command, *self.flags)

    def mcp(self, work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Something done with one of the two MCP clients, where they live."""
        done: T = self.portal.start_task_soon(work, *args).result(TIMEOUT)
        return done


@contextmanager
def open_interfaces(
    home: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
) -> Iterator[Stage]:
    """Opens every interface, with a scripted model."""
    with ExitStack() as stack:
        here = stack.enter_context(commands(home, patch, capture))
        upstream = stack.enter_context(replay_upstream(*(answer for _, _, answer in TURNS)))
        server = stack.enter_context(ServerProcess(home, upstream.base_url))
        client = xai_sdk.Client(
            "any", api_host=grpc_of(home), use_insecure_channel=True, timeout=TIMEOUT
        )
        official = stack.enter_context(client)
        http = openai.OpenAI(base_url=server.base_url, api_key="none", timeout=TIMEOUT)
        stack.enter_context(http)
        portal = stack.enter_context(start_blocking_portal())
        # A program of its own, on the same file. It stays, and sees what others write.
        given = program(
            home,
            *("--store", f"sqlite:{server.database}"),
            model=f'base_url = "{upstream.base_url}"',
        )
        clients = (Client(given, cache=None), over_http(server))
        pipes, door = (
            stack.enter_context(portal.wrap_async_context_manager(client)) for client in clients
        )
        yield Stage(home, upstream, server, official, http, here, portal, pipes, door)
        assert upstream.unused_replies == 0


def grpc_of(home: Path) -> str:
    """The address at which a server reports its gRPC listener."""
    log = home / "server.log"
    wait_until(lambda: "xai-sdk: " in log.read_text() and log.read_text().endswith("\n"))
    found = re.search(r"gRPC, for the xai-sdk: (\S+)\n", log.read_text())
    assert found
    return found[1]


# Each interface: from a response id to the answer and the next id.


def by_grpc(stage: Stage, said: str, previous: str | None) -> Turn:
    chat = stage.official.chat.create(
        "m", store_messages=True, **({"previous_response_id": previous} if previous else {})
    )
    if previous is None:
        chat.append(system(SYSTEM))
    chat.append(user(said))
    response = chat.sample()
    return response.content, response.id


def by_http(stage: Stage, said: str, previous: str | None) -> Turn:
    response = stage.openai.responses.create(model="m", input=said, previous_response_id=previous)
    return response.output_text, response.id


def by_terminal(stage: Stage, said: str, previous: str | None) -> Turn:
    ran = subprocess.run(
        [PROGRAM, "chat", "--from", previous or "", "-p", said, *stage.flags],
        env=environment(stage.home),
        cwd=stage.home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    # It says the answer and nothing else; the newest conversation is this one.
    (newest, *_) = json.loads(stage.read("list", "--json").out)
    return ran.stdout.removesuffix("\n"), newest["head"]


def by_python(stage: Stage, said: str, previous: str | None) -> Turn:
    reply = Conversation.resume(previous or "", settings=stage.settings).send(said)
    assert reply.response_id is not None
    return reply.text, reply.response_id


def by_pipes(stage: Stage, said: str, previous: str | None) -> Turn:
    return stage.mcp(tool_call, stage.pipes, said, previous)


def by_mcp_url(stage: Stage, said: str, previous: str | None) -> Turn:
    return stage.mcp(tool_call, stage.door, said, previous)


async def tool_call(client: Client, said: str, previous: str | None) -> Turn:
    answer = await call(client, "stateful_chat", prompt=said, response_id=previous, model="m")
    assert (answer["continued_from"], answer["warnings"]) == (previous, [])
    return answer["content"], answer["response_id"]


WAYS = {
    "grpc": by_grpc,
    "http": by_http,
    "mcp over stdio": by_pipes,
    "mcp over http": by_mcp_url,
    "terminal": by_terminal,
    "python": by_python,
}


# Reading the conversation in each interface.


def messages_by_http(stage: Stage, newest: str) -> Messages:
    """The messages from the newest response back to the first."""
    told: Messages = []
    at: str | None = newest
    while at is not None:
        response = stage.openai.responses.retrieve(at)
        items = [*stage.openai.responses.input_items.list(at, order="asc"), *response.output]
        turn = [item.to_dict() for item in items]
        told[:0] = [
            {
                "role": str(item["role"]),
                "content": "".join(part["text"] for part in item["content"]),
            }
            for item in turn
        ]
        at = response.previous_response_id
    return told


async def messages_by_mcp(client: Client, newest: str) -> Messages:
    uri = f"antiphon://conversations/{newest}.json"
    (document,) = (await client.read_resource(uri)).contents
    assert isinstance(document, types.TextResourceContents)
    told: Messages = json.loads(document.text)
    return told


def messages_by_interface(stage: Stage, newest: str) -> list[Messages]:
    """The messages from each interface that shows a whole conversation."""
    return [
        stage.mcp(messages_by_mcp, stage.pipes, newest),
        stage.mcp(messages_by_mcp, stage.door, newest),
        json.loads(stage.read("show", newest, "--json").out),
        Conversation.resume(newest, settings=stage.settings).messages(),
    ]


def test_conversation_continues_across_all_interfaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_interfaces(tmp_path, monkeypatch, capsys) as stage:
        ids: list[str] = []
        for number, (way, said, answer) in enumerate(TURNS):
            got, name = WAYS[way](stage, said, ids[-1] if ids else None)
            assert got == answer, way
            # The model was shown all that any of them had said before.
            assert stage.upstream.sent_messages() == expected_messages()[: 2 * number + 2], way
            ids.append(name)
        assert len(set(ids)) == len(TURNS)
        newest = ids[-1]

        assert messages_by_http(stage, newest) == expected_messages()
        assert messages_by_interface(stage, newest) == [expected_messages()] * 4
        # Over gRPC a completion is read alone, and has only its answer.
        answers = [stage.official.chat.get_stored_completion(name)[0].content for name in ids]
        assert answers == [answer for _, _, answer in TURNS]

        # What one of them erases is gone for all: here the turn of the pipes.
        erased = ids[2]
        stage.official.chat.delete_stored_completion(erased)
        left = [one for place, one in enumerate(expected_messages()) if place not in {5, 6}]
        assert messages_by_interface(stage, newest) == [left] * 4
        check_missing(stage, erased)


def check_missing(stage: Stage, name: str) -> None:
    """Checks that a response is missing in every interface."""
    with pytest.raises(openai.NotFoundError):
        stage.openai.responses.retrieve(name)
    with pytest.raises(grpc.RpcError) as caught:
        stage.official.chat.get_stored_completion(name)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(NotFoundError):
        Conversation.resume(name, settings=stage.settings)
    ran = stage.read("show", name)
    assert (ran.code, ran.out) == (1, "")
    for client in (stage.pipes, stage.door):
        told = stage.mcp(
            partial(tool_error, client, "stateful_chat", prompt="Hi", response_id=name)
        )
        assert name in told
