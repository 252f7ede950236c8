"""langchain-openai and LangGraph, unmodified, with a checkpointer and without."""

from __future__ import annotations

import pytest

from support.client_programs import WEATHER, AgentWorld, Outcomes

pytestmark = pytest.mark.clients

PROGRAM = "langgraph_program.py"


@pytest.fixture(scope="module")
def outcomes(world: AgentWorld) -> Outcomes:
    return world.python(
        "agents",
        PROGRAM,
        *("checkpointer", "previous_response", "streamed", "structured", "structured_agent"),
        *("images", "custom_tools", "chat"),
    )


def test_a_thread_goes_on_in_another_process(outcomes: Outcomes, world: AgentWorld) -> None:
    assert outcomes["checkpointer"] == ["You said: I am Alice.", WEATHER]
    (again,) = world.python("agents", PROGRAM, "checkpointer_again")["checkpointer_again"]
    assert again.startswith("You said: I am Alice. |")
    assert again.endswith("| Who?")


def test_a_previous_response_is_remembered(outcomes: Outcomes) -> None:
    called, remembered = outcomes["previous_response"]
    assert called == WEATHER
    assert remembered.startswith("You said: I am Bob. |")


def test_a_streamed_run_comes_in_pieces(outcomes: Outcomes) -> None:
    assert outcomes["streamed"] == [True, WEATHER]


def test_structured_output_by_every_method_over_both_apis(outcomes: Outcomes) -> None:
    assert outcomes["structured"] == [{"name": "Ada", "born": 1815}] * 6
    assert outcomes["structured_agent"] == 1815


def test_images_in_both_shapes(outcomes: Outcomes) -> None:
    assert outcomes["images"] == ["2 images", "2 images"]


def test_a_custom_tool_beside_a_web_search(outcomes: Outcomes) -> None:
    assert outcomes["custom_tools"] == "patched *** a"


def test_chat_completions_with_logprobs(outcomes: Outcomes, world: AgentWorld) -> None:
    assert outcomes["chat"] == [WEATHER, "You said: Hi"]
    assert any(one.get("top_logprobs") == 2 for one in world.requests)
