"""Streamed replies: text, events, partial objects, and closing."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from antiphon import (
    AntiphonError,
    AsyncConversation,
    AsyncStream,
    Conversation,
    InvalidOutputError,
    InvalidRequestError,
    events,
    tool,
)
from antiphon.bootstrap import close_shared_engines
from antiphon.core.items import FunctionCall, FunctionCallOutput, Message
from antiphon.errors import ModelError
from support.chat_harness import (
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


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


class City(BaseModel):
    name: str
    people: int


ROME = '{"name": "Rome", "people": 3}'


def hanging(*chunks: dict[str, Any]) -> list[Any]:
    """A stream of these chunks that then hangs."""
    return stream(*sse(*chunks), end=HANG)


# Reading.


def test_several_messages_stream_as_paragraphs(harness: ChatHarness) -> None:
    harness.upstream.plan_answers(
        ModelAnswer("Let me look.", (Call("weather", {"city": "Rome"}, "w"),)),
        ModelAnswer("And again.", (Call("weather", {"city": "Bari"}, "v"),)),
        ModelAnswer("Sunny."),
    )
    chat = harness.new(tools=[weather])
    stream_reply = chat.stream("Weather?")
    parts = list(stream_reply)
    assert "".join(parts) == "Let me look.\n\nAnd again.\n\nSunny."
    assert len(parts) == 8, "each message comes in two parts"
    assert stream_reply.reply.text == "Sunny."
    assert chat.response_id == stream_reply.reply.response_id


def test_events_are_in_order(harness: ChatHarness) -> None:
    harness.upstream.plan_answers(
        ModelAnswer("Look.", (Call("weather", {"city": "Rome"}, "w"),)), ModelAnswer("Sunny.")
    )
    stream_reply = harness.new(tools=[weather]).stream("Weather?")
    received = list(stream_reply.events())
    assert isinstance(received[0], events.Created)
    assert isinstance(received[-1], events.Ended)
    assert received[-1].response.id == received[0].response.id == stream_reply.reply.response_id
    call = FunctionCall("w", "weather", '{"city": "Rome"}')
    output = FunctionCallOutput("w", "sunny in Rome")
    assert received[1:-1] == [
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


def test_stream_ends_at_a_pending_call_and_the_next_continues(harness: ChatHarness) -> None:
    @tool(needs_approval=True)
    def refund(order: str) -> str:
        """Give the money back."""
        return f"refunded {order}"

    chat = harness.new(tools=[refund])
    harness.upstream.plan_answers(ModelAnswer("A moment.", (Call("refund", {"order": "1"}, "r"),)))
    stream_reply = chat.stream("Refund 1.")
    assert "".join(stream_reply) == "A moment."
    assert [call.call_id for call in stream_reply.reply.pending] == ["r"]
    received = list(chat.stream(decisions={"r": True}).events())
    output = FunctionCallOutput("r", "refunded 1")
    assert received[1:3] == [events.ItemAdded(0, output), events.ItemDone(0, output)]
    assert roles(harness.sent_messages()) == "uat"
    assert chat.pending() == ()


def test_refusal_streams_as_text(harness: ChatHarness) -> None:
    harness.upstream.plan_answers(ModelAnswer(refusal="I will not."))
    stream_reply = harness.new().stream("Hack it.")
    assert "".join(stream_reply) == "I will not."
    assert stream_reply.reply.text == "I will not."


# Objects.


def test_partial_objects_grow(harness: ChatHarness) -> None:
    harness.upstream.plan_answers(ModelAnswer(ROME))
    stream_reply = harness.new().stream("A city?", returns=City)
    partials = list(stream_reply.objects())
    assert partials[-1] == {"name": "Rome", "people": 3}
    assert len(partials) > 1
    for before, after in itertools.pairwise(partials):
        assert before != after
        assert before.keys() <= after.keys()
        assert after["name"].startswith(before.get("name", ""))
    assert stream_reply.reply.parsed == City(name="Rome", people=3)


def test_objects_need_a_return_type(harness: ChatHarness) -> None:
    stream_reply = harness.new().stream("A city?")
    with pytest.raises(InvalidRequestError, match="returns="):
        list(stream_reply.objects())


def test_repaired_answer_streams_as_a_second_paragraph(harness: ChatHarness) -> None:
    for method in ("text", "objects"):
        harness.upstream.plan_answers(ModelAnswer('{"name": "Rome"}'), ModelAnswer(ROME))
        chat = harness.new()
        stream_reply = chat.stream("A city?", returns=City)
        if method == "text":
            assert "".join(stream_reply) == '{"name": "Rome"}\n\n' + ROME
        else:
            assert list(stream_reply.objects())[-1] == {"name": "Rome", "people": 3}
        assert stream_reply.reply.parsed.people == 3
        assert chat.response_id == stream_reply.reply.response_id


def test_invalid_output_after_a_repair_raises_at_the_end(harness: ChatHarness) -> None:
    harness.upstream.plan_answers(ModelAnswer("Rome!"), ModelAnswer("No!"))
    chat = harness.new()
    stream_reply = chat.stream("A city?", returns=City)
    with pytest.raises(InvalidOutputError) as caught:
        list(stream_reply)
    assert (caught.value.text, chat.response_id) == ("No!", None)
    with pytest.raises(InvalidRequestError):
        _ = stream_reply.reply


# Ending.


def test_unread_stream_sends_no_request(harness: ChatHarness) -> None:
    chat = harness.new()
    stream_reply = chat.stream("Hi.")
    with pytest.raises(InvalidRequestError) as caught:
        _ = stream_reply.reply
    assert caught.value.code == "stream_not_finished"
    del stream_reply
    gc.collect()
    with chat.stream("Hi.") as unread:
        pass
    unread.close()
    for read in (iter(unread).__next__, unread.events, unread.objects):
        with pytest.raises(InvalidRequestError) as caught:
            read()
        assert caught.value.code == "stream_closed"
    assert (harness.request_count, chat.response_id) == (0, None)


def test_stream_can_be_read_once(harness: ChatHarness) -> None:
    stream_reply = harness.new().stream("Hi.")
    assert "".join(stream_reply) == "Hello."
    assert list(stream_reply) == [], "the stream is exhausted"
    for read in (stream_reply.events, stream_reply.objects):
        with pytest.raises(InvalidRequestError) as caught:
            read()
        assert caught.value.code == "stream_read_twice"
    other = harness.new().stream("Hi.")
    list(other.events())
    with pytest.raises(InvalidRequestError):
        next(other)
    assert harness.request_count == 2


def test_conversation_continues_after_closing_at_any_event(harness: ChatHarness) -> None:
    def answers() -> None:
        harness.upstream.plan_answers(
            ModelAnswer("Look.", (Call("weather", {"city": "Rome"}, "w"),)), ModelAnswer("Sunny.")
        )

    answers()
    number = len(list(harness.new(tools=[weather]).stream("Weather?").events()))
    for stop in range(1, number + 1):
        harness.upstream.planned_answers.clear()
        chat = harness.new(tools=[weather])
        head = chat.send("Hi.").response_id
        answers()
        stream_reply = chat.stream("Weather?")
        reading = stream_reply.events()
        read_events = [next(reading) for _ in range(stop)]
        stream_reply.close()
        assert chat.response_id == read_events[0].response.id != head
        stored = harness.response(chat.response_id)
        assert stored.status in ("cancelled", "completed")
        assert stored.end is not None
        harness.upstream.planned_answers.clear()
        assert chat.send("And?").text == "Hello."
        # What was cancelled may reach the upstream behind it, on a connection of its own.
        shown = map(harness.sent_messages, range(harness.request_count))
        sent = [one for one in shown if contents(one)[-1] == "And?"][-1]
        # The question is sent once; the harness checks that calls have their outputs.
        assert contents(sent).count("Weather?") == 1
        assert roles(sent).startswith("uau")


def test_closing_a_stream_cancels_its_running_tool(harness: ChatHarness) -> None:
    stopped: list[str] = []

    @tool(timeout=None)
    async def slow() -> str:
        """Never ready."""
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append("slow")
        return ""

    chat = harness.new(tools=[slow])
    harness.upstream.plan_answers(ModelAnswer(calls=(Call("slow", {}, "s"),)))
    stream_reply = chat.stream("Go.")
    for event in stream_reply.events():
        if isinstance(event, events.ItemDone):
            break
    stream_reply.close()
    # The call's event may come before the tool has begun.
    assert stopped in ([], ["slow"])
    assert harness.response(chat.response_id).status == "cancelled"
    assert chat.pending() == ()
    chat.send("And?")
    assert roles(harness.sent_messages()) == "uatu"


def test_with_block_closes_its_stream(harness: ChatHarness) -> None:
    harness.upstream.plan_answers(hanging(chunk(content="One ")))
    chat = harness.new()
    with chat.stream("Count.") as stream_reply:
        assert next(stream_reply) == "One "
    harness.wait_for_disconnect()
    assert harness.response(chat.response_id).status == "cancelled"
    assert contents(chat.context()) == ["Count.", "One "]
    harness.upstream.plan_answers(hanging(chunk(content="One ")))
    stream_reply = chat.stream("Count.")
    with pytest.raises(ZeroDivisionError), stream_reply:
        1 / len(next(stream_reply)[:0])
    harness.wait_for_disconnect()
    with pytest.raises(InvalidRequestError):
        _ = stream_reply.reply


def test_failed_stream_does_not_move_the_conversation(harness: ChatHarness) -> None:
    chat = harness.new()
    head = chat.send("Hi.").response_id
    received = asyncio.Event()
    harness.upstream.plan_answers(
        stream(*sse(chunk(content="Half")), received, end=CUT), refuse(400)
    )
    for expected_parts in (["Half"], []):
        stream_reply = chat.stream("Count.")
        assert [next(stream_reply) for _ in expected_parts] == expected_parts
        set_event(received)
        with pytest.raises(AntiphonError) as caught:
            next(stream_reply)
        assert isinstance(caught.value, ModelError | InvalidRequestError)
        assert harness.response(caught.value.response_id).status == "failed"
        assert chat.response_id == head
        assert list(stream_reply) == []
        with pytest.raises(InvalidRequestError):
            _ = stream_reply.reply
    assert "".join(chat.stream("Count.")) == "Hello."
    assert contents(harness.sent_messages()) == ["Hi.", "Hello.", "Count."]


def test_cancelling_the_reading_task_cancels_the_turn(tmp_path: Path) -> None:
    async def main(harness: ChatHarness) -> None:
        harness.upstream.plan_answers(hanging(chunk(content="One ")))
        chat = AsyncConversation(settings=harness.settings)
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

    with chat_harness("async", tmp_path) as harness:
        harness.run(main(harness))
        harness.wait_for_disconnect(0)


def test_closing_ends_the_reading_of_another_task(tmp_path: Path) -> None:
    """As a button does that stops an answer."""

    async def main(harness: ChatHarness) -> None:
        harness.upstream.plan_answers(hanging(chunk(content="One ")))
        chat = AsyncConversation(settings=harness.settings)
        talk = chat.stream("Count.")
        begun = asyncio.Event()
        read: list[str] = []

        async def read_all() -> None:
            async for delta in talk:
                read.append(delta)
                begun.set()

        reading = asyncio.create_task(read_all())
        await begun.wait()
        await asyncio.sleep(0)  # the reader waits for more
        await talk.close()
        assert contents(await chat.context()) == ["Count.", "One "]
        await reading
        assert read == ["One "]
        assert (await chat.send("And?")).text == "Hello."
        await close_shared_engines()

    with chat_harness("async", tmp_path) as harness:
        harness.run(main(harness))
        harness.wait_for_disconnect(0)


def test_closing_ends_the_loop_of_another_thread(tmp_path: Path) -> None:
    with chat_harness("blocking", tmp_path) as harness:
        harness.upstream.plan_answers(hanging(chunk(content="One ")))
        chat = harness.new()
        talk = chat.stream("Count.")
        begun = threading.Event()

        def read_all() -> list[str]:
            read = []
            for delta in talk:
                read.append(delta)
                begun.set()
            return read

        with ThreadPoolExecutor(1) as thread:
            reading = thread.submit(read_all)
            begun.wait()
            talk.close()
            assert reading.result() == ["One "]
        assert chat.send("And?").text == "Hello."
        assert contents(harness.sent_messages()) == ["Count.", "One ", "And?"]
        with pytest.raises(InvalidRequestError, match="read to its end"):
            _ = talk.reply


def test_stream_closed_late_does_not_undo_what_was_said_since(harness: ChatHarness) -> None:
    harness.upstream.plan_answers(hanging(chunk(content="One ")), ModelAnswer("Fine."))
    chat = harness.new()
    left = chat.stream("Count.")
    assert next(left) == "One "
    newer = chat.send("Never mind.").response_id
    left.close()
    assert chat.response_id == newer
    assert contents(chat.messages()) == ["Never mind.", "Fine."]


def test_stream_left_by_break_is_stopped_at_once(harness: ChatHarness) -> None:
    """Not when the garbage collector comes: no part of a stream may keep the others."""
    harness.upstream.plan_answers(hanging(chunk(content="One ")))
    chat = harness.new()
    gc.collect()
    gc.disable()
    try:
        for delta in chat.stream("Count."):
            assert delta == "One "
            break
        if isinstance(chat, Conversation):
            assert contents(chat.messages()) == ["Count.", "One "]
        harness.run(asyncio.to_thread(harness.wait_for_disconnect))
        # Its end is stored, and the conversation has moved on.
        while chat.response_id is None:
            harness.run(asyncio.sleep(0))
    finally:
        gc.enable()
    assert chat.send("And?").text == "Hello."
    assert contents(harness.sent_messages()) == ["Count.", "One ", "And?"]


def test_forgotten_streams_leave_no_error_behind(tmp_path: Path) -> None:
    """All generators of a stream in a cycle are finalized at once, each by a task of its own."""

    async def main(harness: ChatHarness) -> None:
        errors: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, error: errors.append(error))
        chat = AsyncConversation(settings=harness.settings)
        for read in (aiter, AsyncStream.events, AsyncStream.objects):
            harness.upstream.plan_answers(hanging(chunk(content="[1, ")))
            talk = chat.stream("Count.", returns=list[int])
            forgotten: list[Any] = [talk, read(talk)]
            await anext(forgotten[1])
            forgotten.append(forgotten)
            del talk, forgotten
            gc.collect()
            await asyncio.to_thread(harness.wait_for_disconnect)
        await close_shared_engines()
        gc.collect()
        assert errors == []

    with chat_harness("async", tmp_path) as harness:
        harness.run(main(harness))


def test_garbage_collected_stream_is_cancelled(harness: ChatHarness) -> None:
    """Also if the garbage collector runs on the loop's thread, which must not wait for itself."""
    harness.upstream.plan_answers(hanging(chunk(content="One ")))
    chat = harness.new()

    class Holder:
        pass

    holder: Any = Holder()
    holder.itself = holder
    holder.talk = chat.stream("Count.")
    assert next(holder.talk) == "One "
    del holder

    async def collect() -> None:
        gc.collect()
        await asyncio.to_thread(harness.wait_for_disconnect)

    harness.run(collect())
    assert chat.send("And?").text == "Hello."


def test_blocking_call_on_its_own_event_loop_is_an_error(tmp_path: Path) -> None:
    """It would block itself, and every other conversation."""
    with chat_harness("blocking", tmp_path) as harness:
        other = harness.new()

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
        harness.upstream.plan_answers(ModelAnswer(calls=calls), ModelAnswer("So."))
        assert harness.new(tools=[expert, reader]).send("Ask.").text == "So."
        outputs = contents(harness.sent_messages())[-2:]
        assert all("take AsyncConversation" in one for one in outputs)
        assert harness.request_count == 2
        assert other.send("And now?").text == "Hello."
