"""The public suites of ``llm-comply``, whole and unmodified, against the real server.

They ask for the shapes of the Open Responses specification and of OpenAI's chat completions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llm_comply  # type: ignore[import-untyped]
import pytest
from llm_comply.tests import get_tests  # type: ignore[import-untyped]

from antiphon.core.turns import Usage
from antiphon.models.scripted import (
    ScriptedModel,
    ScriptedReply,
    call,
    calls,
    report_usage,
    say,
    think,
)
from support.http_server import ThreadServer, serving

#: It checks by a class of jsonschema that newer versions have a word to say about.
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver:DeprecationWarning")

#: Models of such names are asked to reason as well.
MODEL = "gpt-5-scripted"
SPECS = Path(llm_comply.__file__).parent / "specs"
SUITES = {
    "open-responses": SPECS / "openresponses.json",
    "openai-chat": SPECS / "openai_chat.json",
}
#: What the suites take for an error and antiphon does not: a request that names no model is
#: answered by the server's own.
WITHOUT_A_MODEL = ["error-handling", "chat-error-handling"]

CASES = [
    pytest.param(suite, case.id, id=case.id)
    for suite in SUITES
    for case in get_tests(suite)
    if case.id not in WITHOUT_A_MODEL
]


def reply_to(messages: list[dict[str, Any]]) -> ScriptedReply:
    asked = str(messages[-1]["content"])
    if "weather" in asked:
        return calls(call("get_weather", {"location": "San Francisco"}))
    if "reasoning" in asked:
        return (
            think("15 * 37 = 15 * 30 + 15 * 7.") + say("555") + report_usage(Usage(20, 15, 0, 14))
        )
    return say("Hello ", "there.")


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with serving({MODEL: ScriptedModel(reply_to)}) as started:
        yield started


def outcome(server: ThreadServer, suite: str, case: str) -> llm_comply.TestResult:
    """What one case of a suite came to."""
    config = llm_comply.ComplianceConfig(server.base_url, "none", MODEL, filter_ids=[case])
    spec = llm_comply.SpecLoader(str(SUITES[suite]))
    (result,) = llm_comply.TestRunner(config, get_tests(suite), spec).run_all().results
    return result


@pytest.mark.parametrize(("suite", "case"), CASES)
def test_a_case(server: ThreadServer, suite: str, case: str) -> None:
    result = outcome(server, suite, case)
    assert result.status == llm_comply.TestStatus.PASSED, result.errors
    assert result.warnings == []


@pytest.mark.parametrize("case", WITHOUT_A_MODEL)
def test_without_a_model_the_default_one_answers(server: ThreadServer, case: str) -> None:
    suite = "openai-chat" if case.startswith("chat") else "open-responses"
    assert outcome(server, suite, case).errors == ["HTTP 200 (expected [400, 422])"]


def test_the_suites_look_closely() -> None:
    for suite, shape in (
        ("open-responses", "ResponseResource"),
        ("openai-chat", "CreateChatCompletionResponse"),
    ):
        assert llm_comply.SpecLoader(str(SUITES[suite])).validate({"id": "x"}, shape)
