"""Compaction of histories that clients send as one input: nothing of them is a stored turn."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.context_policies import Summarize
from antiphon.core.items import Compaction, FunctionCall, FunctionCallOutput, Item, Message
from antiphon.errors import ContextLengthExceededError
from antiphon.models.scripted import ScriptedModel, fail
from antiphon.turn.compacted_input import apply_given_summary, count_items_to_replace
from antiphon.turn.exchanges import split_exchanges
from antiphon.turn.message_rendering import shown_items
from support.http_server import serving

LONG = "word " * 300
MANAGED: dict[str, Any] = {"context_management": [{"type": "compaction", "compact_threshold": 200}]}
TOOLS = [{"type": "function", "name": "f", "parameters": {}}]


def says(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def called(call_id: str, output: str) -> list[dict[str, Any]]:
    call = {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}
    return [call, {"type": "function_call_output", "call_id": call_id, "output": output}]


HISTORY = [
    says("developer", "Be brief."),
    says("user", "First."),
    says("assistant", LONG),
    says("user", "Second."),
]


def kinds(body: dict[str, Any]) -> list[str]:
    return [item["type"] for item in body["output"]]


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_an_input_over_the_threshold_is_compacted(store: bool, stream: bool) -> None:
    model = ScriptedModel(["They said words.", "Yes.", "Sure."])
    with serving(model) as server:
        answer = server.respond(input=HISTORY, store=store, stream=stream, **MANAGED)
        body = answer.events[-1]["response"] if stream else answer.json
        assert kinds(body) == ["compaction", "message"]
        assert body["usage"]["output_tokens"] == 3 + 1
        # The summary covers all of it; what is still to be answered is shown as it is.
        asked = model.calls[0].messages.decode()
        assert "First." in asked
        assert "Second." in asked
        texts = [message["content"] for message in model.context()]
        assert [texts[0], texts[2]] == ["Be brief.", "Second."]
        assert "They said words." in texts[1]
        if store:
            shown = server.get(f"/v1/responses/{body['id']}").json
            assert shown["output"] == body["output"]
            # The next turn is shown the same, and its answer.
            server.respond("And?", previous_response_id=body["id"])
            assert [message["content"] for message in model.context()][:3] == texts
            items = server.get(f"/v1/responses/{body['id']}/input_items?order=asc").json["data"]
            assert len(items) == 4, "nothing of it is gone"


@pytest.mark.parametrize("prunes", [False, True])
def test_a_history_with_its_summary_is_sent_again(prunes: bool) -> None:
    model = ScriptedModel(["They said words.", "Yes.", "Third answer.", "More words.", "Fine."])
    with serving(model) as server:
        fields: dict[str, Any] = {"store": False, **MANAGED}
        first = server.respond(input=HISTORY, **fields).json
        history = [*([] if prunes else HISTORY), *first["output"], says("user", "Third.")]
        second = server.respond(input=history, **fields).json
        assert kinds(second) == ["message"], "the summary is shorter than the threshold"
        told = json.dumps(model.context())
        assert "They said words." in told
        assert "word word" not in told
        assert ("Second." in told) == (not prunes)
        history = [*history, *second["output"], says("user", LONG), says("user", "Fourth.")]
        third = server.respond(input=history, **fields).json
        assert kinds(third) == ["compaction", "message"]
        assert "They said words." in model.calls[3].messages.decode()
        assert "They said words." not in json.dumps(model.context())


def test_of_an_agents_rounds_the_last_one_stays() -> None:
    model = ScriptedModel(["Two rounds.", "Done."])
    with serving(model) as server:
        rounds = [*called("a", LONG), *called("b", LONG), *called("c", "Third.")]
        body = server.respond(
            input=[says("user", "Go on."), *rounds], store=False, tools=TOOLS, **MANAGED
        ).json
        assert kinds(body) == ["compaction", "message"]
        assert [one["role"] for one in model.context()] == ["system", "assistant", "tool"]
        assert "Third." in json.dumps(model.context())


def test_an_input_that_is_not_a_history_is_not_compacted() -> None:
    with serving(ScriptedModel()) as server:
        for given in (LONG, [says("user", LONG)], [says("developer", LONG), says("user", "Hi")]):
            assert kinds(server.respond(input=given, store=False, **MANAGED).json) == ["message"]


def test_the_text_of_a_summary_goes_with_what_it_summarizes() -> None:
    model = ScriptedModel(["They told a secret.", "Yes.", "No."])
    with serving(model) as server:
        name = server.post("/v1/conversations").json["id"]
        turn = server.respond(input=HISTORY, conversation=name, **MANAGED).json
        items = server.get(f"/v1/conversations/{name}/items?order=asc").json["data"]
        assert "secret" in json.dumps(items)
        gone = server.request("DELETE", f"/v1/conversations/{name}/items/{items[1]['id']}")
        assert gone.status == 200
        assert "secret" not in json.dumps(server.get(f"/v1/responses/{turn['id']}").json)
        server.respond("And?", conversation=name)
        told = json.dumps(model.context())
        assert "secret" not in told
        assert "word word" in told, "what is left is shown again"


def test_an_input_that_is_too_long_to_be_compacted_at_once_loses_its_oldest_parts() -> None:
    overflow = fail(ContextLengthExceededError("Too long.", used=1000, limit=500))
    model = ScriptedModel([overflow, "Newer words."])
    with serving(model) as server:
        answer = server.post("/v1/responses/compact", model="scripted", input=HISTORY)
        assert answer.status == 200
        developer, summary = answer.json["output"]
        assert developer["role"] == "developer"
        assert developer["content"][0]["text"] == "Be brief."
        assert summary["encrypted_content"] == "Newer words."
        asked = model.calls[-1].messages.decode()
        assert "First." not in asked
        assert "Second." in asked
        # What came back is the next input as it is.
        server.respond(input=[developer, summary, says("user", "Third.")], store=False)
        assert [one["role"] for one in model.context()] == ["system", "system", "user"]


# ---- rules

ITEMS = st.one_of(
    st.sampled_from([Message("user", "u"), Message("assistant", "a"), Message("system", "s")]),
    st.just("round"),
)


def flatten(parts: list[Item | str]) -> list[Item]:
    items: list[Item] = []
    for number, part in enumerate(parts):
        if isinstance(part, str):
            items += [FunctionCall(f"c{number}", "f", "{}"), FunctionCallOutput(f"c{number}", "o")]
        else:
            items.append(part)
    return items


@given(st.lists(ITEMS, min_size=1), st.sampled_from([1, 10, 10_000]), st.booleans())
def test_what_stays_is_whole(parts: list[Item | str], limit: int, by_rounds: bool) -> None:
    items = flatten(parts)
    groups = split_exchanges(items, by_rounds=by_rounds)
    assert [item for group in groups for item in group] == items
    for group in groups:
        calls = [one.call_id for one in group if isinstance(one, FunctionCall)]
        assert calls == [one.call_id for one in group if isinstance(one, FunctionCallOutput)]
    count = count_items_to_replace(items, Summarize(max_tokens=limit, keep_turns=0), 0)
    summary = Compaction("sum", replaced_items=count)
    shown = shown_items([*items, summary])
    systems = [one for one in items[:count] if isinstance(one, Message) and one.role == "system"]
    if count:
        assert shown == [*systems, Compaction("sum"), *items[count:]]
        # A client that sends all of it again is read in the same way, or sees more.
        again = shown_items(
            apply_given_summary([*items, Compaction("sum"), Message("user", "?")], 1)
        )
        assert all(one in again for one in items[count:])
        assert again[-1] == Message("user", "?")
