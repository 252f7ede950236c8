"""``/v1/responses/compact`` and ``/v1/responses/input_tokens``: asked, and nothing stored."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from openai import OpenAI

from antiphon.errors import ModelError, UpstreamRateLimitError
from antiphon.models.scripted import ScriptedModel, fail
from antiphon.turn.protocols import ModelInfo
from support.http_server import ThreadServer, serving

PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with serving(ScriptedModel()) as started:
        yield started


def test_a_summary_stands_for_what_it_sums_up() -> None:
    model = ScriptedModel(["Noted.", "Alice likes tea.", "You like tea."])
    with serving(model) as server:
        first = server.respond("I am Alice.").json["id"]
        answer = server.post(
            "/v1/responses/compact",
            model="scripted",
            previous_response_id=first,
            input="I like tea.",
        )
        body = answer.json
        assert set(body) == {"id", "object", "created_at", "output", "usage"}
        assert body["object"] == "response.compaction"
        assert re.fullmatch(r"cmpr_[0-9a-f]{32}", body["id"])
        (item,) = body["output"]
        assert set(item) == {"id", "type", "encrypted_content"}
        assert (item["type"], item["encrypted_content"]) == ("compaction", "Alice likes tea.")
        assert body["usage"]["output_tokens"] == 3
        shown = json.dumps(model.context())
        assert "I am Alice." in shown
        assert "I like tea." in shown
        assert server.stored_count() == 1, "it is nobody's turn"
        # What came back begins another conversation.
        server.respond(input=[item, {"role": "user", "content": "What do I like?"}])
        assert "Alice likes tea." in json.dumps(model.context())
        assert "I am Alice." not in json.dumps(model.context())


def test_a_conversation_is_summed_up_and_stays(server: ThreadServer) -> None:
    name = server.post("/v1/conversations", items=[{"role": "user", "content": "Tea."}]).json["id"]
    fields = {"model": "scripted", "conversation": name}
    assert server.post("/v1/responses/compact", **fields).status == 200
    items = server.get(f"/v1/conversations/{name}/items").json["data"]
    assert [item["type"] for item in items] == ["message"]


def test_the_official_client_counts_and_compacts(server: ThreadServer) -> None:
    with OpenAI(base_url=server.base_url, api_key="none") as client:
        summary = client.responses.compact(model="scripted", input="Hello there.")
        assert summary.output[0].type == "compaction"
        counted = client.responses.input_tokens.count(model="scripted", input="one two three")
        assert counted.input_tokens == 3


def test_tokens_are_those_that_a_turn_reports(server: ThreadServer) -> None:
    first = server.respond("one two").json["id"]
    for fields in (
        {"input": "three four"},
        {"input": "three", "instructions": "Be brief."},
        {"input": "three", "previous_response_id": first},
        {"input": [{"role": "user", "content": "three"}, {"role": "system", "content": "x y"}]},
    ):
        counted = server.post("/v1/responses/input_tokens", **fields).json
        assert counted["object"] == "response.input_tokens"
        assert (
            counted["input_tokens"]
            == (server.respond(**fields, store=False).json["usage"]["input_tokens"])
        )
    assert server.stored_count() == 1


def test_tokens_of_a_conversation_are_its_own_and_the_inputs(server: ThreadServer) -> None:
    name = server.post("/v1/conversations").json["id"]
    empty = server.post("/v1/responses/input_tokens", conversation=name)
    assert (empty.status, empty.error["code"]) == (400, "empty_input")
    server.respond("one two", conversation=name)
    alone = server.post("/v1/responses/input_tokens", conversation=name).json["input_tokens"]
    more = server.post("/v1/responses/input_tokens", conversation=name, input="one two three").json
    assert more["input_tokens"] == alone + 3


@pytest.mark.parametrize("path", ["/v1/responses/compact", "/v1/responses/input_tokens"])
@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model": "scripted"}, 400, "empty_input"),
        ({"model": "nobody's", "input": "Hi"}, 404, "model_not_found"),
        ({"model": "scripted", "input": 1}, 400, "invalid_type"),
        (
            {"model": "scripted", "input": "Hi", "previous_response_id": "resp_1"},
            400,
            "previous_response_not_found",
        ),
        (
            {"model": "scripted", "input": "Hi", "conversation": "conv_1"},
            404,
            "conversation_not_found",
        ),
        (
            {"model": "scripted", "input": [{"type": "item_reference", "id": "msg_1"}]},
            404,
            "item_not_found",
        ),
        (
            {"model": "scripted", "input": [{"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "Look"},
                {"type": "input_image", "image_url": PICTURE}]}]},
            400,
            "image_input_unsupported",
        ),
    ],
)  # fmt: skip
def test_what_a_turn_would_be_refused_for(
    path: str, fields: dict[str, object], status: int, code: str
) -> None:
    info = ModelInfo("scripted", images=False)
    with serving(ScriptedModel(info=info)) as server:
        answer = server.post(path, **fields)
        assert (answer.status, answer.error["code"]) == (status, code)
        assert server.stored_count() == 0


def test_a_summary_says_which_model_and_of_something(server: ThreadServer) -> None:
    answer = server.post("/v1/responses/compact", input="Hi")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (
        400,
        "missing_required_parameter",
        "model",
    )
    name = server.post("/v1/conversations").json["id"]
    answer = server.post("/v1/responses/compact", model="scripted", conversation=name)
    assert (answer.status, answer.error["code"]) == (400, "nothing_to_summarize")


@pytest.mark.parametrize(
    ("error", "status"),
    [(ModelError("It broke."), 502), (UpstreamRateLimitError("Slow.", retry_after=7), 429)],
)
def test_a_model_that_fails_says_so(error: ModelError, status: int) -> None:
    with serving(ScriptedModel([fail(error)])) as server:
        answer = server.post("/v1/responses/compact", model="scripted", input="Hi")
        assert (answer.status, answer.error["message"]) == (status, error.message)
        assert answer.headers.get("retry-after") == ("7" if status == 429 else None)
        assert server.stored_count() == 0
