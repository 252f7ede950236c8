"""litellm's proxy, unmodified, between the OpenAI client and the server, over both APIs."""

from __future__ import annotations

import pytest

from support.client_programs import Outcomes, agent_world

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    with agent_world(tmp_path_factory.mktemp("proxy")) as world:
        return world.python(
            "proxy",
            "litellm_proxy_program.py",
            *("responses", "responses_streamed", "completion", "completion_streamed"),
        )


def test_responses_remember_and_call_tools(outcomes: Outcomes) -> None:
    called, remembered = outcomes["responses"]
    assert called == '{"city": "Oslo"} | {"city": "Rome"}'
    assert remembered.startswith("You said: I am Alice. |")
    assert outcomes["responses_streamed"] == [True, "one two", "response.completed"]


def test_completions_call_tools_and_stream(outcomes: Outcomes) -> None:
    assert outcomes["completion"] == '{"city": "Oslo"} | {"city": "Rome"}'
    assert outcomes["completion_streamed"] == "one two"
