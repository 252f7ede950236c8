import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from antiphon.core.deltas import (
    Delta,
    Finish,
    OutputTextDelta,
    ReasoningSummaryDelta,
    RefusalTextDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.turns import Options, Usage
from antiphon.errors import ModelError, UpstreamRateLimitError
from antiphon.models.scripted import (
    Messages,
    Pause,
    ScriptedModel,
    call,
    calls,
    cut,
    fail,
    finish,
    hang,
    refuse,
    report_usage,
    say,
    think,
    wait,
)
from antiphon.turn.protocols import Model, ModelCall, ModelInfo
from support.model_calls import call_with_messages


def question(*texts: str, stream: bool = True) -> ModelCall:
    messages = ",".join(f'{{"role":"user","content":"{text}"}}' for text in texts)
    return call_with_messages("scripted", f"[{messages}]".encode(), Options(), stream)


async def batches(model: ScriptedModel, one: ModelCall) -> list[list[Delta]]:
    return [list(batch) async for batch in model.generate(one)]


async def deltas(model: ScriptedModel, one: ModelCall) -> list[Delta]:
    return [delta for batch in await batches(model, one) for delta in batch]


def test_it_is_a_model() -> None:
    model: Model = ScriptedModel(info=ModelInfo("mine", context_window=10))
    assert model.info.name == "mine"


async def test_replies_are_played_one_for_each_call() -> None:
    model = ScriptedModel(["Hello Alice!", say("par", "ts")])
    assert await batches(model, question("I am Alice.")) == [
        [OutputTextDelta("Hello Alice!")],
        [UsageUpdate(Usage(3, 2)), Finish("stop")],
    ]
    assert await batches(model, question("Now", "this")) == [
        [OutputTextDelta("par")],
        [OutputTextDelta("ts")],
        [UsageUpdate(Usage(2, 1)), Finish("stop")],
    ]
    with pytest.raises(ModelError) as caught:
        await batches(model, question("More"))
    assert caught.value.code == "script_exhausted"
    assert [len(model.context(number)) for number in range(3)] == [1, 2, 1]
    assert model.context(0) == [{"role": "user", "content": "I am Alice."}]
    assert model.calls[0] == question("I am Alice.")
    await model.close()


async def test_without_streaming_all_comes_in_one_batch() -> None:
    model = ScriptedModel([think("Hm.") + say("par", "ts")])
    assert await batches(model, question("Hi", stream=False)) == [
        [
            ReasoningSummaryDelta("Hm."),
            OutputTextDelta("par"),
            OutputTextDelta("ts"),
            UsageUpdate(Usage(1, 2)),
            Finish("stop"),
        ]
    ]


async def test_reasoning_refusal_tokens_and_finish_as_scripted() -> None:
    mine = Usage(10, 20, 3, 4)
    model = ScriptedModel([think("a") + refuse("b") + report_usage(mine) + finish("length")])
    assert await deltas(model, question("Hi")) == [
        ReasoningSummaryDelta("a"),
        RefusalTextDelta("b"),
        UsageUpdate(mine),
        Finish("length"),
    ]


async def test_tool_calls_come_side_by_side_in_fragments() -> None:
    tokyo = call("get_weather", {"city": "Tokyo"})
    rome = call("get_time", '{"city":"Rome"}', call_id="call_rome", pieces=2)
    model = ScriptedModel(["first", say("Wait.") + calls(tokyo, rome)])
    await deltas(model, question("Hi"))
    output = await deltas(model, question("Hi"))
    pieces = [delta for delta in output if isinstance(delta, ToolCallDelta)]
    assert [piece.index for piece in pieces] == [0, 1, 0, 1, 0]
    assert pieces[0] == ToolCallDelta(0, "call_2_0", "get_weather", '{"city')
    assert pieces[1] == ToolCallDelta(1, "call_rome", "get_time", '{"city":')
    assert "".join(one.arguments for one in pieces if one.index == 0) == '{"city":"Tokyo"}'
    assert "".join(one.arguments for one in pieces if one.index == 1) == '{"city":"Rome"}'
    assert {(one.call_id, one.name) for one in pieces[2:]} == {(None, None)}
    assert output[-1] == Finish("tool_calls")


@pytest.mark.parametrize(("text", "pieces"), [("", 3), ("{}", 9), ("abcd", 1)])
def test_fragments_of_short_arguments(text: str, pieces: int) -> None:
    fragments = call("f", text, pieces=pieces)
    assert "".join(one.arguments for one in fragments) == text
    assert fragments[0].name == "f"


async def test_a_model_may_give_no_call_id() -> None:
    model = ScriptedModel([calls(call("f", {}, call_id="", pieces=1))])
    assert (await deltas(model, question("Hi")))[0] == ToolCallDelta(0, "", "f", "{}")


@pytest.mark.parametrize("stream", [True, False])
async def test_failing_at_a_chosen_point(stream: bool) -> None:
    error = UpstreamRateLimitError("Slow down.", retry_after=2)
    model = ScriptedModel([say("a", "b") + fail(error) + say("never")])
    parsed: list[Sequence[Delta]] = []

    async def listen() -> None:
        async for batch in model.generate(question("Hi", stream=stream)):
            parsed.append(batch)

    with pytest.raises(UpstreamRateLimitError) as caught:
        await listen()
    assert caught.value is error
    assert parsed == ([[OutputTextDelta("a")], [OutputTextDelta("b")]] if stream else [])


@pytest.mark.parametrize("stream", [True, False])
async def test_a_reply_can_break_off_without_finish(stream: bool) -> None:
    model = ScriptedModel([say("a") + cut() + say("never")])
    assert await batches(model, question("Hi", stream=stream)) == [[OutputTextDelta("a")]]


async def test_hanging_until_cancelled() -> None:
    reached = asyncio.Event()
    model = ScriptedModel([say("a") + hang(reached)])
    task = asyncio.create_task(batches(model, question("Hi")))
    await reached.wait()
    assert not model.cancelled.is_set()
    task.cancel()
    await model.cancelled.wait()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closing_between_deltas_is_seen_too() -> None:
    model = ScriptedModel([say("a", "b")])
    async with aclosing(model.generate(question("Hi"))) as answer:
        assert await anext(answer) == [OutputTextDelta("a")]
    assert model.cancelled.is_set()


async def test_a_gate_holds_the_reply_until_it_is_opened() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([say("a") + wait(opened, reached) + say("b")])
    async with aclosing(model.generate(question("Hi"))) as answer:
        assert await anext(answer) == [OutputTextDelta("a")]
        second = asyncio.ensure_future(anext(answer))
        await reached.wait()
        assert not second.done()
        opened.set()
        assert await second == [OutputTextDelta("b")]


async def test_a_delay_comes_before_each_part() -> None:
    reply = say("a", "b", delay=0.001)
    assert reply.steps == (
        Pause(0.001),
        OutputTextDelta("a"),
        Pause(0.001),
        OutputTextDelta("b"),
    )
    assert (await deltas(ScriptedModel([reply]), question("Hi")))[:2] == [
        OutputTextDelta("a"),
        OutputTextDelta("b"),
    ]


async def test_a_function_replies_to_what_it_is_shown() -> None:
    def reply(messages: Messages) -> str:
        return f"{len(messages)}: {messages[-1]['content']}"

    model = ScriptedModel(reply)
    assert (await deltas(model, question("a", "b")))[0] == OutputTextDelta("2: b")


async def test_without_a_script_it_echoes_and_recalls() -> None:
    model = ScriptedModel()
    first = await deltas(model, question("I am Alice."))
    assert [one.text for one in first if isinstance(one, OutputTextDelta)] == [
        "You said: I am Alice.\n",
        "(I was shown 1 messages.)",
    ]
    assert OutputTextDelta("Before that you said: I am Alice.\n") in await deltas(
        model, question("I am Alice.", "Who am I?")
    )
    none = call_with_messages("scripted", b"[]", Options(), True)
    assert (await deltas(model, none))[0] == OutputTextDelta("You said: \n")


async def test_words_are_counted_in_parts_too() -> None:
    model = ScriptedModel(["one two three"])
    content = b'[{"type":"text","text":"a b"},{"type":"image_url","image_url":{"url":"x"}}]'
    messages = b'[{"role":"user","content":' + content + b'},{"role":"assistant"}]'
    output = await deltas(model, call_with_messages("scripted", messages, Options(), True))
    assert output[1] == UsageUpdate(Usage(2, 3))


async def test_what_it_counts_is_what_it_reports() -> None:
    model = ScriptedModel()
    requested = question("I am Alice.", "Who am I?")
    (usage,) = [one.usage for one in await deltas(model, requested) if isinstance(one, UsageUpdate)]
    assert await model.count_tokens(requested) == usage.input_tokens == 6
