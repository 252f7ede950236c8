"""``antiphon mcp``: the official client over a real program's pipes."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, types

from support.command_line import PROGRAM, environment
from support.command_line_upstream import upstream
from support.http_server import TIMEOUT
from support.mcp_clients import MODES, call, program, tool_error
from support.program_process import ProgramProcess
from support.stateful_chat_schema import STATEFUL_CHAT

GIF = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


class Pipes:
    """The program, with messages written and read directly."""

    def __init__(self, process: ProgramProcess) -> None:
        self.process = process
        self._ids = 0

    def write(self, method: str, params: dict[str, Any], **more: Any) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params, **more}
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        """One message: whatever comes on standard output has to be one."""
        message: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert message["jsonrpc"] == "2.0"
        return message

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._ids += 1
        self.write(method, params, id=self._ids)
        answer = self.read()
        assert answer["id"] == self._ids
        result: dict[str, Any] = answer["result"]
        return result

    def chat(self, **arguments: Any) -> dict[str, Any]:
        result = self.ask("tools/call", name="stateful_chat", arguments=arguments)
        assert not result["isError"], result
        body: dict[str, Any] = result["structuredContent"]
        return body


@contextmanager
def pipes(home: Path, *flags: str, model: str = 'kind = "scripted"') -> Iterator[Pipes]:
    given = program(home, *flags, model=model)
    with (
        (home / "log").open("ab") as log,
        ProgramProcess(
            [given.command, *given.args], environment(home), home, stderr=log
        ) as process,
    ):
        try:
            spoken = Pipes(process)
            spoken.ask("initialize", **HELLO)
            spoken.write("notifications/initialized", {})
            yield spoken
        finally:
            process.kill()


@pytest.mark.parametrize("mode", MODES)
async def test_official_client_can_chat(tmp_path: Path, mode: str) -> None:
    async with Client(program(tmp_path), mode=mode, cache=None) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["stateful_chat"].input_schema == STATEFUL_CHAT
        said = await call(client, "stateful_chat", prompt="Hi", model="m")
        assert said["warnings"] == []
        assert said["stored_until"] > "2026"
        (thread,) = (await client.list_resources()).resources
        assert thread.name == said["response_id"]


async def test_conversation_continues_in_another_process_after_a_kill(tmp_path: Path) -> None:
    with pipes(tmp_path) as first:
        one = first.chat(prompt="My name is Alice.")
        first.process.send_signal(signal.SIGKILL)
        assert first.process.wait(TIMEOUT) == -signal.SIGKILL

    async with Client(program(tmp_path), cache=None) as client:
        two = await call(
            client, "stateful_chat", prompt="And nine.", response_id=one["response_id"]
        )
        # A third one reads the same file meanwhile.
        with pipes(tmp_path) as other:
            three = other.chat(prompt="Who?", response_id=two["response_id"])
        assert "(I was shown 5 messages.)" in three["content"]


@pytest.mark.slow
def test_turn_running_at_a_kill_is_stored_as_interrupted(tmp_path: Path) -> None:
    with upstream() as url:
        model = f'kind = "chat_completions"\nbase_url = "{url}"'
        with pipes(tmp_path, model=model) as first:
            one = first.chat(prompt="Remember.", model="m")
            arguments = {"prompt": "hang", "response_id": one["response_id"], "model": "m"}
            params = {"name": "stateful_chat", "arguments": arguments, "_meta": PROGRESS}
            first.write("tools/call", params, id="slow")
            while "has written" not in first.read()["params"]["message"]:
                pass
            first.process.kill()
            first.process.wait(TIMEOUT)
        with pipes(tmp_path, model=model) as second:
            (thread,) = second.ask("resources/list")["resources"]
            turn = second.ask(
                "tools/call",
                name="retrieve_stateful_response",
                arguments={"response_id": thread["name"]},
            )["structuredContent"]
            assert (turn["status"], turn["prompt"]) == ("failed", "hang")
            assert (
                "3 messages"
                in second.chat(prompt="Again.", response_id=one["response_id"], model="m")[
                    "content"
                ]
            )


PROGRESS = {"progressToken": "p"}


@pytest.mark.slow
def test_cancelled_request_cancels_its_turn(tmp_path: Path) -> None:
    with upstream() as url:
        model = f'kind = "chat_completions"\nbase_url = "{url}"'
        with pipes(tmp_path, model=model) as spoken:
            params = {"name": "chat", "arguments": {"prompt": "hang"}, "_meta": PROGRESS}
            spoken.write("tools/call", params, id="slow")
            while "has written" not in spoken.read()["params"]["message"]:
                pass
            spoken.write("notifications/cancelled", {"requestId": "slow"})
            # The next answer is that of the next question: the other one has none.
            assert spoken.ask("resources/list")["resources"] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_program(tmp_path: Path, number: signal.Signals) -> None:
    with pipes(tmp_path) as spoken:
        said = spoken.chat(prompt="Hi")
        spoken.process.send_signal(number)
        assert spoken.process.wait(TIMEOUT) == 0
    with pipes(tmp_path) as spoken:
        assert spoken.chat(prompt="On", response_id=said["response_id"])


@pytest.mark.slow
def test_end_of_input_ends_the_program(tmp_path: Path) -> None:
    with pipes(tmp_path) as spoken:
        spoken.chat(prompt="Hi")
        spoken.process.stdin.close()
        assert spoken.process.stdout.read() == ""
        assert spoken.process.wait(TIMEOUT) == 0
    assert (tmp_path / "log").read_text() == ""


@pytest.mark.slow
def test_invalid_message_is_ignored(tmp_path: Path) -> None:
    with pipes(tmp_path) as spoken:
        spoken.process.stdin.write('{\n\n[1]\nnull\n"x"\n{"jsonrpc":"2.0"}\n\x00\n')
        spoken.process.stdin.write('{"jsonrpc":"2.0","id":"s","method":"tools/call","params":')
        spoken.process.stdin.write('{"name":"chat","arguments":{"prompt":"\\ud800"}}}\n')
        spoken.process.stdin.flush()
        spoken.write("tools/list", {}, id="last")
        while spoken.read().get("id") != "last":
            pass
        assert spoken.chat(prompt="Hi")


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_images_are_read_from_root_folders_and_shared_ones(tmp_path: Path, mode: str) -> None:
    given, shared, other = (tmp_path / name for name in ("given", "shared", "other"))
    for folder in (given, shared, other):
        folder.mkdir()
        (folder / "a.gif").write_bytes(GIF)

    async def roots(context: Any) -> types.ListRootsResult:
        return types.ListRootsResult.model_validate({"roots": [{"uri": shared.as_uri()}]})

    async def main() -> None:
        server = program(tmp_path, "--root", str(given))
        async with Client(server, mode=mode, cache=None, list_roots_callback=roots) as client:
            for path in ("a.gif", given / "a.gif", shared / "a.gif"):
                said = await call(
                    client, "chat_with_vision", prompt="What?", image_paths=[str(path)]
                )
                assert said["status"] == "completed"
            startup_error = await tool_error(
                client, "chat_with_vision", prompt="x", image_paths=[str(other / "a.gif")]
            )
            assert "not within the folders that may be read" in startup_error
        async with Client(program(tmp_path), mode=mode, cache=None) as client:
            startup_error = await tool_error(
                client, "chat_with_vision", prompt="x", image_paths=[str(given / "a.gif")]
            )
            assert "--root DIR" in startup_error

    asyncio.run(main())


def startup_error(home: Path, *flags: str, **more: str) -> str:
    """The standard error of a program that exits before it serves."""
    ran = subprocess.run(
        [PROGRAM, *program(home, *flags).args],
        env={**environment(home), **more},
        cwd=home,
        capture_output=True,
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    return ran.stderr


def test_missing_image_folder_is_an_error(tmp_path: Path) -> None:
    assert "--root nowhere: there is no such folder" in startup_error(tmp_path, "--root", "nowhere")


def test_missing_mcp_extra_names_what_to_install(tmp_path: Path) -> None:
    # A module of that name which is none stands in for one that is not there.
    (tmp_path / "mcp_types.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'mcp_types'\", name='mcp_types')\n"
    )
    said = startup_error(tmp_path, PYTHONPATH=str(tmp_path))
    assert said == "error: MCP is not installed: `pip install 'antiphon[mcp]'`\n"
