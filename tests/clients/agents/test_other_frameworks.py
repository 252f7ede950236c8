"""semantic-kernel and litellm, unmodified, each over both APIs."""

from __future__ import annotations

import pytest

from support.client_programs import WEATHER, Outcomes, agent_world

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    with agent_world(tmp_path_factory.mktemp("kernel")) as world:
        return world.python(
            "kernel",
            "semantic_kernel_program.py",
            *("responses", "responses_streamed", "chat", "chat_streamed", "structured"),
        )


@pytest.fixture(scope="module")
def litellm(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    with agent_world(tmp_path_factory.mktemp("litellm")) as world:
        return world.python(
            "kernel",
            "litellm_program.py",
            *("responses", "responses_streamed", "completion", "completion_streamed"),
            *("structured", "stored"),
        )


@pytest.mark.parametrize("name", ["responses", "chat"])
def test_semantic_kernel_remembers_and_calls_tools(kernel: Outcomes, name: str) -> None:
    _, called, remembered = kernel[name]
    # Its agent for responses sends all outputs again with each round.
    assert called == WEATHER
    assert remembered.endswith("| Who?")


@pytest.mark.parametrize("name", ["responses_streamed", "chat_streamed"])
def test_semantic_kernel_streams(kernel: Outcomes, name: str) -> None:
    assert kernel[name] == WEATHER


def test_semantic_kernel_structured_output(kernel: Outcomes) -> None:
    assert kernel["structured"] == {"name": "Ada", "born": 1815}


def test_litellm_responses(litellm: Outcomes) -> None:
    called, remembered = litellm["responses"]
    assert called == '{"city": "Oslo"} | {"city": "Rome"}'
    assert remembered.startswith("You said: I am Alice. |")
    assert litellm["responses_streamed"] == [True, "one two", "response.completed"]
    assert litellm["stored"] == ["You said: Hi", True]


def test_litellm_completion(litellm: Outcomes) -> None:
    assert litellm["completion"] == "Oslo | Rome"
    assert litellm["completion_streamed"] == "one two"
    assert litellm["structured"] == {"name": "Ada"}
