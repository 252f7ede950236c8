"""openai-agents, unmodified: every way that it has to remember, and every kind of its tools."""

from __future__ import annotations

import pytest

from support.client_programs import WEATHER, AgentWorld, Outcomes

pytestmark = pytest.mark.clients

PROGRAM = "openai_agents_program.py"
#: What the program asks so that two rounds of tools are called.
ROUNDS = 'call get_weather {"city": "Oslo"} and call get_weather {"city": "Rome"}'


@pytest.fixture(scope="module")
def outcomes(world: AgentWorld) -> Outcomes:
    return world.python(
        "agents",
        PROGRAM,
        *("previous_response", "conversation", "session", "conversations_session"),
        *("streamed", "structured", "handoff", "agents_as_tools", "approval", "images"),
        *("custom_tool", "hosted_and_named_tools", "chat", "websocket", "mcp", "settings"),
    )


@pytest.fixture(scope="module")
def outcomes_again(outcomes: Outcomes, world: AgentWorld) -> Outcomes:
    """What a later process came to."""
    return world.python("agents", PROGRAM, "conversation_again", "session_again")


def test_a_previous_response_is_remembered(outcomes: Outcomes) -> None:
    assert outcomes["previous_response"] == ["You said: I am Alice. | Who?", WEATHER]


def test_a_conversation_goes_on_in_another_process(
    outcomes: Outcomes, outcomes_again: Outcomes
) -> None:
    assert outcomes["conversation"] == [WEATHER, f"You said: {ROUNDS} | I am Bob."]
    assert outcomes_again["conversation_again"] == f"You said: {ROUNDS} | I am Bob. | Who?"


def test_a_session_goes_on_in_another_process(outcomes: Outcomes, outcomes_again: Outcomes) -> None:
    assert outcomes["session"] == "You said: I am Carol."
    assert outcomes_again["session_again"] == ["You said: I am Carol. | Who?", WEATHER]


def test_a_session_in_a_conversation_holds_all_items(outcomes: Outcomes) -> None:
    answer, kinds = outcomes["conversations_session"]
    assert answer == WEATHER
    called = ["function_call"] * 2 + ["function_call_output"] * 2
    once = ["function_call", "function_call_output", "assistant"]
    assert kinds == ["user", "assistant", "user", *called, *once]


def test_a_compacted_session_is_remembered(world: AgentWorld) -> None:
    world.python("agents", PROGRAM, "compaction_session")["compaction_session"]
    assert "I am Erik." in str(world.requests[-1]["messages"])


def test_a_streamed_run_has_all_items(outcomes: Outcomes) -> None:
    deltas, answer, items = outcomes["streamed"]
    assert deltas == answer == WEATHER
    assert items == [
        *["tool_call_item"] * 2,
        *["tool_call_output_item"] * 2,
        *["tool_call_item", "tool_call_output_item", "message_output_item"],
    ]


def test_structured_output(outcomes: Outcomes) -> None:
    assert outcomes["structured"] == {"name": "Ada", "born": 1815}


def test_other_agents_answer(outcomes: Outcomes) -> None:
    assert outcomes["handoff"] == "Other"
    assert outcomes["agents_as_tools"] == "from the other"


def test_a_call_waits_for_approval(outcomes: Outcomes) -> None:
    assert outcomes["approval"] == "paid 3"


def test_images_in_a_question_and_from_a_tool(outcomes: Outcomes) -> None:
    asked, returned = outcomes["images"]
    assert asked == "1 images"
    assert returned.endswith("and 1 images")


def test_a_custom_tool_is_called_and_stays_in_the_history(outcomes: Outcomes) -> None:
    called, later = outcomes["custom_tool"]
    assert called == "patched *** a"
    assert later.endswith("| Well?")


@pytest.mark.parametrize("name", ["hosted_and_named_tools", "websocket"])
def test_tool_rounds(outcomes: Outcomes, name: str) -> None:
    assert outcomes[name] == WEATHER


def test_chat_completions(outcomes: Outcomes) -> None:
    assert outcomes["chat"] == [WEATHER, WEATHER]


def test_mcp_over_both_transports(outcomes: Outcomes) -> None:
    assert outcomes["mcp"] == [True, True]


def test_settings_reach_the_model(outcomes: Outcomes, world: AgentWorld) -> None:
    assert outcomes["settings"] == "well"
    assert any((one.get("temperature"), one.get("top_p")) == (0.5, 0.9) for one in world.requests)
