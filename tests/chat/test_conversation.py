"""A conversation's branches: other ways on, other answers, other questions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
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
    VARIANTS,
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


@pytest.fixture(params=VARIANTS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ChatHarness]:
    with chat_harness(request.param, tmp_path) as stage:
        yield stage


def test_a_branch_goes_its_own_way(stage: ChatHarness) -> None:
    @tool
    def ping() -> str:
        """Answer."""
        return "pong"

    chat = stage.new(instructions="Be brief.", tools=[ping], temperature=0.5)
    first = chat.send("One.").response_id
    second = chat.send("Two.").response_id
    here, there = chat.branch(), chat.branch(first)
    assert (here.response_id, there.response_id) == (second, first)
    there.register_tool("late", "Later.", {"type": "object", "properties": {}}, lambda: "x")
    there.instructions = "Be long."
    there.send("Three.")
    assert contents(stage.sent_messages()) == ["Be long.", "One.", "Hello.", "Three."]
    assert len(stage.request_body()["tools"]) == 2
    assert stage.request_body()["temperature"] == 0.5
    chat.send("Four.")
    assert contents(stage.sent_messages())[0] == "Be brief."
    assert len(stage.request_body()["tools"]) == 1
    assert here.response_id == second
    empty = stage.new().branch()
    assert empty.response_id is None
    for wrong in ("resp_" + "0" * 32, "nonsense", ""):
        with pytest.raises(NotFoundError):
            chat.branch(wrong)


def test_regenerate_asks_again_and_keeps_the_old_answer(stage: ChatHarness) -> None:
    chat = stage.new(instructions="Be brief.")
    with pytest.raises(InvalidRequestError) as caught:
        chat.regenerate()
    assert caught.value.code == "empty_conversation"
    stage.upstream.plan_answers(
        ModelAnswer("A."), ModelAnswer("B."), ModelAnswer("C."), ModelAnswer("D.")
    )
    chat.send("One.")
    old = chat.send("Two.", images=[png()])
    asked = stage.sent_messages()
    new = chat.regenerate()
    assert stage.sent_messages() == asked
    assert (new.text, chat.response_id) == ("C.", new.response_id)
    assert contents(stage.resume(old.response_id).context())[-1] == "B."
    assert contents(chat.context())[-1] == "C."
    assert chat.regenerate().text == "D."
    assert stage.sent_messages() == asked


def test_regenerate_after_a_failure_answers_the_last_message_that_was_kept(
    stage: ChatHarness,
) -> None:
    chat = stage.new()
    kept = chat.send("One.")
    stage.upstream.plan_answers(
        refuse(400), ModelAnswer("Again."), refuse(400), ModelAnswer("At last.")
    )
    with pytest.raises(AntiphonError):
        chat.send("Two.")
    assert chat.regenerate().text == "Again."
    assert contents(stage.sent_messages()) == ["One."]
    head = chat.response_id
    assert head != kept.response_id
    with pytest.raises(AntiphonError):
        chat.regenerate()
    assert chat.response_id == head
    assert chat.regenerate().text == "At last."


def test_regenerate_runs_no_tool_again_that_a_person_agreed_to(stage: ChatHarness) -> None:
    done: list[str] = []

    @tool(needs_approval=True)
    def refund(order: str) -> str:
        """Give the money back."""
        done.append(order)
        return f"refunded {order}"

    chat = stage.new(tools=[refund])
    calls = tuple(Call("refund", {"order": one}, one) for one in "ab")
    stage.upstream.plan_answers(
        ModelAnswer(calls=calls), ModelAnswer("Done."), ModelAnswer("All done.")
    )
    chat.send("Refund a and b.")
    old = chat.send("Thanks.", decisions={"a": True, "b": "no"})
    asked = stage.sent_messages()
    new = chat.regenerate()
    assert (new.text, done) == ("All done.", ["a"])
    assert contents(stage.sent_messages())[2:] == contents(asked)[2:]
    chat.send("And?")
    # Once more: the output is an input now.
    chat.branch(new.response_id).regenerate()
    assert done == ["a"]
    # The call is asked about anew where the question itself is asked again.
    first = stage.response(old.response_id).previous_response_id
    stage.upstream.plan_answers(ModelAnswer(calls=calls))
    assert len(chat.branch(first).regenerate().pending) == 2
    assert done == ["a"]


def test_edit_changes_a_turn_and_goes_on_from_there(stage: ChatHarness) -> None:
    chat = stage.new(instructions="Be brief.")
    ids = [chat.send(text, images=given).response_id for text, given in CALLS]
    before = chat.context()
    head = chat.response_id
    stage.upstream.plan_answers(ModelAnswer("Edited."))
    middle = chat.edit(ids[1], "Zwei.")
    assert (middle.text, chat.response_id) == ("Edited.", middle.response_id)
    assert len(stage.sent_messages()) == 4
    assert stage.sent_messages()[3]["content"][0] == {"type": "text", "text": "Zwei."}
    assert images(stage.sent_messages()) == images(before), "images of the message stay"
    chat.send("Vier.")
    assert contents(stage.sent_messages())[-2:] == ["Edited.", "Vier."]
    # The old way is still there, and its turns can be edited from here.
    assert stage.resume(head).context() == before
    chat.edit(ids[2], "Drei.")
    assert roles(stage.sent_messages()) == "suauau"
    chat.edit(ids[0], "Eins.")
    assert contents(stage.sent_messages()) == ["Be brief.", "Eins."]
    with pytest.raises(NotFoundError):
        chat.edit("resp_" + "0" * 32, "Who?")
    wrong: Any
    for wrong in ("", None, 5):
        with pytest.raises(InvalidRequestError) as caught:
            chat.edit(ids[0], wrong)
        assert caught.value.param == "new_text"


CALLS: list[tuple[str, list[Any]]] = [("One.", []), ("Two.", [png()]), ("Three.", [])]


def test_a_conversation_outlives_its_loop(tmp_path: Path) -> None:
    with chat_harness("blocking", tmp_path) as stage:
        chat = AsyncConversation(settings=stage.settings)

        async def say(text: str) -> None:
            await chat.send(text)

        asyncio.run(say("One."))
        asyncio.run(say("Two."))
        assert contents(stage.sent_messages()) == ["One.", "Hello.", "Two."]


def test_two_turns_at_once_are_two_branches(tmp_path: Path) -> None:
    with chat_harness("async", tmp_path) as stage:
        chat = AsyncConversation(settings=stage.settings)

        async def main() -> None:
            await chat.send("Hi.")
            await asyncio.gather(*(chat.send(f"Number {one}.") for one in range(5)))
            assert len(await chat.context()) == 4

        stage.run(main())
        said = [contents(stage.sent_messages(number))[:-1] for number in range(1, 6)]
        assert said == [["Hi.", "Hello."]] * 5
