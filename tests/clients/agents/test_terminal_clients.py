"""Programs for the terminal, unmodified: llm from PyPI and opencode from npm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.client_programs import AgentWorld, agent_world, installed

pytestmark = pytest.mark.clients

#: The file that llm reads models from, as docs/clients.md has it.
LLM_MODELS = """
- model_id: antiphon
  model_name: m
  api_base: {url}
  vision: true
  supports_schema: true
  supports_tools: true
- model_id: antiphon-responses
  model_name: m
  api_base: {url}
  responses: true
  vision: true
  supports_schema: true
  supports_tools: true
"""
TOOL = 'def get_weather(city: str) -> str:\n    return f"snow in {city}"\n'
ROUNDS = 'call get_weather {"city": "Oslo"}\ncall get_weather {"city": "Rome"}'
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02"
    "0000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AgentWorld]:
    with agent_world(tmp_path) as world:
        yield world


@pytest.mark.parametrize("model", ["antiphon", "antiphon-responses"])
def test_llm(world: AgentWorld, model: str) -> None:
    folder = world.home / "llm"
    folder.mkdir()
    models = LLM_MODELS.format(url=world.server.base_url)
    (folder / "extra-openai-models.yaml").write_text(models)
    (world.home / "pixel.png").write_bytes(PIXEL)
    program = str(installed("kernel") / "bin" / "llm")

    def llm(*arguments: str) -> str:
        done = world.run([program, *arguments], LLM_USER_PATH=str(folder))
        return done.stdout.strip()

    assert llm("-m", model, "I am Alice.") == "You said: I am Alice."
    assert llm("-c", "Who?") == "You said: I am Alice. | Who?"
    assert llm("-m", model, "--functions", TOOL, ROUNDS) == "snow in Oslo | snow in Rome"
    answer = llm("-m", model, "--no-stream", "--schema", "name, born int", 'say {"name":"Ada"}')
    assert json.loads(answer) == {"name": "Ada"}
    assert llm("-m", model, "Look.", "-a", "pixel.png") == "1 images"


@pytest.mark.parametrize("package", ["@ai-sdk/openai", "@ai-sdk/openai-compatible"])
def test_opencode(world: AgentWorld, package: str) -> None:
    program = installed("node") / "node_modules" / "opencode-linux-x64" / "bin" / "opencode"
    if not program.is_file():
        pytest.skip("opencode has no program for this machine")
    folder = world.home / "project"
    folder.mkdir()
    (folder / "note.txt").write_text("hello from a file")
    provider = {
        "npm": package,
        "name": "antiphon",
        "options": {"baseURL": world.server.base_url, "apiKey": "unused"},
        "models": {"m": {"name": "m"}},
    }
    config = {"provider": {"antiphon": provider}, "model": "antiphon/m"}
    (folder / "opencode.json").write_text(json.dumps(config))

    def opencode(*arguments: str) -> str:
        done = world.run(
            [str(program), "run", *arguments],
            cwd=folder,
            OPENCODE_DISABLE_AUTOUPDATE="1",
            OPENCODE_DISABLE_MODELS_FETCH="1",
        )
        return done.stdout

    # It puts an argument with spaces into quotes.
    path = json.dumps({"filePath": str(folder / "note.txt")}, separators=(",", ":"))
    assert "hello from a file" in opencode("call", "read", path)
    assert "| Who?" in opencode("-c", "Who?")
