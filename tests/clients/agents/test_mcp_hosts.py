"""MCP hosts, unmodified, over stdio and over HTTP: PyPI's mcp 1.x and 2.x, fastmcp, mcp-use."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.client_programs import agent_world

pytestmark = pytest.mark.clients

PROGRAM = "mcp_host_programs.py"
#: The answer to the second turn, the number of tools, whether a resource shows the first turn,
#: and the prompts.
SEEN = ["You said: I am Alice. | Who?", 8, True, ["continue_where_we_left_off"]]


@pytest.mark.parametrize(
    ("group", "host", "seen"),
    [
        ("kernel", "mcp_1", [*SEEN, True]),
        ("agents", "mcp_2", [*SEEN, True]),
        ("agents", "fastmcp", SEEN),
    ],
)
def test_a_host_has_tools_progress_resources_and_prompts(
    tmp_path: Path, group: str, host: str, seen: list[object]
) -> None:
    with agent_world(tmp_path) as world:
        assert world.python(group, PROGRAM, host)[host] == [seen, seen]


def test_an_agent_of_mcp_use_calls_a_tool(tmp_path: Path) -> None:
    with agent_world(tmp_path) as world:
        answers = world.python("kernel", PROGRAM, "mcp_use")["mcp_use"]
        assert len(answers) == 2
        assert all('"content":"by MCP"' in answer for answer in answers)
        # It makes a tool of each resource as well.
        assert all(len(one.get("tools", ())) <= 30 for one in world.requests)
