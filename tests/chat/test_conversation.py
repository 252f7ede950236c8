"""Conversation branches: ``branch``, ``regenerate`` and ``edit``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from antiphon import (
    AntiphonError,
    AsyncConversation,
    InvalidRequestError,
    NotFoundError,
    tool,
)
from support.chat_harness import (
    Call,
    ChatHarness,
    ModelAnswer,
    chat_harness,
    contents,
    images,
    png,
    roles,
)
from support.misbehaving_upstream import refuse


def test_branch_is_independent_of_its_conversation(harness: ChatHarness) -> None:
    @tool
    def ping() -> str:
        """Answer."""
        return "pong"

    chat = harness.new(instructions="Be brief.", tools=[ping], temperature=0.5)
    first = chat.send("One.").response_id
    second = chat.send("Two.").response_id
    branch_at_head, branch_at_first = chat.branch(), chat.branch(first)
    assert (branch_at_head.response_id, branch_at_first.response_id) == (second, first)
    branch_at_first.register_tool(
        "late", "Later.", {"type": "object", "properties": {}}, lambda: "x"
    )
    branch_at_first.instructions = "Be long."
    branch_at_first.send("Three.")
    assert contents(harness.sent_messages()) == ["Be long.", "One.", "Hello.", "Three."]
    assert len(harness.request_body()["tools"]) == 2
    assert harness.request_body()["temperature"] == 0.5
    chat.send("Four.")
    assert contents(harness.sent_messages())[0] == "Be brief."
    assert len(harness.request_body()["tools"]) == 1
    assert branch_at_head.response_id == second
    empty = harness.new().branch()
    assert empty.response_id is None
    for wrong in ("resp_" + "0" * 32, "nonsense", ""):
        with pytest.raises(NotFoundError):
            chat.branch(wrong)


def test_regenerate_repeats_the_request_and_keeps_the_old_answer(harness: ChatHarness) -> None:
    chat = harness.new(instructions="Be brief.")
    with pytest.raises(InvalidRequestError) as caught:
        chat.regenerate()
    assert caught.value.code == "empty_conversation"
    harness.upstream.plan_answers(
        ModelAnswer("A."), ModelAnswer("B."), ModelAnswer("C."), ModelAnswer("D.")
    )
    chat.send("One.")
    old = chat.send("Two.", images=[png()])
    messages_sent = harness.sent_messages()
    new = chat.regenerate()
    assert harness.sent_messages() == messages_sent
    assert (new.text, chat.response_id) == ("C.", new.response_id)
    assert contents(harness.resume(old.response_id).context())[-1] == "B."
    assert contents(chat.context())[-1] == "C."
    assert chat.regenerate().text == "D."
    assert harness.sent_messages() == messages_sent


def test_regenerate_after_a_failure_answers_the_last_completed_turn(
    harness: ChatHarness,
) -> None:
    chat = harness.new()
    completed = chat.send("One.")
    harness.upstream.plan_answers(
        refuse(400), ModelAnswer("Again."), refuse(400), ModelAnswer("At last.")
    )
    with pytest.raises(AntiphonError):
        chat.send("Two.")
    assert chat.regenerate().text == "Again."
    assert contents(harness.sent_messages()) == ["One."]
    head = chat.response_id
    assert head != completed.response_id
    with pytest.raises(AntiphonError):
        chat.regenerate()
    assert chat.response_id == head
    assert chat.regenerate().text == "At last."


def test_regenerate_does_not_rerun_an_approved_tool(harness: ChatHarness) -> None:
    done: list[str] = []

    @tool(needs_approval=True)
    def refund(order: str) -> str:
        """Give the money back."""
        done.append(order)
        return f"refunded {order}"

    chat = harness.new(tools=[refund])
    calls = tuple(Call("refund", {"order": one}, one) for one in "ab")
    harness.upstream.plan_answers(
        ModelAnswer(calls=calls), ModelAnswer("Done."), ModelAnswer("All done.")
    )
    chat.send("Refund a and b.")
    old = chat.send("Thanks.", decisions={"a": True, "b": "no"})
    messages_sent = harness.sent_messages()
    new = chat.regenerate()
    assert (new.text, done) == ("All done.", ["a"])
    assert contents(harness.sent_messages())[2:] == contents(messages_sent)[2:]
    chat.send("And?")
    # Once more, where the tool output is part of the history.
    chat.branch(new.response_id).regenerate()
    assert done == ["a"]
    # Regenerating the first turn asks for approval again.
    first = harness.response(old.response_id).previous_response_id
    harness.upstream.plan_answers(ModelAnswer(calls=calls))
    assert len(chat.branch(first).regenerate().pending) == 2
    assert done == ["a"]


def test_edit_replaces_a_message_and_continues_from_it(harness: ChatHarness) -> None:
    chat = harness.new(instructions="Be brief.")
    ids = [chat.send(text, images=image_list).response_id for text, image_list in TURNS]
    before = chat.context()
    head = chat.response_id
    harness.upstream.plan_answers(ModelAnswer("Edited."))
    middle = chat.edit(ids[1], "Zwei.")
    assert (middle.text, chat.response_id) == ("Edited.", middle.response_id)
    assert len(harness.sent_messages()) == 4
    assert harness.sent_messages()[3]["content"][0] == {"type": "text", "text": "Zwei."}
    assert images(harness.sent_messages()) == images(before), "images of the message are kept"
    chat.send("Vier.")
    assert contents(harness.sent_messages())[-2:] == ["Edited.", "Vier."]
    # The old branch still exists, and its turns can be edited from here.
    assert harness.resume(head).context() == before
    chat.edit(ids[2], "Drei.")
    assert roles(harness.sent_messages()) == "suauau"
    chat.edit(ids[0], "Eins.")
    assert contents(harness.sent_messages()) == ["Be brief.", "Eins."]
    with pytest.raises(NotFoundError):
        chat.edit("resp_" + "0" * 32, "Who?")
    wrong: Any
    for wrong in ("", None, 5):
        with pytest.raises(InvalidRequestError) as caught:
            chat.edit(ids[0], wrong)
        assert caught.value.param == "new_text"


TURNS: list[tuple[str, list[Any]]] = [("One.", []), ("Two.", [png()]), ("Three.", [])]


def test_async_conversation_can_be_used_in_several_loops(tmp_path: Path) -> None:
    with chat_harness("blocking", tmp_path) as harness:
        chat = AsyncConversation(settings=harness.settings)

        async def say(text: str) -> None:
            await chat.send(text)

        asyncio.run(say("One."))
        asyncio.run(say("Two."))
        assert contents(harness.sent_messages()) == ["One.", "Hello.", "Two."]


def test_concurrent_sends_become_branches(tmp_path: Path) -> None:
    with chat_harness("async", tmp_path) as harness:
        chat = AsyncConversation(settings=harness.settings)

        async def main() -> None:
            await chat.send("Hi.")
            await asyncio.gather(*(chat.send(f"Number {one}.") for one in range(5)))
            assert len(await chat.context()) == 4

        harness.run(main())
        said = [contents(harness.sent_messages(number))[:-1] for number in range(1, 6)]
        assert said == [["Hi.", "Hello."]] * 5
