"""The reported answers over gRPC, by the official SDK: they mean there what they mean over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import grpc
import pytest
from xai_sdk.chat import tool, user  # type: ignore[import-untyped]

from antiphon.core.function_schemas import to_json_object
from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.openai.responses import ResponsesModel
from antiphon.models.retry import RetryPolicy
from antiphon.turn.protocols import ModelInfo
from support.answer_tables import Meaning, Meant
from support.grpc_client import grpc_serving
from support.misbehaving_upstream import MisbehavingUpstream
from support.reports import CHAT, RESPONSES
from support.scenario import UpstreamThread
from support.upstream_answers import TOOLS

#: What each meaning is as a reason to stop.
REASONS: Final[dict[Meaning, tuple[str, ...]]] = {
    "completed": ("REASON_STOP", "REASON_TOOL_CALLS"),
    "length": ("REASON_MAX_LEN",),
}
OFFERED: Final = [tool(one["name"], "", one["parameters"]) for one in TOOLS]


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Any, MisbehavingUpstream]]:
    """A client of a server with a model for each dialect, and their upstream."""
    with UpstreamThread() as upstream:
        url, quick = upstream.upstream.base_url, RetryPolicy(base=0.0)
        models = {
            "chat": ChatCompletionsModel(ModelInfo("chat"), url, retry=quick, read_timeout=10.0),
            "responses": ResponsesModel(
                ModelInfo("responses"), url, retry=quick, read_timeout=10.0
            ),
        }
        with grpc_serving(models) as server:
            with server.client() as client:
                yield client, upstream.upstream
            for model in models.values():
                server.http.run(model.close())


def ask(client: Any, model: str, meant: Meant, *, stream: bool) -> list[Any]:
    """What is not as it was meant."""
    offered = {} if meant.calls is None else {"tools": OFFERED}
    chat = client.chat.create(model, messages=[user("Hi")], **offered)
    try:
        answer = [one for one, _ in chat.stream()][-1] if stream else chat.sample()
    except grpc.RpcError as error:
        details = error.details() or ""
        return [] if meant.meaning == "failed" and meant.error in details else [details]
    made = [(one.function.name, one.function.arguments) for one in answer.tool_calls]
    # The official SDK reads all arguments as JSON, and fails where they are none.
    called = meant.calls and [(name, to_json_object(text)) for name, text in meant.calls]
    found = [] if answer.finish_reason in REASONS.get(meant.meaning, ()) else [answer.finish_reason]
    for expected, given in (
        (meant.text, answer.content),
        (meant.reasoning, answer.reasoning_content),
        (called, made),
    ):
        if expected is not None and expected != given:
            found.append((expected, given))
    return found


def check(world: tuple[Any, MisbehavingUpstream], model: str, table: Mapping[str, Meant]) -> None:
    client, upstream = world
    wrong = []
    for name, meant in table.items():
        upstream.default_answer = lambda _, it=meant.behaviour: it  # type: ignore[misc]
        for stream in (True, False):
            wrong += [(name, stream, one) for one in ask(client, model, meant, stream=stream)]
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("name", CHAT)
def test_chat_completions_mean_the_same(world: tuple[Any, MisbehavingUpstream], name: str) -> None:
    check(world, "chat", CHAT[name])


@pytest.mark.parametrize("name", RESPONSES)
def test_responses_mean_the_same(world: tuple[Any, MisbehavingUpstream], name: str) -> None:
    check(world, "responses", RESPONSES[name])
