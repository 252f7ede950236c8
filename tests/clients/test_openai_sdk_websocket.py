"""The WebSocket of the official ``openai`` client: ``responses.connect``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.resources.responses.responses import ResponsesConnection
from openai.types.responses import Response, ResponsesServerEvent
from websockets.exceptions import InvalidStatus

from antiphon.errors import ModelError
from antiphon.models.scripted import ScriptedModel, call, calls, fail, say
from support.keyed_server import serving_with_keys
from support.openai_client import WEATHER, serving_client, validate_strictly

#: The client opens its connection in a way that newer websockets have a word to say about.
pytestmark = pytest.mark.filterwarnings(
    "ignore:connect\\(\\) must be used as a context manager:DeprecationWarning"
)

LAST = ("response.completed", "response.failed", "response.incomplete", "error")


def turn(connection: ResponsesConnection) -> list[ResponsesServerEvent]:
    """The events of the turn that was asked for."""
    return list(_until_last(connection))


def _until_last(connection: ResponsesConnection) -> Iterator[ResponsesServerEvent]:
    for event in connection:
        yield event
        if event.type in LAST:
            return


def done(events: list[ResponsesServerEvent]) -> Response:
    last = events[-1]
    assert last.type == "response.completed"
    return validate_strictly(last.response)


def test_turns_on_one_connection() -> None:
    with serving_client(ScriptedModel()) as (_, client):
        with client.responses.connect() as connection:
            connection.response.create(model="scripted", input="I am Alice.")
            events = turn(connection)
            first = done(events)
            assert [event.sequence_number for event in events] == list(range(len(events)))
            assert events[0].type == "response.created"
            connection.response.create(input="Who?", previous_response_id=first.id)
            second = done(turn(connection))
        assert "Before that you said: I am Alice." in second.output_text
        # They are turns like any others.
        assert client.responses.retrieve(second.id) == second


def test_turns_that_are_not_stored_go_on_where_they_were() -> None:
    with serving_client(ScriptedModel()) as (server, client):
        with client.responses.connect() as connection:
            connection.response.create(model="scripted", input="I am Bob.", store=False)
            first = done(turn(connection))
            connection.response.create(input="Who?", previous_response_id=first.id, store=False)
            assert "Before that you said: I am Bob." in done(turn(connection)).output_text
        with client.responses.connect() as connection:
            connection.response.create(input="Who?", previous_response_id=first.id, store=False)
            (error,) = turn(connection)
            assert error.type == "error"
            assert error.error is not None
            assert error.error.code == "previous_response_not_found"
            # The connection is still good.
            connection.response.create(input="Hi", store=False)
            assert done(turn(connection)).status == "completed"
        assert server.stored_count() == 0


def test_a_round_of_tools() -> None:
    model = ScriptedModel([calls(call("get_weather", {"city": "Oslo"}, call_id="c1")), "Snow."])
    with serving_client(model) as (_, client), client.responses.connect() as connection:
        connection.response.create(input="The weather?", tools=[WEATHER], store=False)
        first = done(turn(connection))
        assert [item.type for item in first.output] == ["function_call"]
        connection.response.create(
            input=[{"type": "function_call_output", "call_id": "c1", "output": "snow"}],
            previous_response_id=first.id,
            tools=[WEATHER],
            store=False,
        )
        assert done(turn(connection)).output_text == "Snow."


def test_a_failure_and_a_bad_request() -> None:
    model = ScriptedModel([say("Hel") + fail(ModelError("It broke."))])
    with serving_client(model) as (_, client), client.responses.connect() as connection:
        connection.response.create(input="Hi")
        last = turn(connection)[-1]
        assert last.type == "response.failed"
        assert last.response.error is not None
        assert last.response.error.message == "It broke."
        connection.response.create(input=[])
        (error,) = turn(connection)
        assert error.type == "error"
        assert error.error is not None
        assert error.error.param == "input"


def test_what_means_nothing_here_is_refused() -> None:
    with serving_client(ScriptedModel()) as (server, client):
        with client.responses.connect() as connection:
            connection.response.create(input="Hi", background=True)
            (error,) = turn(connection)
        assert error.type == "error"
        assert error.error is not None
        assert (error.error.code, error.error.param) == ("unsupported_parameter", "background")
        assert server.stored_count() == 0


def test_a_turn_is_prepared_and_then_continued() -> None:
    model = ScriptedModel(["Hello, Bob."])
    with serving_client(model) as (_, client), client.responses.connect() as connection:
        connection.response.create(input="I am Bob.", store=False, generate=False)
        prepared = turn(connection)[-1]
        assert prepared.type == "response.completed"
        assert (prepared.response.output, model.calls) == ([], [])
        connection.response.create(
            input="Who am I?", store=False, previous_response_id=prepared.response.id
        )
        last = turn(connection)[-1]
        assert last.type == "response.completed"
        assert last.response.output_text == "Hello, Bob."
        assert [one["content"] for one in model.context()] == ["I am Bob.", "Who am I?"]


def test_keys() -> None:
    with serving_with_keys() as site:
        someone = site.client()
        with OpenAI(base_url=site.server.base_url, api_key=someone.text) as client:
            with client.responses.connect() as connection:
                connection.response.create(input="Hi")
                kept = done(turn(connection))
            assert client.responses.retrieve(kept.id) == kept
        with (
            OpenAI(base_url=site.server.base_url, api_key="none") as client,
            pytest.raises(InvalidStatus, match="401"),
            client.responses.connect(),
        ):
            raise AssertionError("it connected")


def test_the_asynchronous_client() -> None:
    async def main(client: AsyncOpenAI) -> list[str]:
        said, last = [], None
        async with client.responses.connect() as connection:
            for text in ("I am Carol.", "Who?"):
                await connection.response.create(input=text, previous_response_id=last)
                async for event in connection:
                    if event.type == "response.completed":
                        last = event.response.id
                        said.append(event.response.output_text)
                        break
        return said

    async def with_client(base_url: str) -> list[str]:
        async with AsyncOpenAI(base_url=base_url, api_key="none") as client:
            return await main(client)

    with serving_client(ScriptedModel()) as (server, _):
        said = asyncio.run(with_client(server.base_url))
    assert "Before that you said: I am Carol." in said[1]
