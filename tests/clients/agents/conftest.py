"""What clients with environments of their own share: a server, and what its model answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.client_programs import AgentWorld, agent_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentWorld]:
    # The session of openai-agents that compacts requires a model of the second name.
    with agent_world(tmp_path_factory.mktemp("world"), "m", "gpt-m") as world:
        yield world
