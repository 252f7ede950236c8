"""pydantic-ai, unmodified: histories, every kind of output, approval, images, search."""

from __future__ import annotations

import pytest

from support.client_programs import WEATHER, AgentWorld, Outcomes

pytestmark = pytest.mark.clients

PROGRAM = "pydantic_ai_program.py"


@pytest.fixture(scope="module")
def outcomes(world: AgentWorld) -> Outcomes:
    return world.python(
        "agents",
        PROGRAM,
        *("history", "previous_response", "unstored", "streamed", "structured"),
        *("approval", "images", "web_search", "chat"),
    )


def test_a_history_goes_on_in_another_process(outcomes: Outcomes, world: AgentWorld) -> None:
    assert outcomes["history"] == "You said: I am Alice."
    again = world.python("agents", PROGRAM, "history_again")
    assert again["history_again"] == "You said: I am Alice. | Who?"


def test_a_previous_response_is_remembered(outcomes: Outcomes) -> None:
    called, remembered = outcomes["previous_response"]
    assert called == WEATHER
    assert remembered.startswith("You said: I am Bob. |")
    assert remembered.endswith("| Who?")


@pytest.mark.parametrize("name", ["unstored", "web_search"])
def test_tool_rounds(outcomes: Outcomes, name: str) -> None:
    assert outcomes[name] == WEATHER


def test_a_streamed_run_comes_in_pieces(outcomes: Outcomes) -> None:
    assert outcomes["streamed"] == [True, WEATHER]


def test_structured_output_by_a_tool_a_schema_and_a_prompt(outcomes: Outcomes) -> None:
    assert outcomes["structured"] == [{"name": "Ada", "born": 1815}] * 3


def test_a_call_waits_for_approval(outcomes: Outcomes) -> None:
    assert outcomes["approval"] == "paid 3"


def test_images_in_a_question_and_from_a_tool(outcomes: Outcomes) -> None:
    asked, returned = outcomes["images"]
    assert asked == "1 images"
    assert returned.endswith("and 1 images")


def test_chat_completions_with_a_file_and_an_image_from_a_tool(
    outcomes: Outcomes, world: AgentWorld
) -> None:
    assert outcomes["chat"] == [WEATHER, WEATHER, "read", "1 images"]
    assert any("'type': 'file'" in str(one["messages"]) for one in world.requests)
