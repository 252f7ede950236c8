"""``/v1/responses/compact`` and ``/v1/responses/input_tokens``: asked, and nothing stored."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI
from websockets.sync.client import connect

from antiphon.errors import ModelError, UpstreamRateLimitError
from antiphon.models.scripted import ScriptedModel, call, calls, fail
from antiphon.turn.protocols import ModelInfo
from support.http_server import TIMEOUT, ThreadServer, serving

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


# Compaction at a threshold, in the turn that exceeds it.

LONG = "word " * 200
AT_200: dict[str, Any] = {"context_management": [{"type": "compaction", "compact_threshold": 200}]}


def kinds(body: dict[str, Any]) -> list[str]:
    return [item["type"] for item in body["output"]]


@pytest.mark.parametrize("stream", [False, True])
def test_a_context_over_the_threshold_is_compacted_in_the_turn_itself(stream: bool) -> None:
    model = ScriptedModel(["Noted.", "They said words.", "Yes.", "Twice yes."])
    with serving(model) as server:
        first = server.respond(LONG, **AT_200).json
        assert kinds(first) == ["message"], "there is nothing before it"
        fields = {"previous_response_id": first["id"], "instructions": "Be brief.", **AT_200}
        answer = server.respond("Well?", stream=stream, **fields)
        body = answer.events[-1]["response"] if stream else answer.json
        assert kinds(body) == ["compaction", "message"]
        item = body["output"][0]
        assert set(item) == {"id", "type", "encrypted_content"}
        assert item["encrypted_content"] == "They said words."
        assert item["id"].startswith("cmp_")
        assert body["previous_response_id"] == first["id"]
        # Both calls were paid.
        assert body["usage"]["output_tokens"] == 3 + 1
        assert [one["role"] for one in model.context()] == ["system", "system", "user"]
        assert "They said words." in json.dumps(model.context())
        assert server.get(f"/v1/responses/{body['id']}").json == body
        shown = server.get(f"/v1/responses/{body['id']}/context").json["messages"]
        assert shown == model.context()
        if stream:
            again = server.get(f"/v1/responses/{body['id']}?stream=true")
            assert again.events == answer.events
            added = [one for one in answer.events if one["type"] == "response.output_item.added"]
            assert [one["item"]["type"] for one in added] == ["compaction", "message"]
        # The next turn continues behind the summary.
        server.respond("And?", previous_response_id=body["id"], **AT_200)
        told = json.dumps(model.context())
        assert "They said words." in told
        assert "word word" not in told
        assert "Well?" in told


def test_the_next_compaction_covers_the_one_before() -> None:
    model = ScriptedModel(["Noted.", "Sum one.", "Yes.", "Sum two.", "Right.", "Fine."])
    with serving(model) as server:
        response_id = None
        for text in (LONG, LONG, "Third."):
            body = server.respond(text, previous_response_id=response_id, **AT_200).json
            response_id = body["id"]
        assert kinds(body) == ["compaction", "message"]
        summed = json.dumps(model.calls[3].messages.decode())
        assert "Sum one." in summed
        server.respond("Fourth.", previous_response_id=response_id)
        told = json.dumps(model.context())
        assert "Sum two." in told
        assert "Sum one." not in told
        assert "word word" not in told


def test_what_is_erased_does_not_live_on_in_a_compaction() -> None:
    model = ScriptedModel(["Noted.", "A secret.", "Yes.", "No."])
    with serving(model) as server:
        first = server.respond("The secret. " + LONG, **AT_200).json
        second = server.respond("Well?", previous_response_id=first["id"], **AT_200).json
        assert kinds(second) == ["compaction", "message"]
        assert server.request("DELETE", f"/v1/responses/{first['id']}").status == 200
        shown = server.get(f"/v1/responses/{second['id']}").json
        assert "secret" not in json.dumps(shown["output"])
        server.respond("And?", previous_response_id=second["id"])
        told = json.dumps(model.context())
        assert "secret" not in told
        assert "Well?" in told


def test_conversations_and_unstored_continuations_are_compacted() -> None:
    model = ScriptedModel(["Noted.", "Sum.", "Yes.", "Sum.", "Yes."])
    with serving(model) as server:
        name = server.post("/v1/conversations").json["id"]
        first = server.respond(LONG, conversation=name).json
        second = server.respond("Well?", conversation=name, **AT_200).json
        assert kinds(second) == ["compaction", "message"]
        items = server.get(f"/v1/conversations/{name}/items?order=asc").json["data"]
        assert [one["type"] for one in items] == [*["message"] * 3, "compaction", "message"]
        unstored = server.respond(
            "Well?", previous_response_id=first["id"], store=False, **AT_200
        ).json
        assert kinds(unstored) == ["compaction", "message"]
        assert server.get(f"/v1/responses/{unstored['id']}").status == 404


def test_calls_stay_with_their_outputs_when_a_context_is_compacted() -> None:
    model = ScriptedModel([calls(call("f", {}, call_id="c1")), "Done.", "Sum.", "Yes."])
    tools = [{"type": "function", "name": "f", "parameters": {}}]
    with serving(model) as server:
        first = server.respond(LONG, tools=tools).json
        output = {"type": "function_call_output", "call_id": "c1", "output": "It is 3."}
        second = server.respond(
            input=[output], tools=tools, previous_response_id=first["id"], **AT_200
        ).json
        assert kinds(second) == ["message"], "its own call waits for the output"
        assert [one["role"] for one in model.context()] == ["user", "assistant", "tool"]
        third = server.respond("So?", previous_response_id=second["id"], **AT_200).json
        assert kinds(third) == ["compaction", "message"]


def test_without_a_number_the_models_context_window_decides() -> None:
    without = {"context_management": [{"type": "compaction", "compact_threshold": None}]}
    for window, expected in ((250, ["compaction", "message"]), (None, ["message"])):
        info = ModelInfo("scripted", context_window=window)
        with serving(ScriptedModel(["Noted.", "Sum.", "Yes."], info=info)) as server:
            first = server.respond(LONG).json["id"]
            body = server.respond("Well?", previous_response_id=first, **without).json
            assert kinds(body) == expected


def test_a_compaction_that_fails_ends_its_turn() -> None:
    model = ScriptedModel(["Noted.", fail(ModelError("It broke.")), "Sum.", "Yes."])
    with serving(model) as server:
        first = server.respond(LONG).json["id"]
        fields = {"previous_response_id": first, **AT_200}
        answer = server.respond("Well?", **fields)
        assert (answer.status, answer.error["message"]) == (502, "It broke.")
        assert kinds(server.respond("Well?", **fields).json) == ["compaction", "message"]


def test_turns_of_a_websocket_are_compacted() -> None:
    model = ScriptedModel(["Noted.", "They said words.", "Yes.", "Fine."])
    with (
        serving(model) as server,
        connect(f"ws://127.0.0.1:{server.port}/v1/responses", open_timeout=TIMEOUT) as client,
    ):

        def turn(text: str, previous: str | None = None) -> dict[str, Any]:
            fields = {"input": text, "store": False, "previous_response_id": previous, **AT_200}
            client.send(json.dumps({"type": "response.create", **fields}))
            while (event := json.loads(client.recv(TIMEOUT)))["type"] != "response.completed":
                assert event["type"] != "error"
            body: dict[str, Any] = event["response"]
            return body

        second = turn("Well?", turn(LONG)["id"])
        assert kinds(second) == ["compaction", "message"]
        assert second["output"][0]["encrypted_content"] == "They said words."
        assert kinds(turn("And?", second["id"])) == ["message"]
        told = json.dumps(model.context())
        assert "They said words." in told
        assert "word word" not in told
        assert "Well?" in told


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("compaction", ""),
        (1, ""),
        ([1], "[0]"),
        ([{}], "[0].type"),
        ([{"type": "forget"}], "[0].type"),
        ([{"type": 1}], "[0].type"),
        ([{"type": "compaction", "compact_threshold": 0}], "[0].compact_threshold"),
        ([{"type": "compaction", "compact_threshold": -5}], "[0].compact_threshold"),
        ([{"type": "compaction", "compact_threshold": 1.5}], "[0].compact_threshold"),
        ([{"type": "compaction", "compact_threshold": "many"}], "[0].compact_threshold"),
        ([{"type": "compaction"}, {"type": "compaction", "compact_threshold": []}],
         "[1].compact_threshold"),
    ],
)  # fmt: skip
def test_context_management_that_means_nothing_is_refused(
    server: ThreadServer, value: object, field: str
) -> None:
    answer = server.respond("Hi", context_management=value)
    assert (answer.status, answer.error["param"]) == (400, f"context_management{field}")
    assert answer.error["type"] == "invalid_request_error"
    assert server.stored_count() == 0


@pytest.mark.parametrize(
    "value",
    [None, [], [{"type": "compaction"}], [{"type": "compaction", "compact_threshold": "5000"}]],
)
def test_context_management_that_asks_for_nothing_yet(server: ThreadServer, value: object) -> None:
    assert kinds(server.respond("Hi", context_management=value).json) == ["message"]
