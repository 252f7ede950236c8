"""The AI SDK's OpenAI providers and @openai/agents, as they come from npm."""

from __future__ import annotations

import pytest

from support.client_programs import WEATHER, Outcomes, agent_world

pytestmark = pytest.mark.clients

ADA = {"name": "Ada", "born": 1815}
APIS = ("responses", "chat", "compatible")


@pytest.fixture(scope="module")
def ai_sdk(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    with agent_world(tmp_path_factory.mktemp("ai_sdk")) as world:
        return world.node(
            "ai_sdk.mjs",
            *("turns", "streamed", "structured", "previous", "conversation", "providerTools"),
            "images",
        )


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    with agent_world(tmp_path_factory.mktemp("agents")) as world:
        return world.node(
            "openai_agents.mjs",
            *("previous", "session", "streamed", "structured", "handoff", "approval", "chat"),
        )


@pytest.mark.parametrize("api", APIS)
def test_ai_sdk_messages(ai_sdk: Outcomes, api: str) -> None:
    answer = ai_sdk["turns"][api]
    assert answer.startswith("You said: I am Alice. |")
    assert answer.endswith("| Who?")
    assert ai_sdk["streamed"][api] == [True, WEATHER, 3]
    assert ai_sdk["structured"][api] == [ADA, ADA]
    assert ai_sdk["images"][api] == "1 images"


def test_ai_sdk_previous_response(ai_sdk: Outcomes) -> None:
    assert ai_sdk["previous"] == "You said: I am Bob. | Who?"


def test_ai_sdk_conversation_with_outputs_that_are_sent_again(ai_sdk: Outcomes) -> None:
    called, remembered = ai_sdk["conversation"]
    assert called == WEATHER
    assert remembered.endswith("| Who?")


def test_ai_sdk_custom_tool_beside_a_web_search(ai_sdk: Outcomes) -> None:
    assert ai_sdk["providerTools"] == [["patch", "*** a"]]


def test_agents_remember(agents: Outcomes) -> None:
    assert agents["previous"] == "You said: I am Alice. | Who?"
    called, remembered = agents["session"]
    assert called == WEATHER
    assert remembered.startswith("You said: I am Bob. |")


def test_agents_tools(agents: Outcomes) -> None:
    assert agents["streamed"] == [WEATHER, WEATHER]
    assert agents["chat"] == WEATHER
    assert agents["approval"] == "paid 3"


def test_agents_structured_output_and_handoff(agents: Outcomes) -> None:
    assert agents["structured"] == ADA
    assert agents["handoff"] == "Other"
