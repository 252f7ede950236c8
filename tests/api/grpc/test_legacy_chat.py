"""What the first Chat SDK says over gRPC: its own code's way of saying it, from its page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from antiphon.models.scripted import ScriptedModel, hang, say
from antiphon.protos.legacy_chat import (
    ASSISTANT,
    HUMAN,
    StatelessConversation,
    StatelessResponse,
)
from support.grpc_client import GrpcTestServer, grpc_serving, rpc_failure

PATH = "/prompt_ide.StatelessChat/AddResponse"


def add_response(server: GrpcTestServer, conversation: Any) -> Iterator[Any]:
    """What ``StatelessChatStub.AddResponse`` gives."""
    with grpc.insecure_channel(server.address) as channel:
        call: Any = channel.unary_stream(
            PATH,
            request_serializer=StatelessConversation.SerializeToString,
            response_deserializer=StatelessResponse.FromString,
        )
        yield from call(conversation)


def said(sender: int, message: str) -> Any:
    return StatelessResponse(sender=sender, message=message)


def test_a_conversation_is_sent_whole_each_time() -> None:
    model = ScriptedModel([say("Hello", " there"), "Bye"])
    conversation = StatelessConversation(stateless_conversation_id="abc")
    with grpc_serving(model) as server:
        for question, answer in (("Hi", "Hello there"), ("Bye", "Bye")):
            conversation.responses.append(said(HUMAN, question))
            whole = StatelessResponse(sender=ASSISTANT, message="", query="")
            for update in add_response(server, conversation):
                assert update.sender == ASSISTANT
                whole.message += update.message
                whole.query += update.query
            assert (whole.message, whole.query) == (answer, "")
            conversation.responses.append(whole)
        assert server.http.stored_count() == 0
    assert model.context() == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello there"},
        {"role": "user", "content": "Bye"},
    ]


def test_fun_mode_has_a_system_prompt_of_its_own() -> None:
    model = ScriptedModel(["Ha"])
    conversation = StatelessConversation(
        responses=[said(HUMAN, "Hi")], system_prompt_name="fun", model_name="scripted"
    )
    with grpc_serving(model, fun_prompt="Be very funny.") as server:
        assert [one.message for one in add_response(server, conversation)] == ["Ha"]
    assert model.context()[0] == {"role": "system", "content": "Be very funny."}


@pytest.mark.parametrize(
    ("conversation", "param"),
    [
        (StatelessConversation(), "input"),
        (StatelessConversation(responses=[said(0, "Hi")]), "responses[0].sender"),
        (StatelessConversation(responses=[said(HUMAN, "")]), "input"),
        (
            StatelessConversation(responses=[said(HUMAN, "Hi")], system_prompt_name="sad"),
            "system_prompt_name",
        ),
    ],
)
def test_what_cannot_be_answered(conversation: Any, param: str) -> None:
    with grpc_serving() as server:
        failed = rpc_failure(lambda: list(add_response(server, conversation)))
        assert (failed.code, failed.param) == (grpc.StatusCode.INVALID_ARGUMENT, param)


def test_hanging_up_stops_the_answer() -> None:
    model = ScriptedModel([say("One") + hang()])
    conversation = StatelessConversation(responses=[said(HUMAN, "Hi")])
    with grpc_serving(model) as server:
        stream = add_response(server, conversation)
        assert next(stream).message == "One"
        stream.close()  # type: ignore[attr-defined]
        server.http.wait(model.cancelled)
