"""Structured output, typed tools, compaction and counting by the official ``openai`` client."""

from __future__ import annotations

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionToolUnionParam
from pydantic import BaseModel

from antiphon.models.scripted import ScriptedModel, call, calls, refuse, say
from support.openai_client import WEATHER, serving_client, validate_strictly

JSON = '{"name":"Ada","born":1815}'


class Person(BaseModel):
    """Someone."""

    name: str
    born: int


class Forecast(BaseModel):
    """The weather in a city."""

    city: str


ADA = Person(name="Ada", born=1815)


def test_an_answer_of_a_shape() -> None:
    model = ScriptedModel([say(JSON), refuse("No.")])
    with serving_client(model) as (_, client):
        parsed = client.responses.parse(model="scripted", input="Who?", text_format=Person)
        assert parsed.output_parsed == ADA
        asked = model.calls[-1].options.text_format
        assert asked is not None
        assert (asked["type"], asked["name"], asked["strict"]) == ("json_schema", "Person", True)
        shown = validate_strictly(client.responses.retrieve(parsed.id)).text
        assert shown is not None
        assert shown.format is not None
        assert shown.format.type == "json_schema"
        refused = client.responses.parse(model="scripted", input="Who?", text_format=Person)
        assert refused.output_parsed is None


def test_a_streamed_answer_of_a_shape() -> None:
    with serving_client(ScriptedModel([say(JSON[:9], JSON[9:])])) as (_, client):
        with client.responses.stream(model="scripted", input="Who?", text_format=Person) as stream:
            whole = [e.parsed for e in stream if e.type == "response.output_text.done"]
            final = stream.get_final_response()
        assert whole == [ADA]
        assert final.output_parsed == ADA


def test_typed_tools() -> None:
    tool = openai.pydantic_function_tool(Forecast)
    function = tool["function"]
    ours = {"type": "function", **function}
    model = ScriptedModel([calls(call("Forecast", {"city": "Oslo"}, call_id="c1"))] * 2)
    with serving_client(model) as (_, client):
        parsed = client.responses.parse(model="scripted", input="Rain?", tools=[ours])  # type: ignore[list-item]
        (item,) = parsed.output
        assert item.type == "function_call"
        assert item.parsed_arguments == {"city": "Oslo"}
        tools: list[ChatCompletionToolUnionParam] = [tool]
        chat = client.chat.completions.parse(
            model="scripted", messages=[{"role": "user", "content": "Rain?"}], tools=tools
        )
        called = chat.choices[0].message.tool_calls
        assert called is not None
        (asked,) = called
        assert asked.function.parsed_arguments == Forecast(city="Oslo")


def test_a_chat_completion_of_a_shape() -> None:
    with serving_client(ScriptedModel([say(JSON), say(JSON[:9], JSON[9:])])) as (_, client):
        parsed = client.chat.completions.parse(
            model="scripted",
            messages=[{"role": "user", "content": "Who?"}],
            response_format=Person,
        )
        assert parsed.choices[0].message.parsed == ADA
        with client.chat.completions.stream(
            model="scripted",
            messages=[{"role": "user", "content": "Who?"}],
            response_format=Person,
        ) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.parsed == ADA


def test_a_chat_with_a_round_of_tools() -> None:
    model = ScriptedModel([calls(call("get_weather", {"city": "Oslo"}, call_id="c1")), "Snow."])
    tool = {"type": "function", "function": {k: v for k, v in WEATHER.items() if k != "type"}}
    with serving_client(model) as (server, client):
        window: list[object] = [{"role": "user", "content": "The weather?"}]
        first = client.chat.completions.create(model="scripted", messages=window, tools=[tool])  # type: ignore[arg-type, list-item]
        assert first.choices[0].finish_reason == "tool_calls"
        window.append(first.choices[0].message)
        window.append({"role": "tool", "tool_call_id": "c1", "content": "snow"})
        second = client.chat.completions.create(model="scripted", messages=window, tools=[tool])  # type: ignore[arg-type, list-item]
        assert second.choices[0].message.content == "Snow."
        assert [message["role"] for message in model.context()] == ["user", "assistant", "tool"]
        assert server.stored_count() == 0


def test_compaction_and_what_goes_on_from_it() -> None:
    model = ScriptedModel(["Hello Alice.", "Alice said hello.", "You are Alice."])
    with serving_client(model) as (_, client):
        first = client.responses.create(input="I am Alice.")
        compact = client.responses.compact(model="scripted", previous_response_id=first.id)
        assert compact.object == "response.compaction"
        assert [item.type for item in compact.output] == ["compaction"]
        assert compact.usage.total_tokens > 0
        window = [*compact.output, {"role": "user", "content": "Who am I?"}]
        second = client.responses.create(input=window, store=False)  # type: ignore[arg-type]
        assert second.output_text == "You are Alice."
        assert "Alice said hello." in str(model.context())
        assert "I am Alice." not in str(model.context())
        with pytest.raises(openai.BadRequestError):
            client.responses.compact(model=None, input="Hi")


def test_counting() -> None:
    with serving_client(ScriptedModel(["Hello."])) as (server, client):
        short = client.responses.input_tokens.count(model="scripted", input="Hi")
        assert short.object == "response.input_tokens"
        long = client.responses.input_tokens.count(model="scripted", input="Hi there, " * 50)
        assert 0 < short.input_tokens < long.input_tokens
        first = client.responses.create(input="I am Alice.")
        after = client.responses.input_tokens.count(input="Hi", previous_response_id=first.id)
        assert after.input_tokens > short.input_tokens
        assert server.stored_count() == 1


async def test_the_asynchronous_client() -> None:
    model = ScriptedModel([JSON, say(JSON[:5], JSON[5:]), JSON, "Summary."])
    with serving_client(model) as (server, _):
        async with AsyncOpenAI(base_url=server.base_url, api_key="none") as client:
            parsed = await client.responses.parse(
                model="scripted", input="Who?", text_format=Person
            )
            assert parsed.output_parsed == ADA
            async with client.responses.stream(
                model="scripted", input="Who?", text_format=Person
            ) as stream:
                final = await stream.get_final_response()
            assert final.output_parsed == ADA
            chat = await client.chat.completions.parse(
                model="scripted",
                messages=[{"role": "user", "content": "Who?"}],
                response_format=Person,
            )
            assert chat.choices[0].message.parsed == ADA
            counted = await client.responses.input_tokens.count(input="Hi")
            assert counted.input_tokens > 0
            compact = await client.responses.compact(model="scripted", input="Hi")
            assert compact.output[0].type == "compaction"
