"""Conversations over all that is stored: ``list_chats``, ``search_chats`` and what is deleted."""

from __future__ import annotations

import re

import pytest

from antiphon import InvalidRequestError, NotFoundError
from support.chat_harness import ChatHarness, ModelAnswer, contents


def test_chats_are_listed_newest_first_and_by_pages(harness: ChatHarness) -> None:
    first, second = harness.new(), harness.new()
    first.send("One.")
    second.send("Two.")
    second.send("Three.")
    settings = harness.settings
    listed = first.list_chats(settings=settings)
    assert [(chat.head, chat.title, chat.turns) for chat in listed] == [
        (second.response_id, "Two.", 2),
        (first.response_id, "One.", 1),
    ]
    assert first.list_chats(1, settings=settings) == listed[:1]
    assert first.list_chats(after=listed[0].id, settings=settings) == listed[1:]
    going_on = harness.resume(listed[1].head)
    going_on.send("Four.")
    assert contents(harness.sent_messages()) == ["One.", "Hello.", "Four."]


def test_search_finds_what_was_said_in_any_chat(harness: ChatHarness) -> None:
    chat = harness.new()
    harness.upstream.plan_answers(ModelAnswer("The Tagus flows there."))
    found = chat.send("Name a river.").response_id
    chat.send("Thanks.")
    hits = harness.new().search_chats("tagus river", settings=harness.settings)
    assert [(hit.response_id, "«Tagus»" in hit.excerpt) for hit in hits] == [(found, True)]
    assert chat.search_chats("river", after=found, settings=harness.settings) == []
    assert chat.search_chats("mountain", settings=harness.settings) == []


@pytest.mark.parametrize("limit", [0, -1, 1.5, "20", True])
def test_limit_is_a_positive_number(harness: ChatHarness, limit: object) -> None:
    chat = harness.new()
    for ask in (chat.list_chats, lambda n, **more: chat.search_chats("a", n, **more)):
        with pytest.raises(InvalidRequestError, match="limit"):
            ask(limit, settings=harness.settings)


def test_unknown_page_mark_is_an_error(harness: ChatHarness) -> None:
    chat = harness.new()
    chat.send("One.")
    with pytest.raises(InvalidRequestError) as listing:
        chat.list_chats(after="resp_" + "0" * 32, settings=harness.settings)
    assert listing.value.param == "after"


def test_deleted_conversation_is_gone_with_its_branches(harness: ChatHarness) -> None:
    chat = harness.new(instructions="Be brief.")
    first = chat.send("My name is Zanzibar.").response_id
    branch = chat.branch(first)
    branch.send("Zanzibar again.")
    chat.send("Once more.")
    chat.delete()
    assert chat.response_id is None
    assert chat.messages() == [{"role": "system", "content": "Be brief."}]
    assert chat.list_chats(settings=harness.settings) == []
    assert chat.search_chats("Zanzibar", settings=harness.settings) == []
    for name in (first, branch.response_id):
        with pytest.raises(NotFoundError):
            harness.resume(name)
    with pytest.raises(NotFoundError):
        branch.delete()
    chat.send("Hello.")
    assert contents(harness.sent_messages()) == ["Be brief.", "Hello."]


def test_versions_of_a_first_message_are_one_chat_and_deleted_with_it(harness: ChatHarness) -> None:
    chat = harness.new()
    first = chat.send("My name is Zanzibar.").response_id
    chat.regenerate()
    chat.edit(first, "My name is Alice.")
    (listed,) = chat.list_chats(settings=harness.settings)
    assert (listed.head, listed.branches) == (chat.response_id, 3)
    chat.delete()
    assert chat.list_chats(settings=harness.settings) == []
    assert chat.search_chats("Zanzibar", settings=harness.settings) == []


def test_deleting_an_empty_conversation_does_nothing(harness: ChatHarness) -> None:
    other, chat = harness.new(), harness.new()
    other.send("One.")
    chat.delete()
    assert len(chat.list_chats(settings=harness.settings)) == 1


def test_conversation_goes_on_without_a_deleted_turn(harness: ChatHarness) -> None:
    chat = harness.new()
    chat.send("One.")
    middle = chat.send("Two.").response_id
    newest = chat.send("Three.").response_id
    chat.delete_response(middle)
    assert chat.response_id == newest
    chat.send("Four.")
    assert contents(harness.sent_messages())[::2] == ["One.", "Three.", "Four."]


def test_conversation_goes_on_before_its_deleted_newest_turn(harness: ChatHarness) -> None:
    chat = harness.new()
    first = chat.send("One.").response_id
    second = chat.send("Two.").response_id
    third = chat.send("Three.").response_id
    chat.delete_response(second)
    chat.delete_response(third)
    assert chat.response_id == first
    chat.send("Four.")
    assert contents(harness.sent_messages()) == ["One.", "Hello.", "Four."]


def test_calls_behind_a_summary_whose_turn_was_deleted_wait_no_more(harness: ChatHarness) -> None:
    chat = harness.new()
    chat.send("One.")
    second = chat.send("Two.").response_id
    chat.summarize()
    chat.delete_response(second)
    assert chat.pending() == ()
    chat.send("Three.")
    assert contents(harness.sent_messages())[-1] == "Three."


def test_turn_behind_a_deleted_one_can_be_answered_again(harness: ChatHarness) -> None:
    chat = harness.new()
    chat.send("One.")
    second = chat.send("Two.").response_id
    chat.send("Three.")
    chat.delete_response(second)
    chat.regenerate()
    assert contents(harness.sent_messages()) == ["One.", "Hello.", "Three."]


def test_cascade_deletes_what_continues_a_turn(harness: ChatHarness) -> None:
    chat = harness.new()
    first = chat.send("One.").response_id
    second = chat.send("Two.").response_id
    chat.send("Three.")
    chat.delete_response(second, cascade=True)
    assert chat.response_id == first
    chat.delete_response(first, cascade=True)
    assert chat.response_id is None
    assert chat.messages() == []


def test_deleting_what_is_not_there_is_an_error(harness: ChatHarness) -> None:
    chat = harness.new()
    chat.send("One.")
    with pytest.raises(NotFoundError):
        chat.delete_response("resp_" + "0" * 32)
    assert len(chat.messages()) == 2


def test_repr_shows_what_it_goes_on_from(harness: ChatHarness) -> None:
    chat = harness.new()
    assert re.search(r"Conversation\(model=None, response_id=None\)", repr_of(chat))
    name = chat.send("One.").response_id
    assert repr_of(chat).endswith(f"response_id='{name}')")


def repr_of(chat: object) -> str:
    """The representation of a conversation, which may be wrapped."""
    return repr(getattr(chat, "__dict__", {}).get("_twin", chat))
