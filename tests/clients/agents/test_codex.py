"""Codex CLI, as it comes from npm, with antiphon as its provider and as an MCP server beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.client_programs import AgentWorld, agent_world, installed
from support.command_line import PROGRAM

pytestmark = pytest.mark.clients

#: What docs/clients.md says, at the address of the test's server.
CONFIG = """
model = "{model}"
model_provider = "antiphon"

[model_providers.antiphon]
name = "antiphon"
base_url = "{base_url}"
wire_api = "responses"
supports_websockets = {websockets}
"""
MCP_CONFIG = """
[mcp_servers.antiphon]
command = "{program}"
args = ["mcp"]
required = true

[mcp_servers.antiphon.env]
ANTIPHON_CONFIG = "{config}"
ANTIPHON_STORE = "{store}"
"""
ECHO = 'call exec_command {"cmd": "echo hello-$((40+2))"}'
ASK_BY_MCP = 'call mcp__antiphon__stateful_chat {"prompt": "say by MCP"}'
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02"
    "0000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
)


class Codex:
    """Codex in a folder of its own; ``folder`` is what it works in."""

    def __init__(self, world: AgentWorld, model: str, websockets: bool, mcp: bool) -> None:
        self.world = world
        self.program = str(installed("node") / "node_modules" / ".bin" / "codex")
        self.folder = world.home / "work"
        self.folder.mkdir()
        variables = world.environment()
        config = (CONFIG + MCP_CONFIG if mcp else CONFIG).format(
            model=model,
            base_url=world.server.base_url,
            websockets=str(websockets).lower(),
            program=PROGRAM,
            config=variables["ANTIPHON_CONFIG"],
            store=variables["ANTIPHON_STORE"],
        )
        (world.home / ".codex").mkdir()
        (world.home / ".codex" / "config.toml").write_text(config)

    def exec(self, prompt: str, *options: str, resume: bool = False) -> str:
        """What Codex says last to a prompt."""
        again = ["resume", "--last"] if resume else ["-C", str(self.folder)]
        done = self.world.run(
            [
                *(self.program, "exec", "--skip-git-repo-check"),
                *("--dangerously-bypass-approvals-and-sandbox", *again, *options, "--", prompt),
            ],
            cwd=self.folder,
        )
        return done.stdout.strip()


@contextmanager
def codex(
    home: Path, model: str = "m", *, websockets: bool = False, mcp: bool = False
) -> Iterator[Codex]:
    with agent_world(home, *{"m": 0, model: 0}) as world:
        yield Codex(world, model, websockets, mcp)


@pytest.mark.parametrize("websockets", [False, True], ids=["http", "websocket"])
def test_codex_calls_its_tools_and_those_of_the_mcp_server_and_resumes(
    tmp_path: Path, websockets: bool
) -> None:
    with codex(tmp_path, websockets=websockets, mcp=True) as cli:
        assert "hello-42" in cli.exec(f"{ECHO}\n{ASK_BY_MCP}")
        answer = cli.exec("Who?", resume=True)
        assert answer.endswith(f"| {ECHO} | Who?")
        # Nothing was asked twice, and a session that warms up asks nothing.
        assert len(cli.world.requests) == 5
        called = [one["function"]["name"] for one in calls_of(cli.world)]
        assert called == ["exec_command", "mcp__antiphon__stateful_chat"]
        assert "by MCP" in str(cli.world.requests[-1]["messages"])


@pytest.mark.parametrize("websockets", [False, True], ids=["http", "websocket"])
def test_a_patch_is_applied_by_a_model_that_has_a_custom_tool_for_it(
    tmp_path: Path, websockets: bool
) -> None:
    patch = "*** Begin Patch\n*** Add File: a.txt\n+hello\n*** End Patch"
    with codex(tmp_path, "gpt-5.5", websockets=websockets) as cli:
        assert "A a.txt" in cli.exec(f"call apply_patch {json.dumps({'input': patch})}")
        assert (cli.folder / "a.txt").read_text() == "hello\n"
        assert cli.exec("Who?", resume=True).endswith("| Who?")


def test_a_model_that_gets_its_tools_in_an_item_calls_them(tmp_path: Path) -> None:
    with codex(tmp_path, "gpt-6-sol") as cli:
        assert "42" in cli.exec('call functions__exec {"input": "text(40+2)"}')
        assert cli.exec("Who?", resume=True).endswith("| Who?")


def test_images_that_are_attached_or_looked_at(tmp_path: Path) -> None:
    picture = tmp_path / "pixel.png"
    picture.write_bytes(PIXEL)
    with codex(tmp_path) as cli:
        assert "1 images" in cli.exec("Look.", "-i", str(picture))
        looked = cli.exec(f"call view_image {json.dumps({'path': str(picture)})}", resume=True)
        assert looked.endswith("and 1 images")
        assert cli.exec("say next", resume=True) == "next"


def test_an_answer_follows_a_schema(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    }
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema))
    with codex(tmp_path) as cli:
        answer = cli.exec('say {"name": "Ada"}', "--output-schema", str(path))
        assert answer == '{"name": "Ada"}'
        assert cli.world.requests[-1]["response_format"]["json_schema"]["schema"] == schema


def calls_of(world: AgentWorld) -> list[dict[str, Any]]:
    """The tool calls that the upstream's newest request shows."""
    messages = world.requests[-1]["messages"]
    return [call for message in messages for call in message.get("tool_calls") or ()]
