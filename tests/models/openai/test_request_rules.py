"""Request rules: what each one promises, for any messages."""

from __future__ import annotations

import copy
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.models.openai.request_rules import RULES, apply_rules, fit_request, is_rule

Json = dict[str, Any]

WORDS = st.text('ab \n\u2028é\0{}"', min_size=1, max_size=6).filter(lambda it: not it.isspace())
TEXT = WORDS | st.just("")
CALL_IDS = ["a", "call:1", "x" * 66, "abcdefghi"]
PICTURE = {"type": "image_url", "image_url": {"url": "data:,picture"}}


@st.composite
def contents(draw: st.DrawFn) -> Any:
    if draw(st.booleans()):
        return draw(TEXT)
    words = st.builds(lambda text: {"type": "text", "text": text}, TEXT)
    return draw(st.lists(words | st.just(PICTURE), min_size=1, max_size=3))


@st.composite
def messages(draw: st.DrawFn) -> list[Json]:
    """Messages as antiphon writes them: every call has its output behind it."""
    out: list[Json] = []
    for kind in draw(st.lists(st.sampled_from(["user", "system", "assistant", "calls"]))):
        if kind != "calls":
            name = {"name": draw(WORDS)} if draw(st.integers(0, 3)) == 0 else {}
            content = draw(TEXT if kind == "assistant" else contents())
            out.append({"role": kind, "content": content, **name})
            continue
        ids = draw(
            st.lists(
                st.sampled_from(["a", "call:1", "x" * 66, "abcdefghi"]), unique=True, min_size=1
            )
        )
        calls = [
            {"id": one, "type": "function", "function": {"name": "f", "arguments": "{}"}}
            for one in ids
        ]
        out.append({"role": "assistant", "content": draw(TEXT), "tool_calls": calls})
        out += [{"role": "tool", "tool_call_id": one, "content": draw(contents())} for one in ids]
    return out


FORMATS = st.sampled_from(
    [
        None,
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "n", "schema": {"title": "schema words"}}},
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> Json:
    request: Json = {"model": "m", "messages": draw(messages())}
    answer_format = draw(FORMATS)
    return request if answer_format is None else {**request, "response_format": answer_format}


RULE_SETS = st.sets(st.sampled_from(sorted(RULES))) | st.just(set(RULES))


def texts(value: Any) -> list[str]:
    """Every word of messages that somebody wrote, and the names of those who wrote some."""
    if isinstance(value, list):
        return [one for it in value for one in texts(it)]
    if isinstance(value, dict):
        words = texts(value.get("content")) + texts(value.get("text"))
        return [*words, value["name"]] if words and "name" in value else words
    return [value] if isinstance(value, str) and value.strip() else []


def pictures(request: Json) -> int:
    return json.dumps(request["messages"]).count("data:,picture")


def pairs(request: Json) -> list[tuple[str, str]]:
    """What each call was answered with, and the function that was called."""
    open_calls: dict[str, str] = {}
    found: list[tuple[str, str]] = []
    for one in request["messages"]:
        for call in one.get("tool_calls") or ():
            assert call["id"] not in open_calls
            open_calls[call["id"]] = call["function"]["name"]
        if one["role"] == "tool":
            found.append((open_calls.pop(one["tool_call_id"]), "".join(texts(one["content"]))))
    assert not open_calls
    return found


@given(requests(), RULE_SETS)
def test_no_word_no_picture_and_no_call_is_lost(request: Json, rules: set[str]) -> None:
    before = copy.deepcopy(request)
    fitted = apply_rules(request, rules)
    assert request == before, "the argument stays as it is"
    sent = "\n".join(texts(fitted["messages"]))
    for word in texts(before["messages"]):
        assert word in sent
    assert pictures(fitted) == pictures(before)
    if "json_schema" in str(before.get("response_format")):
        assert "schema words" in json.dumps(fitted)
    if "no-tool-messages" in rules:
        assert pairs(fitted) == []
        return
    assert len(pairs(fitted)) == len(pairs(before))
    for (_, words), (_, wanted) in zip(pairs(fitted), pairs(before), strict=True):
        assert words.startswith(wanted)


@given(requests())
def test_a_single_system_message_is_the_first(request: Json) -> None:
    fitted = apply_rules(request, ["single-system-message"])["messages"]
    assert "system" not in [one["role"] for one in fitted[1:]]
    others = [one for one in request["messages"] if one["role"] != "system"]
    assert [one for one in fitted if one["role"] != "system"] == others


@given(requests())
def test_no_system_role_is_left(request: Json) -> None:
    fitted = apply_rules(request, ["no-system-role"])["messages"]
    assert "system" not in [one["role"] for one in fitted]


@given(requests(), st.booleans())
def test_roles_alternate_and_a_user_begins(request: Json, without_system: bool) -> None:
    rules = ["alternating-roles", "no-system-role" if without_system else "single-system-message"]
    roles = [one["role"] for one in apply_rules(request, rules)["messages"]]
    spoken = [role for role in roles if role != "system"]
    assert spoken[:1] in ([], ["user"])
    assert all(a != b or a == "tool" for a, b in itertools.pairwise(spoken))


@given(requests())
def test_an_assistant_speaks_after_tools(request: Json) -> None:
    roles = [one["role"] for one in apply_rules(request, ["assistant-after-tool"])["messages"]]
    after = {b for a, b in itertools.pairwise(roles) if a == "tool"}
    assert after <= {"assistant", "tool"}


@given(requests())
def test_ids_of_calls_have_nine_characters_and_are_unique(request: Json) -> None:
    fitted = apply_rules(request, ["nine-character-call-ids"])
    ids = [call["id"] for one in fitted["messages"] for call in one.get("tool_calls") or ()]
    assert all(re.fullmatch("[A-Za-z0-9]{9}", one) for one in ids)
    assert len(set(ids)) == len(ids)


@given(requests())
def test_plain_ids_of_calls_are_short_and_unique(request: Json) -> None:
    fitted = apply_rules(request, ["plain-call-ids"])
    ids = [call["id"] for one in fitted["messages"] for call in one.get("tool_calls") or ()]
    assert all(re.fullmatch("[A-Za-z0-9_-]{1,40}", one) for one in ids)
    assert len(set(ids)) == len(ids)


@given(requests())
def test_outputs_of_tools_are_text(request: Json) -> None:
    fitted = apply_rules(request, ["text-tool-outputs"])["messages"]
    assert all(isinstance(one["content"], str) for one in fitted if one["role"] == "tool")


@given(requests())
def test_no_message_is_empty(request: Json) -> None:
    fitted = apply_rules(request, ["text-tool-outputs", "no-empty-messages"])["messages"]
    if texts(request["messages"]) or pictures(request) or pairs(request):
        for one in fitted:
            assert one["content"] or one.get("tool_calls")
            assert not isinstance(one["content"], str) or one["content"].strip()


@given(requests())
def test_names_are_in_the_words(request: Json) -> None:
    fitted = apply_rules(request, ["no-names"])["messages"]
    assert not any("name" in one for one in fitted)


@given(requests(), RULE_SETS)
def test_the_formats_that_are_left(request: Json, rules: set[str]) -> None:
    fitted = apply_rules(request, rules).get("response_format")
    if "format-in-words" in rules:
        assert fitted is None
    elif "json-object-format" in rules and fitted is not None:
        assert fitted == {"type": "json_object"}


def test_thoughts_are_left_out() -> None:
    thinking = {"role": "assistant", "content": "Hi.", "reasoning_content": "Hm.", "reasoning": "H"}
    fitted = apply_rules({"messages": [thinking]}, ["no-thoughts"])
    assert fitted["messages"] == [{"role": "assistant", "content": "Hi."}]
    items = [{"type": "reasoning", "summary": []}, {"type": "message", "role": "user"}]
    assert apply_rules({"input": items}, ["no-old-reasoning"])["input"] == items[1:]


def test_items_of_the_responses_api_stay_items() -> None:
    items = [
        {"type": "message", "role": "user", "content": "One"},
        {"type": "function_call", "call_id": "c:1", "name": "f", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "c:1",
            "output": [
                {"type": "input_text", "text": "A chart."},
                {"type": "input_image", "image_url": "data:,x"},
            ],
        },
        {"type": "message", "role": "system", "content": "Be brief."},
    ]
    rules = ["single-system-message", "text-tool-outputs", "nine-character-call-ids"]
    system, user, call, output, picture = apply_rules({"input": items}, rules)["input"]
    assert system == items[3]
    assert user == items[0]
    assert call["call_id"] == output["call_id"] != "c:1"
    assert output["output"] == "A chart."
    assert picture == {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_image", "image_url": "data:,x"}],
    }


def test_fields_are_left_out_by_name() -> None:
    request = {
        "messages": [],
        "top_k": 1,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "strict": True,
                    "parameters": {"$schema": "x", "properties": {"$schema": {"$schema": "y"}}},
                },
            },
            {"type": "web_search"},
        ],
    }
    fitted = apply_rules(
        request, ["without-field:top_k", "without-schema-keyword:$schema", "no-strict"]
    )
    function = {"name": "f", "parameters": {"properties": {"$schema": {}}}}
    assert fitted == {
        "messages": [],
        "tools": [{"type": "function", "function": function}, {"type": "web_search"}],
    }


def test_encrypted_reasoning_is_not_requested() -> None:
    both = ["reasoning.encrypted_content", "message.output_text.logprobs"]
    rule = ["no-encrypted-reasoning"]
    assert apply_rules({"input": [], "include": both}, rule)["include"] == both[1:]
    assert apply_rules({"input": [], "include": both[:1]}, rule) == {"input": []}


def test_without_rules_the_bytes_are_the_same() -> None:
    body = b'{"messages": [ ], "n":1e5}'
    assert fit_request(body, frozenset()) is body
    assert fit_request(body, ["max-tokens"]) == b'{"messages":[],"n":100000.0}'


@pytest.mark.parametrize(
    ("name", "known"),
    [
        *((name, True) for name in RULES),
        ("without-field:top_k", True),
        ("without-field:", False),
        ("without-field", False),
        ("without-tool-type:custom", True),
        ("max-tokens:x", False),
        ("", False),
    ],
)
def test_names_of_rules(name: str, known: bool) -> None:
    assert is_rule(name) is known


def test_the_documentation_explains_every_rule() -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text("utf-8")
    table = page.split("| quirk |")[1]
    first_cells = " ".join(line.split("|")[1] for line in table.splitlines() if line[:1] == "|")
    documented = set(re.findall(r"`([a-z-]+)(?::NAME)?`", first_cells))
    assert documented == {*RULES, "without-field", "without-schema-keyword", "without-tool-type"}
