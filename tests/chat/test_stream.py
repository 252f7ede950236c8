"""Answers that are read while they are written: text, events, growing objects, and the end."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from antiphon import (
    AntiphonError,
    AsyncConversation,
    InvalidOutputError,
    InvalidRequestError,
    events,
    tool,
)
from antiphon.bootstrap import close_shared_engines
from antiphon.core.items import FunctionCall, FunctionCallOutput, Message
from antiphon.errors import ModelError
from support.chat_harness import (
    VARIANTS,
    Call,
    ChatHarness,
    ModelAnswer,
    chat_harness,
    contents,
    roles,
    set_event,
)
from support.misbehaving_upstream import CUT, HANG, chunk, refuse, stream
from support.misbehaving_upstream import events as sse


@pytest.fixture(params=VARIANTS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ChatHarness]:
    with chat_harness(request.param, tmp_path) as stage:
        yield stage


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


class City(BaseModel):
    name: str
    people: int


ROME = '{"name": "Rome", "people": 3}'


def hanging(*chunks: dict[str, Any]) -> list[Any]:
    """A stream of these chunks that then says nothing more."""
    return stream(*sse(*chunks), end=HANG)


# Reading.


def test_the_text_of_several_messages_is_in_paragraphs(stage: ChatHarness) -> None:
    stage.upstream.plan_answers(
        ModelAnswer("Let me look.", (Call("weather", {"city": "Rome"}, "w"),)),
        ModelAnswer("And again.", (Call("weather", {"city": "Bari"}, "v"),)),
        ModelAnswer("Sunny."),
    )
    chat = stage.new(tools=[weather])
    talk = chat.stream("Weather?")
    parts = list(talk)
    assert "".join(parts) == "Let me look.\n\nAnd again.\n\nSunny."
    assert len(parts) == 8, "each message comes in two pieces"
    assert talk.reply.text == "Sunny."
    assert chat.response_id == talk.reply.response_id


def test_events_come_in_their_order(stage: ChatHarness) -> None:
    stage.upstream.plan_answers(
        ModelAnswer("Look.", (Call("weather", {"city": "Rome"}, "w"),)), ModelAnswer("Sunny.")
    )
    talk = stage.new(tools=[weather]).stream("Weather?")
    heard = list(talk.events())
    assert isinstance(heard[0], events.Created)
    assert isinstance(heard[-1], events.Ended)
    assert heard[-1].response.id == heard[0].response.id == talk.reply.response_id
    call = FunctionCall("w", "weather", '{"city": "Rome"}')
    output = FunctionCallOutput("w", "sunny in Rome")
    assert heard[1:-1] == [
        events.ItemAdded(0, Message("assistant", "")),
        events.TextDelta(0, "Lo"),
        events.TextDelta(0, "ok."),
        events.ItemDone(0, Message("assistant", "Look.")),
        events.ItemAdded(1, FunctionCall("w", "weather", "")),
        events.ArgumentsDelta(1, '{"city":'),
        events.ArgumentsDelta(1, ' "Rome"}'),
        events.ItemDone(1, call),
        events.ItemAdded(2, output),
        events.ItemDone(2, output),
        events.ItemAdded(3, Message("assistant", "")),
        events.TextDelta(3, "Sun"),
        events.TextDelta(3, "ny."),
        events.ItemDone(3, Message("assistant", "Sunny.")),
    ]


def test_a_stream_ends_where_a_call_waits_and_another_goes_on(stage: ChatHarness) -> None:
    @tool(needs_approval=True)
    def refund(order: str) -> str:
        """Give the money back."""
        return f"refunded {order}"

    chat = stage.new(tools=[refund])
    stage.upstream.plan_answers(ModelAnswer("A moment.", (Call("refund", {"order": "1"}, "r"),)))
    talk = chat.stream("Refund 1.")
    assert "".join(talk) == "A moment."
    assert [call.call_id for call in talk.reply.pending] == ["r"]
    heard = list(chat.stream(decisions={"r": True}).events())
    output = FunctionCallOutput("r", "refunded 1")
    assert heard[1:3] == [events.ItemAdded(0, output), events.ItemDone(0, output)]
    assert roles(stage.sent_messages()) == "uat"
    assert chat.pending() == ()


def test_a_refusal_is_read_like_text(stage: ChatHarness) -> None:
    stage.upstream.plan_answers(ModelAnswer(refusal="I will not."))
    talk = stage.new().stream("Hack it.")
    assert "".join(talk) == "I will not."
    assert talk.reply.text == "I will not."


# Objects.


def test_objects_grow(stage: ChatHarness) -> None:
    stage.upstream.plan_answers(ModelAnswer(ROME))
    talk = stage.new().stream("A city?", returns=City)
    grown = list(talk.objects())
    assert grown[-1] == {"name": "Rome", "people": 3}
    assert len(grown) > 1
    for before, after in itertools.pairwise(grown):
        assert before != after
        assert before.keys() <= after.keys()
        assert after["name"].startswith(before.get("name", ""))
    assert talk.reply.parsed == City(name="Rome", people=3)


def test_objects_need_a_type(stage: ChatHarness) -> None:
    talk = stage.new().stream("A city?")
    with pytest.raises(InvalidRequestError, match="returns="):
        list(talk.objects())


def test_an_answer_that_is_mended_is_read_in_two_paragraphs(stage: ChatHarness) -> None:
    for way in ("text", "objects"):
        stage.upstream.plan_answers(ModelAnswer('{"name": "Rome"}'), ModelAnswer(ROME))
        chat = stage.new()
        talk = chat.stream("A city?", returns=City)
        if way == "text":
            assert "".join(talk) == '{"name": "Rome"}\n\n' + ROME
        else:
            assert list(talk.objects())[-1] == {"name": "Rome", "people": 3}
        assert talk.reply.parsed.people == 3
        assert chat.response_id == talk.reply.response_id


def test_a_stream_that_cannot_be_mended_raises_at_its_end(stage: ChatHarness) -> None:
    stage.upstream.plan_answers(ModelAnswer("Rome!"), ModelAnswer("No!"))
    chat = stage.new()
    talk = chat.stream("A city?", returns=City)
    with pytest.raises(InvalidOutputError) as caught:
        list(talk)
    assert (caught.value.text, chat.response_id) == ("No!", None)
    with pytest.raises(InvalidRequestError):
        _ = talk.reply


# Ending.


def test_a_stream_that_is_never_read_sends_nothing(stage: ChatHarness) -> None:
    chat = stage.new()
    talk = chat.stream("Hi.")
    with pytest.raises(InvalidRequestError) as caught:
        _ = talk.reply
    assert caught.value.code == "stream_not_finished"
    del talk
    gc.collect()
    with chat.stream("Hi.") as never:
        pass
    never.close()
    for read in (iter(never).__next__, never.events, never.objects):
        with pytest.raises(InvalidRequestError) as caught:
            read()
        assert caught.value.code == "stream_closed"
    assert (stage.request_count, chat.response_id) == (0, None)


def test_a_stream_is_read_once(stage: ChatHarness) -> None:
    talk = stage.new().stream("Hi.")
    assert "".join(talk) == "Hello."
    assert list(talk) == [], "it is at its end"
    for read in (talk.events, talk.objects):
        with pytest.raises(InvalidRequestError) as caught:
            read()
        assert caught.value.code == "stream_read_twice"
    other = stage.new().stream("Hi.")
    list(other.events())
    with pytest.raises(InvalidRequestError):
        next(other)
    assert stage.request_count == 2


def test_closing_after_any_event_leaves_a_conversation_that_goes_on(stage: ChatHarness) -> None:
    def answers() -> None:
        stage.upstream.plan_answers(
            ModelAnswer("Look.", (Call("weather", {"city": "Rome"}, "w"),)), ModelAnswer("Sunny.")
        )

    answers()
    number = len(list(stage.new(tools=[weather]).stream("Weather?").events()))
    for stop in range(1, number + 1):
        stage.upstream.planned_answers.clear()
        chat = stage.new(tools=[weather])
        head = chat.send("Hi.").response_id
        answers()
        talk = chat.stream("Weather?")
        reading = talk.events()
        seen = [next(reading) for _ in range(stop)]
        talk.close()
        assert chat.response_id == seen[0].response.id != head
        kept = stage.response(chat.response_id)
        assert kept.status in ("cancelled", "completed")
        assert kept.end is not None
        stage.upstream.planned_answers.clear()
        assert chat.send("And?").text == "Hello."
        # What was asked is there, once; the kit checks that calls have their outputs.
        assert [one for one in contents(stage.sent_messages()) if one == "Weather?"] == ["Weather?"]
        assert roles(stage.sent_messages()).startswith("uau")
        assert contents(stage.sent_messages())[-1] == "And?"


def test_closing_while_a_tool_runs_stops_the_tool(stage: ChatHarness) -> None:
    stopped: list[str] = []

    @tool(timeout=None)
    async def slow() -> str:
        """Never ready."""
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append("slow")
        return ""

    chat = stage.new(tools=[slow])
    stage.upstream.plan_answers(ModelAnswer(calls=(Call("slow", {}, "s"),)))
    talk = chat.stream("Go.")
    for event in talk.events():
        if isinstance(event, events.ItemDone):
            break
    talk.close()
    # The call was done as an event before the tool had to have begun.
    assert stopped in ([], ["slow"])
    assert stage.response(chat.response_id).status == "cancelled"
    assert chat.pending() == ()
    chat.send("And?")
    assert roles(stage.sent_messages()) == "uatu"


def test_a_block_closes_its_stream(stage: ChatHarness) -> None:
    stage.upstream.plan_answers(hanging(chunk(content="One ")))
    chat = stage.new()
    with chat.stream("Count.") as talk:
        assert next(talk) == "One "
    stage.wait_for_disconnect()
    assert stage.response(chat.response_id).status == "cancelled"
    assert contents(chat.context()) == ["Count.", "One "]
    stage.upstream.plan_answers(hanging(chunk(content="One ")))
    talk = chat.stream("Count.")
    with pytest.raises(ZeroDivisionError), talk:
        1 / len(next(talk)[:0])
    stage.wait_for_disconnect()
    with pytest.raises(InvalidRequestError):
        _ = talk.reply


def test_a_failed_stream_leaves_the_conversation_where_it_was(stage: ChatHarness) -> None:
    chat = stage.new()
    head = chat.send("Hi.").response_id
    heard = asyncio.Event()
    stage.upstream.plan_answers(stream(*sse(chunk(content="Half")), heard, end=CUT), refuse(400))
    for said in (["Half"], []):
        talk = chat.stream("Count.")
        assert [next(talk) for _ in said] == said
        set_event(heard)
        with pytest.raises(AntiphonError) as caught:
            next(talk)
        assert isinstance(caught.value, ModelError | InvalidRequestError)
        assert stage.response(caught.value.response_id).status == "failed"
        assert chat.response_id == head
        assert list(talk) == []
        with pytest.raises(InvalidRequestError):
            _ = talk.reply
    assert "".join(chat.stream("Count.")) == "Hello."
    assert contents(stage.sent_messages()) == ["Hi.", "Hello.", "Count."]


def test_a_task_that_is_cancelled_while_it_reads_stops_the_answer(tmp_path: Path) -> None:
    async def main(stage: ChatHarness) -> None:
        stage.upstream.plan_answers(hanging(chunk(content="One ")))
        chat = AsyncConversation(settings=stage.settings)
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in chat.stream("Count."):
                begun.set()

        reading = asyncio.create_task(read())
        await begun.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert contents(await chat.context()) == ["Count.", "One "]
        assert (await chat.send("And?")).text == "Hello."
        await close_shared_engines()

    with chat_harness("async", tmp_path) as stage:
        stage.run(main(stage))
        stage.wait_for_disconnect(0)


def test_a_stream_that_is_forgotten_is_stopped(stage: ChatHarness) -> None:
    """Wherever the garbage collector runs: the loop's own thread must not wait for itself."""
    stage.upstream.plan_answers(hanging(chunk(content="One ")))
    chat = stage.new()

    class Holder:
        pass

    holder: Any = Holder()
    holder.itself = holder
    holder.talk = chat.stream("Count.")
    assert next(holder.talk) == "One "
    del holder

    async def collect() -> None:
        gc.collect()
        await asyncio.to_thread(stage.wait_for_disconnect)

    stage.run(collect())
    assert chat.send("And?").text == "Hello."


def test_a_blocking_call_in_the_loop_that_it_needs_is_an_error(tmp_path: Path) -> None:
    """It would wait for itself, and every other conversation with it."""
    with chat_harness("blocking", tmp_path) as stage:
        other = stage.new()

        async def expert(question: str) -> str:
            """Ask an expert."""
            return str(other.send(question).text)

        async def reader(question: str) -> str:
            """Read what an expert says."""
            return "".join(other.stream(question))

        calls = (
            Call("expert", {"question": "Why?"}, "e"),
            Call("reader", {"question": "Why?"}, "r"),
        )
        stage.upstream.plan_answers(ModelAnswer(calls=calls), ModelAnswer("So."))
        assert stage.new(tools=[expert, reader]).send("Ask.").text == "So."
        told = contents(stage.sent_messages())[-2:]
        assert all("take AsyncConversation" in one for one in told)
        assert stage.request_count == 2
        assert other.send("And now?").text == "Hello."
