"""Tools that the upstream runs itself, and their items, over an upstream that has them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.scenario import (
    DONE,
    LOOKUP,
    Json,
    Scenario,
    body_of,
    chunk,
    data,
    end,
    nested,
    scenario,
    stream_of,
)

HELLO = "Hello there."
SEARCH: Json = {
    "type": "web_search_call",
    "id": "ws_67ccf18ef5fc8190b16dbee19bc54e5f087bb177ab789d5c",
    "status": "completed",
    "action": {"type": "search", "query": "weather", "sources": [{"type": "url", "url": "a"}]},
}
SOURCE: Json = {
    "type": "url_citation",
    "start_index": 0,
    "end_index": 5,
    "url": "https://a.example",
    "title": "A",
}
#: Items of hosted tools as upstreams send them.
ITEMS: dict[str, Json] = {
    "web_search_call": SEARCH,
    "x_search_call": {"type": "x_search_call", "id": "xs_1", "status": "completed", "query": "a"},
    "file_search_call": {
        "type": "file_search_call",
        "id": "fs_1",
        "status": "completed",
        "queries": ["a"],
        "results": [{"file_id": "f", "filename": "a.txt", "score": 0.5, "text": "Words."}],
    },
    "code_interpreter_call": {
        "type": "code_interpreter_call",
        "id": "ci_1",
        "status": "completed",
        "code": "1 + 1",
        "container_id": "c",
        "outputs": [{"type": "logs", "logs": "2"}],
    },
    "image_generation_call": {
        "type": "image_generation_call",
        "id": "ig_1",
        "status": "completed",
        "result": "iVBORw0KGgo=",
    },
    "mcp_call": {
        "type": "mcp_call",
        "id": "mcp_1",
        "server_label": "s",
        "name": "n",
        "arguments": "{}",
        "output": "o",
    },
    "computer_call": {
        "type": "computer_call",
        "id": "cu_1",
        "call_id": "call_1",
        "status": "completed",
        "action": {"type": "screenshot"},
    },
    "unknown": {"type": "dream_call", "id": "d_1", "a": {"b": [None, 1.5, {"c": "\x00é"}]}},
}
TOOLS: list[Json] = [
    {"type": "web_search", "search_context_size": "low", "filters": {"allowed_domains": ["a.com"]}},
    {"type": "web_search_preview"},
    {"type": "x_search", "allowed_x_handles": ["a"]},
    {"type": "code_execution"},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "file_search", "vector_store_ids": ["vs_1"]},
    {"type": "image_generation", "quality": "low"},
    {"type": "local_shell"},
    {"type": "tool_of_tomorrow", "x": [1, {"y": None}]},
]


def message(text: str = HELLO, **fields: Any) -> Json:
    part = {"type": "output_text", "text": text, "annotations": [SOURCE]}
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": [part], **fields}


def whole(*items: Json) -> Any:
    return body_of({"status": "completed", "output": list(items)})


def streamed(*items: Json) -> Any:
    events = []
    for index, item in enumerate(items):
        place = {"output_index": index, "item": item}
        begun = {**place, "item": {**item, "status": "in_progress"}}
        events += [data({"type": "response.output_item.added", **begun})]
        events += [data({"type": f"response.{item['type']}.searching", "item_id": item["id"]})]
        events += [data({"type": "response.output_item.done", **place})]
    return stream_of(*events, data({"type": "response.completed", "response": {"output": items}}))


def bare(item: Json) -> Json:
    """An item without the ids, which are ours."""
    return {name: value for name, value in item.items() if name != "id"}


@pytest.fixture(name="world")
def responses(responses_world: Scenario) -> Scenario:
    return responses_world


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ITEMS)
def test_items_are_shown_kept_and_sent_back(world: Scenario, name: str, stream: bool) -> None:
    item = ITEMS[name]
    world.upstream_sends((streamed if stream else whole)(item, message()))
    first = world.respond(stream=stream, tools=TOOLS[:1]).expect("completed", HELLO)
    shown = first.body["output"][0]
    assert bare(shown) == bare(item)
    assert first.body["output"][1]["content"][0]["annotations"] == [SOURCE]
    if stream:
        done = [one["item"] for one in first.events if one["type"] == "response.output_item.done"]
        assert done[0] == shown
        added = [one["item"] for one in first.events if one["type"] == "response.output_item.added"]
        assert added[0]["id"] == shown["id"]
    world.upstream_sends(whole(message("Again.")))
    world.respond(stream=False, previous_response_id=first.body["id"]).expect("completed", "Again.")
    assert item in world.requests[-1]["input"]
    if name == "mcp_call":
        # From a client it is a call of a server that is reached from here.
        return
    # A client that keeps everything itself sends it back.
    world.upstream_sends(whole(message("Once more.")))
    history = [{"role": "user", "content": "Hi"}, *first.body["output"]]
    history.append({"role": "user", "content": "And?"})
    world.respond(history, stream=False, store=False).expect("completed", "Once more.")
    assert [bare(one) for one in world.requests[-1]["input"] if one["type"] == item["type"]] == [
        bare(item)
    ]


def test_items_keep_their_places(world: Scenario) -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    items = [thought, SEARCH, message("One."), ITEMS["file_search_call"], message("Two.")]
    items += [ITEMS["code_interpreter_call"]]
    world.upstream_sends(whole(*items))
    first = world.respond(stream=False).expect("completed", "One.Two.")
    world.upstream_sends(whole(message()))
    world.respond(stream=False, previous_response_id=first.body["id"]).expect("completed")
    sent = [one["type"] for one in world.requests[-1]["input"]]
    assert sent == ["message", *(one["type"] for one in items), "message"]


def test_items_stand_beside_calls(world: Scenario) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "lookup", "arguments": '{"c":1}'}
    world.upstream_sends(whole(SEARCH, call, ITEMS["file_search_call"]))
    first = world.respond(stream=False, tools=[LOOKUP, *TOOLS]).expect(
        "completed", "", calls=[("lookup", '{"c":1}')]
    )
    world.upstream_sends(whole(ITEMS["image_generation_call"]))
    output = [{"type": "function_call_output", "call_id": "c1", "output": "x"}]
    second = world.respond(output, stream=False, previous_response_id=first.body["id"])
    world.upstream_sends(whole(message()))
    world.respond(stream=False, previous_response_id=second.body["id"]).expect("completed", HELLO)
    sent = [one["type"] for one in world.requests[-1]["input"]]
    assert sorted(sent) == sorted(
        [
            *("message", "web_search_call", "function_call", "file_search_call"),
            *("function_call_output", "image_generation_call", "message"),
        ]
    )
    assert sent.index("web_search_call") < sent.index("function_call")
    assert sent.index("function_call") < sent.index("function_call_output")
    assert sent[-2:] == ["image_generation_call", "message"]


def test_an_answer_that_is_an_item_alone(world: Scenario) -> None:
    for stream in (False, True):
        answer = (streamed if stream else whole)(ITEMS["image_generation_call"])
        world.upstream_sends(answer)
        first = world.respond(stream=stream).expect("completed", "")
        assert first.body["output"][0]["result"] == "iVBORw0KGgo="
        world.upstream_sends(whole(message()))
        world.respond(stream=False, previous_response_id=first.body["id"]).expect("completed")
        types = [one["type"] for one in world.requests[-1]["input"]]
        assert types == ["message", "image_generation_call", "message"]


def test_items_that_are_nested_deeply_fail_no_turn(world: Scenario) -> None:
    deep = b'{"type":"dream_call","id":"d","x":' + b"[" * 300 + b"]" * 300 + b"}"
    words = json.dumps(message()).encode()
    body = b'{"status":"completed","output":[' + deep + b"," + words + b"]}"
    world.upstream_sends(body_of(body))
    world.respond(stream=False).expect("completed", HELLO)


def test_tools_are_passed_on_as_they_are(world: Scenario) -> None:
    world.upstream_sends(whole(message()))
    include = ["web_search_call.action.sources", "file_search_call.results"]
    outcome = world.respond(
        stream=False, tools=[*TOOLS, LOOKUP], include=include, max_tool_calls=3
    ).expect("completed", HELLO)
    sent = world.requests[-1]
    assert [one for one in sent["tools"] if one["type"] != "function"] == TOOLS
    assert [one["name"] for one in sent["tools"] if one["type"] == "function"] == ["lookup"]
    assert sent["include"] == ["reasoning.encrypted_content", *include]
    assert sent["max_tool_calls"] == 3
    assert [one for one in outcome.body["tools"] if one["type"] != "function"] == TOOLS


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ({"type": "web_search"}, {"type": "web_search"}),
        ("required", "required"),
        ("none", "none"),
        ({"type": "function", "name": "lookup"}, {"type": "function", "name": "lookup"}),
    ],
)
def test_choices_of_tools(world: Scenario, choice: Any, sent: Any) -> None:
    world.upstream_sends(whole(message()))
    tools = [TOOLS[0], LOOKUP]
    world.respond(stream=False, tools=tools, tool_choice=choice).expect("completed", HELLO)
    assert world.requests[-1]["tool_choice"] == sent


def test_only_some_tools_may_be_called(world: Scenario) -> None:
    function = {"type": "function", "name": "lookup"}
    for allowed, left, sent in (
        ({"type": "web_search"}, ["web_search"], None),
        (
            function,
            ["function", "web_search"],
            {"type": "allowed_tools", "mode": "auto", "tools": [function]},
        ),
    ):
        world.upstream_sends(whole(message()))
        choice = {"type": "allowed_tools", "mode": "auto", "tools": [allowed]}
        world.respond(stream=False, tools=[TOOLS[0], LOOKUP], tool_choice=choice)
        assert [one["type"] for one in world.requests[-1]["tools"]] == left
        assert world.requests[-1].get("tool_choice") == sent


# ---- custom tools

PATCH: Json = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Patches.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: A"},
}
CUSTOM_CALL: Json = {
    "type": "custom_tool_call",
    "id": "ctc_1",
    "call_id": "call_7",
    "name": "apply_patch",
    "input": '*** Begin "Patch"\n',
}


def custom_stream(*events: Json) -> Any:
    begun = {**CUSTOM_CALL, "input": ""}
    return stream_of(
        data({"type": "response.output_item.added", "output_index": 0, "item": begun}),
        *(data({"output_index": 0, "item_id": "ctc_1", **one}) for one in events),
        data({"type": "response.completed", "response": {"output": [CUSTOM_CALL]}}),
    )


_INPUT = "response.custom_tool_call_input"


@pytest.mark.parametrize(
    "answer",
    [
        whole(CUSTOM_CALL),
        custom_stream(),
        custom_stream(
            {"type": f"{_INPUT}.delta", "delta": "*** Begin "},
            {"type": f"{_INPUT}.delta", "delta": '"Patch"\n'},
        ),
        custom_stream({"type": f"{_INPUT}.done", "input": CUSTOM_CALL["input"]}),
        custom_stream({"type": "response.output_item.done", "item": CUSTOM_CALL}),
    ],
)
def test_custom_tools_are_custom_upstream(world: Scenario, answer: Any) -> None:
    stream = b"chat.completion" not in answer[0] and b"event-stream" in answer[0]
    world.upstream_sends(answer)
    first = world.respond(stream=stream, tools=[PATCH, LOOKUP]).expect("completed")
    assert world.requests[-1]["tools"][0] == PATCH
    call = first.body["output"][0]
    assert (call["type"], call["call_id"]) == ("custom_tool_call", "call_7")
    assert (call["name"], call["input"]) == ("apply_patch", CUSTOM_CALL["input"])
    world.upstream_sends(whole(message()))
    output = [{"type": "custom_tool_call_output", "call_id": "call_7", "output": "Done."}]
    world.respond(
        output, stream=False, tools=[PATCH], previous_response_id=first.body["id"]
    ).expect("completed", HELLO)
    sent = world.requests[-1]["input"]
    assert [bare(one) for one in sent[1:]] == [bare(CUSTOM_CALL), output[0]]


# ---- upstreams that have no such tools


def test_chat_completions_are_sent_the_other_tools() -> None:
    with scenario() as world:
        answer = stream_of(chunk({"content": HELLO}), end(), DONE)
        world.upstream_sends(answer, answer)
        outcome = world.respond(tools=[*TOOLS, LOOKUP]).expect("completed", HELLO)
        assert [one["function"]["name"] for one in world.requests[-1]["tools"]] == ["lookup"]
        world.respond(tools=TOOLS, tool_choice="auto", previous_response_id=outcome.body["id"])
        assert "tools" not in world.requests[-1]
        choice = {"type": "web_search"}
        refused = world.respond(stream=False, tools=[*TOOLS, LOOKUP], tool_choice=choice)
        assert refused.error is not None
        assert (refused.http, refused.error["param"]) == (400, "tool_choice")
        assert len(world.requests) == 2


def test_items_of_hosted_tools_are_no_words_elsewhere() -> None:
    with scenario() as world:
        answer = stream_of(chunk({"content": HELLO}), end(), DONE)
        world.upstream_sends(answer, answer)
        history = [{"role": "user", "content": "Hi"}, SEARCH, {"role": "user", "content": "And?"}]
        first = world.respond(history).expect("completed", HELLO)
        world.respond(previous_response_id=first.body["id"]).expect("completed", HELLO)
        for request in world.requests:
            assert "antiphon" not in json.dumps(request)
            assert "weather" not in json.dumps(request)
        tools = [nested(LOOKUP)]
        world.upstream_sends(answer)
        world.chat(tools=tools).expect("stop", HELLO)


@pytest.mark.parametrize(
    "words",
    [
        "'type' of tool must be 'function'",
        "Unsupported tool type: {}",
        "unknown variant `{}`, expected `function`",
    ],
)
def test_an_upstream_that_has_functions_only(words: str) -> None:
    call = {**CUSTOM_CALL, "type": "function_call", "arguments": '{"input":"a"}'}

    def answered(request: Any) -> Any:
        odd = [one["type"] for one in request.json["tools"] if one["type"] != "function"]
        if odd:
            return body_of({"error": {"message": words.format(odd[0])}}, 400)
        return whole(call)

    with scenario(kind="responses") as world:
        world.upstream_answers(answered)
        tools = [LOOKUP, PATCH, *TOOLS[:2]]
        for count in (4, 5):
            outcome = world.respond(stream=False, tools=tools).expect("completed", "")
            assert outcome.body["output"][0]["type"] == "custom_tool_call"
            assert outcome.body["output"][0]["input"] == "a"
            # It is remembered.
            assert len(world.requests) == count


def test_steps_of_hosted_tools_are_streamed_and_replayed(world: Scenario) -> None:
    steps = {
        "web_search_call": ["in_progress", "searching", "completed"],
        "file_search_call": ["in_progress", "searching", "completed"],
        "image_generation_call": ["in_progress", "generating", "completed"],
        "code_interpreter_call": ["in_progress", "interpreting", "completed"],
    }
    for kind, names in steps.items():
        world.upstream_sends(streamed(ITEMS[kind], message()))
        outcome = world.respond().expect("completed", HELLO)
        (added,) = [
            one
            for one in outcome.events
            if one["type"] == "response.output_item.added" and one["item"]["type"] == kind
        ]
        prefix = f"response.{kind}."
        told = [one for one in outcome.events if one["type"].startswith(prefix)]
        assert [one["type"].removeprefix(prefix) for one in told] == names
        assert {one["item_id"] for one in told} == {added["item"]["id"]}
        path = f"/v1/responses/{outcome.body['id']}?stream=true"
        assert world.server.get(path).events == outcome.events
    failed = {**SEARCH, "status": "failed"}
    world.upstream_sends(streamed(failed, message()))
    types = [one["type"] for one in world.respond().events]
    assert "response.web_search_call.searching" in types
    assert "response.web_search_call.completed" not in types


def test_secrets_of_tools_reach_the_upstream_only(world: Scenario) -> None:
    secret = "s3cret-of-a-domain"
    tool: Json = {
        "type": "shell",
        "environment": {
            "type": "container_auto",
            "network_policy": {
                "type": "allowlist",
                "allowed_domains": ["a.com"],
                "domain_secrets": [{"domain": "a.com", "name": "K", "value": secret}],
            },
        },
        "headers": {"X-Key": secret},
        "authorization": secret,
        "max_tokens": 5,
    }
    world.upstream_sends(whole(message()), whole(message()))
    fields: Json = {"stream": False, "tools": [tool], "router": {"api_key": secret, "a": 1}}
    outcome = world.respond(**fields).expect("completed", HELLO)
    assert world.requests[-1]["tools"] == [tool]
    assert world.requests[-1]["router"] == fields["router"]
    assert outcome.answer is not None
    assert secret not in outcome.answer.body.decode()
    (shown,) = outcome.body["tools"]
    assert shown == {
        "type": "shell",
        "environment": {
            "type": "container_auto",
            "network_policy": {"type": "allowlist", "allowed_domains": ["a.com"]},
        },
        "max_tokens": 5,
    }
    again = world.server.get(f"/v1/responses/{outcome.body['id']}")
    assert secret not in again.body.decode()
