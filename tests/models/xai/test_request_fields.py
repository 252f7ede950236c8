"""Further fields of a request to xAI's gRPC API."""

from __future__ import annotations

from xai_sdk.proto import chat_pb2  # type: ignore[import-untyped]

from antiphon.core.turns import Options
from antiphon.models.xai.request_encoding import XaiRequestEncoder, add_extra_fields
from support.xai_upstream import make_call


def test_further_fields_are_set_where_the_api_has_them() -> None:
    request = chat_pb2.GetCompletionsRequest(temperature=0.5, use_encrypted_content=True)
    extra = {
        "max_turns": 3,
        "search_parameters": {"mode": "ON_SEARCH_MODE"},
        "temperature": 0.9,
        "top_k": 5,
        "use_encrypted_content": False,
        "store_messages": True,
        "agent_count": {"a": 1},
        "user": None,
        "messages": [],
    }
    unpassed = add_extra_fields(request, extra)
    assert request.max_turns == 3
    assert request.search_parameters.mode
    assert request.temperature == 0.5
    assert (request.use_encrypted_content, request.store_messages) == (True, False)
    assert len(request.messages) == 0
    assert unpassed == ["top_k", "use_encrypted_content", "store_messages", "agent_count"]


def test_a_call_with_further_fields_is_a_request_with_them() -> None:
    call = make_call(options=Options(extra={"max_turns": 3}))
    encoded = XaiRequestEncoder().encode(call, "grok-4", "o")
    assert chat_pb2.GetCompletionsRequest.FromString(encoded).max_turns == 3
