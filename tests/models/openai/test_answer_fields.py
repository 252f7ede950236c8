"""What stands beside words and calls of an answer goes back as it came, whatever it is."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.deltas import ProviderFieldsDelta, ReasoningSummaryDelta
from antiphon.core.items import FunctionCallOutput, Message
from antiphon.core.provider_fields import ProviderFields
from antiphon.core.turns import Options
from antiphon.models.openai.answer_fields import AnswerFields
from antiphon.models.openai.chat_completions import ChatCompletionsEncoder
from antiphon.models.openai.chat_completions_stream import ChatCompletionsParser
from antiphon.turn.message_rendering import build_messages, render_turn
from antiphon.turn.turn_accumulator import TurnAccumulator
from support.model_calls import call_with_messages

Json = dict[str, Any]

MODEL = "host/m"
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=3)
#: Names that mean something in a call are not those of fields.
NAMES = st.sampled_from(["extra_content", "proof", "größe", "a b", 'quo"te', "antiphon_fields"])
BESIDE = st.dictionaries(NAMES, OBJECTS, min_size=1, max_size=3)
WORDS = st.text(min_size=1, max_size=12)


def call_fragment(arguments: str, *, first: bool) -> Json:
    if not first:
        return {"index": 0, "function": {"arguments": arguments}}
    function = {"name": "f", "arguments": arguments}
    return {"index": 0, "id": "c", "type": "function", "function": function}


def event(delta: Json, reason: str | None = None) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}).encode()


def sent_back(*deltas: Json) -> Json:
    """The assistant's message of the next request, after an answer of these deltas."""
    return sent_back_after([event(delta) for delta in deltas] + [event({}, "tool_calls")])


def sent_back_after(events: list[bytes] | bytes) -> Json:
    parser, turn = ChatCompletionsParser(MODEL), TurnAccumulator()
    turn.feed(parser.parse_body(events) if isinstance(events, bytes) else parser.feed(events))
    turn.feed(parser.finish())
    turn.close(is_complete=True)
    items = [Message("user", "Hi"), *turn.output, FunctionCallOutput("c", "42")]
    encoder = ChatCompletionsEncoder(upstream_name=None, openai=False, host="host")
    messages = build_messages([render_turn(items)])
    body = json.loads(encoder.encode(call_with_messages("m", messages, Options(), stream=True)))
    assert [one["role"] for one in body["messages"]] == ["user", "assistant", "tool"]
    return dict(body["messages"][1])


@given(BESIDE, st.lists(st.text(max_size=5), min_size=1, max_size=4), st.data())
def test_fields_beside_a_call_are_the_same_however_it_is_divided(
    beside: Json, arguments: list[str], data: st.DataObject
) -> None:
    fragments = [call_fragment(text, first=not number) for number, text in enumerate(arguments)]
    for name, value in beside.items():
        # Some servers send them with one fragment, some with each.
        for number in data.draw(st.sets(st.integers(0, len(fragments) - 1), min_size=1)):
            fragments[number][name] = value
    message = sent_back(*({"tool_calls": [one]} for one in fragments))
    (call,) = message["tool_calls"]
    assert {name: call[name] for name in call if name in beside} == beside
    assert call["id"] == "c"
    assert message.keys() == {"role", "content", "tool_calls"}


@given(st.lists(WORDS, min_size=1, max_size=5), st.sampled_from(["reasoning_content", "reasoning"]))
def test_reasoning_is_the_same_text_however_it_is_divided(pieces: list[str], name: str) -> None:
    message = sent_back(
        *({name: text} for text in pieces), {"tool_calls": [call_fragment("{}", first=True)]}
    )
    assert message[name] == "".join(pieces)


ENTRIES = st.lists(
    st.builds(
        lambda kind, text, rest: {**rest, "type": "reasoning." + kind, kind: text},
        st.sampled_from(["text", "summary"]),
        WORDS,
        st.dictionaries(st.sampled_from(["signature", "format", "id"]), WORDS, max_size=3),
    )
    | st.builds(
        lambda data, value: {"type": "reasoning.encrypted", "data": data, "more": value},
        WORDS,
        VALUES,
    ),
    min_size=1,
    max_size=4,
)


@given(ENTRIES, st.data())
def test_details_are_the_same_list_however_they_are_divided(
    entries: list[Json], data: st.DataObject
) -> None:
    entries = [{**entry, "index": index} for index, entry in enumerate(entries)]
    pieces: list[Json] = []
    for entry in entries:
        key = next((name for name in ("text", "summary") if name in entry), None)
        if key is None:
            pieces.append(entry)
            continue
        cuts = sorted(data.draw(st.sets(st.integers(1, len(entry[key])), max_size=2)))
        for start, end in zip([0, *cuts], [*cuts, len(entry[key])], strict=True):
            # All fields come with the first piece, but a signature is the last thing to come.
            is_last = end == len(entry[key])
            names = {"type", "index", *(entry if start == 0 else ())} - {"signature"}
            names |= {"signature"} if is_last and "signature" in entry else set()
            pieces.append({**{name: entry[name] for name in names}, key: entry[key][start:end]})
    call = {"tool_calls": [call_fragment("{}", first=True)]}
    assert (
        sent_back(*({"reasoning_details": [one]} for one in pieces), call)["reasoning_details"]
        == entries
    )
    together = {"reasoning_details": pieces}
    assert sent_back(together, call)["reasoning_details"] == entries


@given(ENTRIES, BESIDE)
def test_a_whole_answer_goes_back_unchanged(entries: list[Json], beside: Json) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, **beside}
    message = {
        "content": "Hm.",
        "reasoning": "So.",
        "reasoning_details": entries,
        "tool_calls": [call],
    }
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    given_back = sent_back_after(json.dumps({"choices": [choice]}).encode())
    assert given_back == {"role": "assistant", **message}


def test_what_cannot_be_kept_is_left_out_and_words_stay() -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    call = {**call_fragment("{}", first=True), "deep": deep, "none": None, "empty": {}, "no": ""}
    message = sent_back({"content": "Hm.", "extra_content": {"a": deep}}, {"tool_calls": [call]})
    assert message["content"] == "Hm."
    assert message.keys() == {"role", "content", "tool_calls"}
    assert message["tool_calls"][0].keys() == {"id", "type", "function"}


def test_details_are_shown_only_where_no_text_has_them() -> None:
    fields = AnswerFields(MODEL)
    entry = {"type": "reasoning.text", "text": "Hm."}
    details = {"reasoning_details": [entry, {"type": "reasoning.encrypted", "data": "x"}, None]}
    shown = list(fields.field_deltas(details, whole=True))
    kept = ProviderFieldsDelta(ProviderFields(MODEL, details))
    assert shown == [ReasoningSummaryDelta("Hm."), kept]
    assert fields.text_delta("reasoning", "Hm.").provider_fields == ProviderFields(
        MODEL, text_field="reasoning"
    )
    assert list(fields.field_deltas(details, whole=True)) == [kept]
