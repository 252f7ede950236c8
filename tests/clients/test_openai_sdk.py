"""The official ``openai`` client, unmodified, against the real server."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import Response, ResponseInputParam

from antiphon.core.turns import Usage
from antiphon.errors import (
    AntiphonError,
    ModelError,
    ModelTimeoutError,
    ModelUnavailableError,
    UpstreamRateLimitError,
)
from antiphon.models.scripted import (
    ScriptedModel,
    call,
    calls,
    fail,
    finish,
    refuse,
    report_usage,
    say,
    think,
    wait,
)
from support.http_server import ThreadServer
from support.openai_client import WEATHER, serving_client, validate_strictly


def test_a_conversation(client: OpenAI) -> None:
    first = client.responses.create(model="scripted", input="My name is Alice.")
    second = client.responses.create(
        model="scripted", input="What is my name?", previous_response_id=first.id
    )
    assert first.output_text == "You said: My name is Alice.\n(I was shown 1 messages.)"
    assert "Before that you said: My name is Alice." in second.output_text
    assert "I was shown 3 messages" in second.output_text
    for response in (first, second):
        validate_strictly(response)
        assert response.status == "completed"
        assert validate_strictly(client.responses.retrieve(response.id)) == response
    assert second.previous_response_id == first.id


def test_two_branches(client: OpenAI) -> None:
    root = client.responses.create(input="Root")
    left = client.responses.create(input="Left", previous_response_id=root.id)
    right = client.responses.create(input="Right", previous_response_id=root.id)
    for branch, said in ((left, "Left"), (right, "Right")):
        assert branch.output_text.startswith(f"You said: {said}\nBefore that you said: Root\n")
        more = client.responses.create(input="More", previous_response_id=branch.id)
        assert f"Before that you said: {said}\n" in more.output_text


def test_what_came_back_can_be_sent_in_again() -> None:
    reply = think("Hm.") + say("Hello") + refuse("No more.") + calls(call("f", {}, call_id="c1"))
    model = ScriptedModel([reply, "Done"])
    with serving_client(model) as (_, client):
        window: ResponseInputParam = [{"role": "user", "content": "Hi"}]
        first = client.responses.create(input=window, tools=[WEATHER], store=False)
        window += first.output  # type: ignore[arg-type]
        window += [{"type": "function_call_output", "call_id": "c1", "output": "3"}]
        second = client.responses.create(input=window, tools=[WEATHER])
        assert second.output_text == "Done"
        shown = model.context()
        assert [message["role"] for message in shown] == [
            "user",
            "assistant",
            "assistant",
            "tool",
        ]
        assert (shown[1]["content"], shown[2]["content"]) == ("Hello", "No more.")
        assert shown[2]["tool_calls"][0]["id"] == "c1"
        # All of it is listed as it was sent, and that can be sent in again as well.
        listed = client.responses.input_items.list(second.id, order="asc").data
        assert [item.type for item in listed] == [
            "message",
            "reasoning",
            "message",
            "message",
            "function_call",
            "function_call_output",
        ]


def test_dumped_models_come_back_with_nulls() -> None:
    model = ScriptedModel([say("Hello") + calls(call("f", {}, call_id="c1")), "Done"])
    with serving_client(model) as (_, client):
        first = client.responses.create(input="Hi")
        window: Any = [item.model_dump() for item in first.output]
        window.append({"type": "function_call_output", "call_id": "c1", "output": "3", "id": None})
        client.responses.create(input=window)
        assert [message["role"] for message in model.context()] == ["assistant", "tool"]


def test_every_option_is_shown(client: OpenAI) -> None:
    response = validate_strictly(
        client.responses.create(
            model="scripted",
            input="Hi",
            instructions="Be brief.",
            temperature=0.0,
            top_p=0.5,
            max_output_tokens=50,
            metadata={"topic": "demo"},
            tools=[WEATHER],
            tool_choice={"type": "function", "name": "get_weather"},
            parallel_tool_calls=False,
            text={"format": {"type": "json_object"}},
            truncation="auto",
        )
    )
    assert (response.temperature, response.top_p, response.max_output_tokens) == (0.0, 0.5, 50)
    assert response.metadata == {"topic": "demo"}
    assert response.instructions == "Be brief."
    assert response.parallel_tool_calls is False
    assert response.truncation == "auto"
    assert [tool.to_dict() for tool in response.tools] == [WEATHER]
    assert response.text is not None
    assert response.text.to_dict() == {"format": {"type": "json_object"}}
    assert client.responses.retrieve(response.id) == response


def test_options_reach_the_model() -> None:
    model = ScriptedModel(["Hello"])
    with serving_client(model) as (_, client):
        client.responses.create(
            input="Hi", instructions="Be brief.", temperature=0.0, top_p=0.5, max_output_tokens=50
        )
        options = model.calls[0].options
        assert (options.temperature, options.top_p, options.max_output_tokens) == (0.0, 0.5, 50)
        assert model.context() == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ]


def test_instructions_are_for_one_turn() -> None:
    model = ScriptedModel(["One", "Two"])
    with serving_client(model) as (_, client):
        first = client.responses.create(input="Hi", instructions="Be brief.")
        second = client.responses.create(input="Again", previous_response_id=first.id)
        assert second.instructions is None
        assert [message["role"] for message in model.context()] == ["user", "assistant", "user"]


def test_what_is_not_stored_is_not_there(client: OpenAI) -> None:
    response = client.responses.create(input="Hi", store=False)
    assert validate_strictly(response).to_dict()["store"] is False
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.retrieve(response.id)
    assert caught.value.code == "response_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(input="More", previous_response_id=response.id)
    assert refused.value.code == "previous_response_not_found"
    assert refused.value.param == "previous_response_id"
    assert refused.value.type == "invalid_request_error"


def test_an_unstored_turn_can_end_a_stored_conversation(client: OpenAI) -> None:
    first = client.responses.create(input="One")
    aside = client.responses.create(input="Two", previous_response_id=first.id, store=False)
    assert "Before that you said: One" in aside.output_text


def test_deleting(client: OpenAI) -> None:
    response = client.responses.create(input="Hi")
    client.responses.delete(response.id)
    for gone in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            gone(response.id)


def test_input_items_page_by_page(client: OpenAI) -> None:
    given: ResponseInputParam = [{"role": "user", "content": f"{place}"} for place in range(45)]
    response = client.responses.create(input=given)

    def said(items: Any) -> list[str]:
        return [item.content[0].text for item in items]

    page = client.responses.input_items.list(response.id)
    assert said(page.data) == [str(place) for place in range(44, 24, -1)]
    assert page.has_more is True
    everything = [str(place) for place in range(45)]
    assert said(client.responses.input_items.list(response.id, order="asc")) == everything
    assert said(client.responses.input_items.list(response.id, limit=7)) == everything[::-1]
    after = page.data[-1].id
    assert after is not None
    rest = client.responses.input_items.list(response.id, after=after, limit=100)
    assert said(rest.data) == everything[24::-1]
    assert rest.has_more is False


def test_a_stream(client: OpenAI) -> None:
    events = list(client.responses.create(input="One\nTwo", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert [event.type for event in events[-4:]] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    first, last = events[0], events[-1]
    assert first.type == "response.created"
    assert last.type == "response.completed"
    validate_strictly(first.response)
    said = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert said == last.response.output_text
    assert client.responses.retrieve(first.response.id) == validate_strictly(last.response)


def test_the_stream_helper() -> None:
    weather = [call("get_weather", {"city": city}, call_id=city) for city in ("Oslo", "Rome")]
    model = ScriptedModel([think("Hm.") + say("Let ", "me see.") + calls(*weather), refuse("No.")])
    with serving_client(model) as (_, client):
        with client.responses.stream(model="scripted", input="Hi", tools=[WEATHER]) as stream:
            snapshots = [e.snapshot for e in stream if e.type == "response.output_text.delta"]
            final = stream.get_final_response()
        assert snapshots == ["Let ", "Let me see."]
        assert final.output_text == "Let me see."
        called = [item for item in final.output if item.type == "function_call"]
        assert [item.arguments for item in called] == ['{"city":"Oslo"}', '{"city":"Rome"}']
        assert [item.call_id for item in called] == ["Oslo", "Rome"]
        with client.responses.stream(model="scripted", input="Hi") as stream:
            kinds = [event.type for event in stream]
            refusal = stream.get_final_response().output[0]
        assert "response.refusal.done" in kinds
        assert refusal.type == "message"
        assert refusal.content[0].type == "refusal"


@pytest.mark.parametrize("stream", [True, False])
def test_a_round_of_tools(stream: bool) -> None:
    model = ScriptedModel(
        [
            calls(
                call("get_weather", {"city": "Oslo"}, call_id="c1"),
                call("get_weather", {"city": "Rome"}, call_id="c2"),
            ),
            "Snow, and sun.",
        ]
    )

    def ask(client: OpenAI, **fields: Any) -> Response:
        if not stream:
            whole: Response = client.responses.create(tools=[WEATHER], **fields)
            return whole
        last = list(client.responses.create(tools=[WEATHER], stream=True, **fields))[-1]
        assert last.type == "response.completed"
        streamed: Response = last.response
        return streamed

    with serving_client(model) as (_, client):
        first = ask(client, input="The weather?")
        assert [item.type for item in first.output] == ["function_call"] * 2
        # All outputs are owed: with one of them the conversation does not go on.
        one: Any = {"type": "function_call_output", "call_id": "c1", "output": "snow"}
        two: Any = {"type": "function_call_output", "call_id": "c2", "output": "sun"}
        with pytest.raises(openai.BadRequestError, match="c2"):
            ask(client, input=[one], previous_response_id=first.id)
        second = ask(client, input=[two, one], previous_response_id=first.id)
        assert second.output_text == "Snow, and sun."
        shown = model.context()
        assert [message["role"] for message in shown] == ["user", "assistant", "tool", "tool"]
        assert [message["content"] for message in shown[2:]] == ["snow", "sun"]
        assert len(model.calls) == 2


def test_usage_is_shown() -> None:
    with serving_client(ScriptedModel([say("Hello") + report_usage(Usage(10, 20, 5, 7))])) as (
        _,
        client,
    ):
        usage = client.responses.create(input="Hi").usage
        assert usage is not None
        assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (10, 20, 30)
        assert usage.input_tokens_details.cached_tokens == 5
        assert usage.output_tokens_details.reasoning_tokens == 7


FAILURES: list[tuple[AntiphonError, type[openai.APIStatusError], int]] = [
    (UpstreamRateLimitError("Slow down.", retry_after=1), openai.RateLimitError, 429),
    (ModelError("It broke."), openai.InternalServerError, 502),
    (ModelTimeoutError("Too slow."), openai.InternalServerError, 504),
    (ModelUnavailableError("Gone."), openai.InternalServerError, 503),
]


@pytest.mark.parametrize(("error", "kind", "status"), FAILURES)
def test_a_failure_leaves_one_turn(
    error: AntiphonError, kind: type[openai.APIStatusError], status: int
) -> None:
    with serving_client(ScriptedModel([say("Hel") + fail(error)])) as (server, client):
        with pytest.raises(kind) as caught:
            client.responses.create(input="Hi")
        assert caught.value.status_code == status
        assert caught.value.code == error.code
        assert isinstance(caught.value.body, dict)
        kept = client.responses.retrieve(caught.value.body["response_id"])
        assert kept.status == "failed"
        assert kept.error is not None
        assert (kept.error.code, kept.error.message) == (error.code, error.message)
        # The client tries again by itself unless it is told not to.
        assert server.stored_count() == 1


def test_a_failure_in_the_middle_of_a_stream() -> None:
    opened = asyncio.Event()
    model = ScriptedModel([say("Hel") + wait(opened) + fail(ModelError("It broke."))])
    with serving_client(model) as (server, client):
        events = []
        for event in client.responses.create(input="Hi", stream=True):
            events.append(event)
            if event.type == "response.output_text.delta":
                server.set(opened)
        last = events[-1]
        assert last.type == "response.failed"
        assert last.response.status == "failed"
        assert last.response.output_text == "Hel"
        assert last.response.error is not None
        assert last.response.error.message == "It broke."
        assert client.responses.retrieve(last.response.id) == last.response
        assert server.stored_count() == 1


def test_an_answer_that_was_cut_short() -> None:
    with serving_client(ScriptedModel([say("Hel") + finish("length")])) as (_, client):
        response = validate_strictly(client.responses.create(input="Hi", max_output_tokens=1))
        assert response.status == "incomplete"
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["scripted"]
    assert client.models.retrieve("scripted").owned_by == "antiphon"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="other", input="Hi")


def test_a_chat_completion(server: ThreadServer, client: OpenAI) -> None:
    before = server.stored_count()
    window: list[ChatCompletionMessageParam] = [{"role": "user", "content": "One"}]
    first = client.chat.completions.create(model="scripted", messages=window)
    window.append(first.choices[0].message)  # type: ignore[arg-type]
    window.append({"role": "user", "content": "Two"})
    second = client.chat.completions.create(model="scripted", messages=window)
    said = second.choices[0].message.content
    assert said == "You said: Two\nBefore that you said: One\n(I was shown 3 messages.)"
    assert second.choices[0].finish_reason == "stop"
    assert second.usage is not None
    assert server.stored_count() == before


def test_a_chat_completion_streamed(client: OpenAI) -> None:
    window: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]
    stream = client.chat.completions.create(model="scripted", messages=window, stream=True)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert said == "You said: Hi\n(I was shown 1 messages.)"
    chunks = list(
        client.chat.completions.create(
            model="scripted",
            messages=window,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].usage is not None
    assert chunks[-1].choices == []


def test_chat_tools_by_the_stream_helper() -> None:
    weather = [call("get_weather", {"city": city}, call_id=city) for city in ("Oslo", "Rome")]
    with serving_client(ScriptedModel([say("Let me see.") + calls(*weather)])) as (_, client):
        with client.chat.completions.stream(
            model="scripted", messages=[{"role": "user", "content": "Hi"}]
        ) as stream:
            kinds = [event.type for event in stream]
            message = stream.get_final_completion().choices[0].message
        assert message.content == "Let me see."
        assert message.tool_calls is not None
        assert [one.function.arguments for one in message.tool_calls] == [
            '{"city":"Oslo"}',
            '{"city":"Rome"}',
        ]
        assert "content.done" in kinds


def test_a_chat_failure_in_the_middle_of_a_stream() -> None:
    opened = asyncio.Event()
    model = ScriptedModel([say("Hel") + wait(opened) + fail(ModelError("It broke."))])
    with serving_client(model) as (server, client):
        stream = client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        said = []

        def read() -> None:
            for chunk in stream:
                said.append(chunk.choices[0].delta.content)
                if said[-1]:
                    server.set(opened)

        with pytest.raises(openai.APIError, match="It broke"):
            read()
        assert said == ["", "Hel"]


def test_the_asynchronous_client(server: ThreadServer) -> None:
    async def talk(client: AsyncOpenAI, name: str) -> list[str]:
        first = await client.responses.create(input=f"I am {name}.")
        said = [first.output_text]
        last = first
        async with client.responses.stream(
            model="scripted", input="Who am I?", previous_response_id=first.id
        ) as stream:
            async for event in stream:
                if event.type == "response.completed":
                    last = event.response
        said.append(last.output_text)
        kept = await client.responses.retrieve(last.id)
        assert kept.output_text == last.output_text
        items = [item async for item in client.responses.input_items.list(last.id, limit=1)]
        assert len(items) == 1
        chat = await client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": name}]
        )
        return [*said, chat.choices[0].message.content or ""]

    async def main() -> list[list[str]]:
        async with AsyncOpenAI(base_url=server.base_url, api_key="none") as client:
            names = ("Alice", "Bob", "Carol")
            return await asyncio.gather(*(talk(client, name) for name in names))

    for name, said in zip(("Alice", "Bob", "Carol"), asyncio.run(main()), strict=True):
        assert said == [
            f"You said: I am {name}.\n(I was shown 1 messages.)",
            f"You said: Who am I?\nBefore that you said: I am {name}.\n(I was shown 3 messages.)",
            f"You said: {name}\n(I was shown 1 messages.)",
        ]
