"""What is sent upstream: strict upstreams get the messages that they take, without a word lost."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from support.scenario import DONE, end, scenario, stream_of, text, whole
from support.strict_upstreams import (
    CALL,
    FORMAT_REFUSALS,
    ID_REFUSALS,
    IMAGE,
    JSON_SCHEMA,
    OUTPUT,
    PICTURE,
    ROUND,
    SYSTEM_REFUSALS,
    Check,
    Json,
    all_words,
    answer_hello,
    developer,
    no_user_after_tool,
    part,
    said,
    strict,
    system,
    texts,
    user,
)

# ---- system messages


#: Messages in which system messages stand anywhere, and further fields.
SYSTEM_MESSAGES: dict[str, tuple[list[Json], Json]] = {
    "system-developer-beside-instructions": (
        [developer("Be kind."), user()],
        {"instructions": "Be brief."},
    ),
    "system-two-in-input": ([system("Be kind."), system("Be brief."), user()], {}),
    "system-parts": (
        [
            system(
                [{"type": "input_text", "text": "Be"}, {"type": "input_text", "text": " kind."}]
            ),
            developer([{"type": "input_text", "text": "Be brief."}]),
            user(),
        ],
        {},
    ),
    "system-developer-between": ([user("One"), said(), developer("Be kind."), user("Two")], {}),
    "system-developer-last": ([user("One"), developer("Be kind.")], {}),
    "system-developer-alone": ([developer("Be kind.")], {}),
    "three-and-instructions": (
        [system("A."), user("One"), developer("B."), said(), system("C."), user("Two")],
        {"instructions": "Be brief."},
    ),
}


def expected_words(given: list[Json], fields: Json) -> list[str]:
    return [one for one in texts([*given, {"content": fields.get("instructions", "")}]) if one]


@pytest.mark.parametrize("refusal", SYSTEM_REFUSALS)
@pytest.mark.parametrize("kind", ["chat_completions", "responses"])
def test_system_messages_reach_a_template_that_takes_one(refusal: str, kind: str) -> None:
    for name, (given, fields) in SYSTEM_MESSAGES.items():
        with scenario(kind) as world:
            world.upstream_answers(strict(SYSTEM_REFUSALS[refusal]))
            for stream in (False, True) if kind == "chat_completions" else (False,):
                outcome = world.respond(given, stream=stream, **fields)
                outcome.expect("completed", "Hello")
                words = all_words(world.requests[-1])
                missing = [one for one in expected_words(given, fields) if one not in words]
                assert missing == [], name


CHAT_SYSTEM_MESSAGES: dict[str, list[Json]] = {
    "system-two-chat": [system("Be kind."), system("Be brief."), user()],
    "two-kinds": [system("Be kind."), developer("Be brief."), user()],
    "parts": [system([{"type": "text", "text": "Be kind."}]), system("Be brief."), user()],
    "last": [user("One"), said("Two"), user("Three"), system("Be brief.")],
    "with-a-name": [{**system("Be kind."), "name": "ann"}, system("Be brief."), user()],
}


@pytest.mark.parametrize("refusal", SYSTEM_REFUSALS)
def test_system_messages_of_chat_completions_reach_it(refusal: str) -> None:
    for given in CHAT_SYSTEM_MESSAGES.values():
        with scenario() as world:
            world.upstream_answers(strict(SYSTEM_REFUSALS[refusal]))
            for stream in (False, True):
                world.chat(given, stream=stream).expect("stop", "Hello")
                words = all_words(world.requests[-1])
                assert all(one in words for one in expected_words(given, {}))


def test_system_in_later_turn() -> None:
    with scenario() as world:
        world.upstream_answers(strict(SYSTEM_REFUSALS["qwen"]))
        first = world.respond("One", instructions="Be brief.").expect("completed", "Hello")
        later = [developer("Be kind."), user("Two")]
        outcome = world.respond(later, previous_response_id=first.body["id"])
        outcome.expect("completed", "Hello")
        assert world.requests[-1]["messages"] == [
            system("Be kind."),
            user("One"),
            said("Hello"),
            user("Two"),
        ]


def test_a_rule_is_remembered_for_its_model() -> None:
    given = [user("One"), developer("Be kind.")]
    with scenario() as world:
        world.upstream_answers(strict(SYSTEM_REFUSALS["qwen"]))
        counts = []
        for _ in range(3):
            world.respond(given).expect("completed", "Hello")
            counts.append(len(world.requests))
        assert counts == [2, 3, 4]


def test_a_configured_rule_needs_no_refusal() -> None:
    with scenario(quirks=["single-system-message"]) as world:
        world.upstream_answers(strict(SYSTEM_REFUSALS["qwen"]))
        world.respond([user("One"), developer("Be kind.")]).expect("completed", "Hello")
        assert len(world.requests) == 1


def test_what_no_rule_helps_against_is_shown_as_the_upstream_says_it() -> None:
    with scenario() as world:
        world.upstream_answers(strict(lambda _: "System message must be at the beginning."))
        outcome = world.respond([user("One"), developer("Be kind.")], stream=False)
        assert (outcome.http, outcome.status) == (400, "error")
        assert "at the beginning" in (outcome.error or {})["message"]
        # Nothing was learnt of it.
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond([user("One"), developer("Be kind.")]).expect("completed", "Hello")
        assert world.requests[-1]["messages"] == [user("One"), system("Be kind.")]


# ---- the order of roles


def alternates(words: str) -> Check:
    def check(request: Json) -> str | None:
        roles = [one["role"] for one in request["messages"] if one["role"] != "system"]
        fine = roles[:1] == ["user"] and all(a != b for a, b in itertools.pairwise(roles))
        return None if fine else words

    return check


@pytest.mark.parametrize(
    "words",
    [
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "After the optional system message, conversation roles must alternate user and assistant",
        'messages: roles must alternate between "user" and "assistant", but found multiple '
        '"user" roles in a row',
        "First message must be from user and there must not be consecutive messages of one role.",
    ],
)
@pytest.mark.parametrize(
    "given",
    [
        [user("One"), user("Two")],
        [said("Before."), user("One")],
        [system("S."), said("Before."), said("And."), user("One"), user("Two")],
        [{**user("One"), "name": "ann"}, {**user("Two"), "name": "bob"}],
        [user("One"), user([{"type": "input_image", "image_url": PICTURE}])],
    ],
)
def test_roles_alternate_where_they_have_to(words: str, given: list[Json]) -> None:
    with scenario() as world:
        world.upstream_answers(strict(alternates(words)))
        world.respond(given).expect("completed", "Hello")
        sent = all_words(world.requests[-1])
        assert all(one in sent for one in texts(given))
        assert json.dumps(given).count(PICTURE) == json.dumps(world.requests[-1]).count(PICTURE)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("Unexpected role 'user' after role 'tool'", id="user-after-tool"),
        "Expected last role to be assistant after tool but got user",
        "messages with role 'tool' must be followed by a message of role 'assistant'",
        "Invalid conversation: a user message may not come directly after a tool message",
    ],
)
def test_user_after_tool(words: str) -> None:
    with scenario() as world:
        world.upstream_answers(strict(no_user_after_tool(words)))
        for stream in (True, False):
            world.respond(ROUND, stream=stream).expect("completed", "Hello")
            assert all(one in all_words(world.requests[-1]) for one in texts(ROUND))
        pictured = [user("Look."), CALL, {**OUTPUT, "output": [IMAGE]}]
        world.respond(pictured).expect("completed", "Hello")
        assert PICTURE in json.dumps(world.requests[-1])


# ---- ids of calls


@pytest.mark.parametrize("refusal", ID_REFUSALS)
@pytest.mark.parametrize("call_id", ["call_1", "functions.lookup:0", "x" * 66, "abcdefghi"])
def test_ids_of_calls(refusal: str, call_id: str) -> None:
    round_ = [{**CALL, "call_id": call_id}, {**OUTPUT, "call_id": call_id}]
    with scenario() as world:
        world.upstream_answers(strict(ID_REFUSALS[refusal]))
        given = [user("Look."), *round_, said(), user("Again."), *round_]
        world.respond(given).expect("completed", "Hello")
        assert "Found." in all_words(world.requests[-1])


# ---- empty messages


def nothing_is_empty(request: Json) -> str | None:
    for one in request["messages"]:
        if one["role"] == "assistant" and not one.get("content") and not one.get("tool_calls"):
            return "message must have either content or tool_calls, but not neither"
    return None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([], id="empty-assistant-list"),
        pytest.param("", id="empty-assistant-string"),
        pytest.param(None, id="empty-assistant-null"),
        pytest.param([{"type": "text", "text": ""}], id="empty-part"),
    ],
)
def test_an_empty_assistant_message_is_left_out(content: Any) -> None:
    given = [user("One"), said(content), user("Two")]
    with scenario() as world:
        world.upstream_answers(strict(nothing_is_empty))
        for stream in (True, False):
            world.chat(given, stream=stream).expect("stop", "Hello")
        assert world.requests[0]["messages"] == [user("One"), user("Two")]
        assert len(world.requests) == 2


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_empty_assistant_turn(stream: bool) -> None:
    nothing = stream_of(end(), DONE) if stream else whole({"role": "assistant", "content": ""})
    with scenario() as world:
        world.upstream_sends(nothing)
        first = world.respond("One", stream=stream).expect("completed", "")
        world.upstream_answers(strict(nothing_is_empty))
        for _ in range(2):
            again = world.respond("Two", previous_response_id=first.body["id"], stream=stream)
            again.expect("completed", "Hello")
        assert world.requests[-1]["messages"] == [user("One"), user("Two")]


@pytest.mark.parametrize(
    "words",
    [
        "messages.1: user messages must have non-empty content",
        "text content blocks must be non-empty",
        "Invalid request: message content cannot be empty",
        "messages[1].content: field required",
    ],
)
def test_other_empty_messages_are_left_out_where_they_are_refused(words: str) -> None:
    def check(request: Json) -> str | None:
        return words if any(one.get("content") == "" for one in request["messages"]) else None

    given = [user(""), user("One"), CALL, {**OUTPUT, "output": ""}]
    with scenario() as world:
        world.upstream_answers(strict(check))
        world.respond(given).expect("completed", "Hello")
        roles = [one["role"] for one in world.requests[-1]["messages"]]
        assert roles == ["user", "assistant", "tool"]


# ---- and besides


def test_several_rules_at_once() -> None:
    checks = [
        SYSTEM_REFUSALS["qwen"],
        no_user_after_tool("Unexpected role 'user' after role 'tool'"),
        ID_REFUSALS["ids-of-nine"],
        FORMAT_REFUSALS["format-refused"],
    ]

    def check(request: Json) -> str | None:
        return next((fault for one in checks if (fault := one(request))), None)

    given = [*ROUND, developer("Be kind.")]
    with scenario() as world:
        world.upstream_answers(strict(check))
        fields: Json = {"text": {"format": JSON_SCHEMA}, "instructions": "Be brief."}
        world.respond(given, **fields).expect("completed", "Hello")
        count = len(world.requests)
        world.respond(given, **fields).expect("completed", "Hello")
        assert len(world.requests) == count + 1
        assert all(one in all_words(world.requests[-1]) for one in texts(given))


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_template_that_fails_is_a_refusal_too(status: int) -> None:
    with scenario() as world:
        world.upstream_answers(strict(SYSTEM_REFUSALS["qwen"], status))
        world.respond([user("One"), developer("Be kind.")]).expect("completed", "Hello")
        assert len(world.requests) == 2


def test_outputs_turned_round() -> None:
    second = {**CALL, "call_id": "call_2"}
    outputs = [{**OUTPUT, "call_id": one, "output": one} for one in ("call_2", "call_1")]
    with scenario() as world:
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond([user("Look."), CALL, second, *outputs]).expect("completed", "Hello")
        sent = world.requests[0]["messages"]
        assert [one["id"] for one in sent[1]["tool_calls"]] == ["call_1", "call_2"]
        assert [one["content"] for one in sent[2:]] == ["call_1", "call_2"]


def test_details_of_pictures() -> None:
    with scenario() as world:
        world.upstream_answers(lambda request: answer_hello(request.json))
        for detail, sent in {
            "auto": None,
            "original": "high",
            "low": "low",
            "high": "high",
        }.items():
            content = [part("Look."), {**IMAGE, "detail": detail}]
            world.respond([user(content)]).expect("completed", "Hello")
            picture = world.requests[-1]["messages"][0]["content"][1]["image_url"]
            assert picture.get("detail") == sent, f"detail-{detail}"
            assert picture["url"] == PICTURE
        # The words of a person who writes about it are not touched.
        words = '{"detail":"original"},"role":"tool","content":['
        world.respond(words).expect("completed", "Hello")
        assert world.requests[-1]["messages"] == [user(words)]


def test_original_detail_goes_to_a_responses_upstream() -> None:
    with scenario("responses") as world:
        world.upstream_answers(lambda request: answer_hello(request.json))
        content = [part("Look."), {**IMAGE, "detail": "original"}]
        world.respond([user(content)], stream=False).expect("completed", "Hello")
        assert world.requests[-1]["input"][0]["content"][1]["detail"] == "original"


ODD_WORDS = (
    "a\0b\u2028c\u2029d\u200de\u200c<b>&amp;</b> \\ud83d \U000e0067 <|im_start|> \r\n\t\u0085"
)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_words_go_back_unchanged(stream: bool) -> None:
    answered = (
        stream_of(text(ODD_WORDS), end(), DONE)
        if stream
        else whole({"role": "assistant", "content": ODD_WORDS})
    )
    with scenario() as world:
        world.upstream_sends(answered)
        first = world.respond(ODD_WORDS, stream=stream, instructions=ODD_WORDS)
        first.expect("completed", ODD_WORDS)
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond("And?", previous_response_id=first.body["id"])
        assert world.requests[-1]["messages"] == [user(ODD_WORDS), said(ODD_WORDS), user("And?")]
        world.chat([user(ODD_WORDS), said(ODD_WORDS), user("And?")])
        assert world.requests[-1]["messages"] == [user(ODD_WORDS), said(ODD_WORDS), user("And?")]


def test_words_are_unchanged_by_rules() -> None:
    given = [system(ODD_WORDS), user(ODD_WORDS), said(ODD_WORDS), developer("B"), user(ODD_WORDS)]
    with scenario() as world:
        world.upstream_answers(strict(SYSTEM_REFUSALS["qwen"]))
        world.respond(given).expect("completed", "Hello")
        sent = [one["content"] for one in world.requests[-1]["messages"]]
        assert sent == [f"{ODD_WORDS}\n\nB", ODD_WORDS, ODD_WORDS, ODD_WORDS]


def test_refusal_goes_back() -> None:
    with scenario() as world:
        world.upstream_sends(
            whole({"role": "assistant", "content": None, "refusal": "I will not."})
        )
        first = world.respond(stream=False).expect("completed")
        world.upstream_answers(lambda request: answer_hello(request.json))
        world.respond("Why?", previous_response_id=first.body["id"], stream=False)
        assert world.requests[-1]["messages"][1] == said("I will not.")
        history = [user(), {"role": "assistant", "refusal": "I will not."}, user("Why?")]
        world.chat(history, stream=False).expect("stop", "Hello")
        assert world.requests[-1]["messages"][1] == said("I will not.")
