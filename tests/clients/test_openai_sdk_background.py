"""The official ``openai`` client with turns in the background: polled, read along, cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response

from antiphon.models.scripted import ScriptedModel, hang, say, wait
from support.http_server import TIMEOUT, ThreadServer
from support.openai_client import serving_client, validate_strictly


class Held:
    """A model that says "One ", then "two." when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.reached = asyncio.Event()
        counting = say("One ") + wait(self.go, self.reached) + say("two.")
        self.model = ScriptedModel([counting, "Three."])


@contextmanager
def held() -> Iterator[tuple[Held, ThreadServer, OpenAI]]:
    one = Held()
    with serving_client(one.model) as (server, client):
        yield one, server, client


def polled(client: OpenAI, response: Response) -> Response:
    """The response, asked for until it has an end, as the documentation does it."""
    late = time.monotonic() + TIMEOUT
    while response.status in ("queued", "in_progress"):
        assert time.monotonic() < late
        response = client.responses.retrieve(response.id)
    return response


def test_a_turn_in_the_background_is_polled() -> None:
    with held() as (one, server, client):
        queued = validate_strictly(client.responses.create(input="Count.", background=True))
        assert (queued.status, queued.background, queued.output) == ("queued", True, [])
        server.wait(one.reached)
        running = validate_strictly(client.responses.retrieve(queued.id))
        assert running.status == "in_progress"
        server.set(one.go)
        done = validate_strictly(polled(client, running))
        assert (done.status, done.output_text) == ("completed", "One two.")
        more = client.responses.create(input="More.", previous_response_id=done.id)
        assert more.output_text == "Three."


def test_a_stream_is_taken_up_again_behind_any_event() -> None:
    with held() as (one, server, client):
        first = []
        for event in client.responses.create(input="Count.", background=True, stream=True):
            first.append(event)
            if event.type == "response.output_text.delta":
                break
        name = first[0].response.id  # type: ignore[union-attr]
        cursor = first[-1].sequence_number
        server.set(one.go)
        rest = list(client.responses.retrieve(name, stream=True, starting_after=cursor))
        numbers = [event.sequence_number for event in (*first, *rest)]
        assert numbers == list(range(len(numbers)))
        assert rest[-1].type == "response.completed"
        assert rest[-1].response.output_text == "One two."
        whole = list(client.responses.retrieve(name, stream=True))
        assert whole == [*first, *rest]
        for place in range(len(whole)):
            assert whole[place + 1 :] == list(
                client.responses.retrieve(name, stream=True, starting_after=place)
            )


def test_the_stream_helper_takes_up_a_response() -> None:
    with held() as (one, server, client):
        with client.responses.stream(model="scripted", input="Count.", background=True) as stream:
            created = next(iter(stream))
            assert created.type == "response.created"
        server.set(one.go)
        name = created.response.id
        with client.responses.stream(response_id=name) as again:
            snapshots = [e.snapshot for e in again if e.type == "response.output_text.delta"]
            final = again.get_final_response()
        assert snapshots == ["One ", "One two."]
        assert (final.id, final.output_text) == (name, "One two.")
        # Behind its first delta the helper still knows what was said before.
        with client.responses.stream(response_id=name, starting_after=5) as behind:
            late = [e.snapshot for e in behind if e.type == "response.output_text.delta"]
        assert late == ["One two."]


@pytest.mark.parametrize("stream", [True, False])
def test_cancelling(stream: bool) -> None:
    reached = asyncio.Event()
    with serving_client(ScriptedModel([say("One ") + hang(reached), "Again."])) as (server, client):
        name = begun(client, stream)
        server.wait(reached)
        stopped = validate_strictly(client.responses.cancel(name))
        # A model that was asked for the whole has nothing to show before its end.
        assert (stopped.status, stopped.output_text) == ("cancelled", "One " if stream else "")
        assert client.responses.cancel(name) == stopped
        assert client.responses.retrieve(name) == stopped
        done = client.responses.create(input="Count.")
        with pytest.raises(openai.BadRequestError, match=r"Cannot cancel a completed response\."):
            client.responses.cancel(done.id)
        assert client.responses.retrieve(done.id) == done
        with pytest.raises(openai.NotFoundError):
            client.responses.cancel("resp_" + "0" * 32)


def begun(client: OpenAI, stream: bool) -> str:
    """The id of a turn that was begun in the background."""
    if not stream:
        return client.responses.create(input="Count.", background=True).id
    with client.responses.stream(model="scripted", input="Count.", background=True) as events:
        first = next(iter(events))
    assert first.type == "response.created"
    return first.response.id


async def test_the_asynchronous_client() -> None:

    with held() as (one, server, _):
        async with AsyncOpenAI(base_url=server.base_url, api_key="none") as client:
            queued = await client.responses.create(input="Count.", background=True)
            await asyncio.to_thread(server.wait, one.reached)
            stream = await client.responses.retrieve(queued.id, stream=True, starting_after=2)
            server.set(one.go)
            events = [event async for event in stream]
            assert [event.sequence_number for event in events][:2] == [3, 4]
            assert events[-1].type == "response.completed"
            kept = await client.responses.retrieve(queued.id)
            assert kept.output_text == "One two."
