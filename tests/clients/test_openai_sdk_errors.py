"""What goes wrong, as the official ``openai`` client's own kinds of errors."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import msgspec
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from antiphon.models.scripted import ScriptedModel, hang, say
from support.http_server import ThreadServer
from support.keyed_server import Client, serving_with_keys
from support.openai_client import client_of, serving_client

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 32).decode()
MISSING = "resp_" + "0" * 32

KING: Any = [{"role": "king", "content": "Hi"}]

Ask: TypeAlias = Callable[[OpenAI], object]

#: What is asked, and the parameter at fault.
BAD: list[tuple[Ask, str | None]] = [
    (lambda c: c.responses.create(input=[]), "input"),
    (lambda c: c.responses.create(input=KING), "input[0]"),
    (lambda c: c.responses.create(input="Hi", temperature=9), "temperature"),
    (lambda c: c.responses.create(input="Hi", metadata={"a" * 65: "b"}), "metadata"),
    (lambda c: c.responses.create(input="Hi", background=True, store=False), "background"),
    (
        lambda c: c.responses.create(
            input="Hi", previous_response_id=MISSING, conversation="conv_" + "0" * 32
        ),
        "",
    ),
    (lambda c: c.responses.input_items.list(MISSING, limit=0), None),
    (lambda c: c.chat.completions.create(model="scripted", messages=[]), "messages"),
    (lambda c: c.conversations.create(items=[{"role": "user"}]), None),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("ask", "param"), BAD)
def test_bad_requests(server: ThreadServer, ask: Ask, param: str | None) -> None:
    before = server.stored_count()
    with client_of(server) as client, pytest.raises(openai.APIStatusError) as caught:
        ask(client)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.code
    assert caught.value.request_id
    if param is not None:
        assert isinstance(caught.value, openai.BadRequestError)
        assert (caught.value.param or "").startswith(param)
    assert server.stored_count() == before


LOST: list[Ask] = [
    lambda c: c.responses.retrieve(MISSING),
    lambda c: c.responses.retrieve(MISSING, stream=True),
    lambda c: c.responses.delete(MISSING),
    lambda c: c.responses.cancel(MISSING),
    lambda c: c.responses.input_items.list(MISSING),
    lambda c: c.responses.create(model="other", input="Hi"),
    lambda c: c.responses.create(input="Hi", conversation="conv_" + "0" * 32),
    lambda c: c.conversations.retrieve("conv_" + "0" * 32),
    lambda c: c.chat.completions.create(
        model="other", messages=[{"role": "user", "content": "Hi"}]
    ),
]


@pytest.mark.parametrize("ask", LOST)
def test_what_is_not_there(server: ThreadServer, ask: Ask) -> None:
    with client_of(server) as client, pytest.raises(openai.NotFoundError):
        ask(client)


@pytest.mark.parametrize("stream", [False, True])
def test_a_missing_previous_response_is_a_bad_request(server: ThreadServer, stream: bool) -> None:
    """As the service answers: the URL is right, the body is not."""
    with client_of(server) as client, pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(input="Hi", previous_response_id=MISSING, stream=stream)
    assert caught.value.code == "previous_response_not_found"


def test_an_image_that_is_none(server: ThreadServer) -> None:
    part: Any = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG[:8]}"}
    with client_of(server) as client, pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(input=[{"role": "user", "content": [part]}])
    assert caught.value.code in ("invalid_image", "unsupported_image_type")


@contextmanager
def keyed_client(someone: Client, key: str | None = None) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=someone.server.base_url, api_key=key or someone.text, max_retries=0
    ) as client:
        yield client


def test_keys() -> None:
    with serving_with_keys() as site:
        someone, other = site.client("acme"), site.client("other")
        with keyed_client(someone) as client:
            kept = client.responses.create(input="Hi")
            assert client.responses.retrieve(kept.id) == kept
        with keyed_client(other) as client, pytest.raises(openai.NotFoundError):
            client.responses.retrieve(kept.id)
        for key in ("none", "ak-" + "0" * 40):
            with keyed_client(someone, key) as client:
                with pytest.raises(openai.AuthenticationError) as caught:
                    client.responses.create(input="Hi")
                assert caught.value.code == "invalid_api_key"
                assert key not in str(caught.value)
        site.revoke(someone)
        with keyed_client(someone) as client, pytest.raises(openai.AuthenticationError):
            client.models.list()


class Little(msgspec.Struct, frozen=True):
    requests_per_minute: int | None = 2
    concurrent_turns: int | None = None


def test_too_many_requests() -> None:
    with serving_with_keys(rate_limit_for=lambda _: Little()) as site:
        with keyed_client(site.client()) as client:
            client.responses.create(input="One")
            client.responses.create(input="Two")
            with pytest.raises(openai.RateLimitError) as caught:
                client.responses.create(input="Three")
        assert caught.value.code == "rate_limit_exceeded"
        assert int(caught.value.response.headers["retry-after"]) >= 1


def test_what_runs_cannot_be_continued_yet() -> None:
    reached = asyncio.Event()
    with serving_client(ScriptedModel([say("One ") + hang(reached)])) as (server, client):
        talk = client.conversations.create()
        once = client.with_options(max_retries=0)
        running = client.responses.create(input="Count.", conversation=talk.id, background=True)
        server.wait(reached)
        with pytest.raises(openai.ConflictError) as caught:
            once.responses.create(input="More.", previous_response_id=running.id)
        assert caught.value.code == "response_in_progress"
        with pytest.raises(openai.ConflictError) as caught:
            once.responses.create(input="More.", conversation=talk.id)
        assert caught.value.code == "conversation_locked"
        client.responses.cancel(running.id)


def test_a_request_that_is_repeated(server: ThreadServer) -> None:
    headers = {"Idempotency-Key": "the first"}
    with client_of(server) as client:
        first = client.responses.create(input="Hi", extra_headers=headers)
        assert client.responses.create(input="Hi", extra_headers=headers) == first
        with pytest.raises(openai.ConflictError) as caught:
            client.with_options(max_retries=0).responses.create(input="Ho", extra_headers=headers)
    assert caught.value.code == "idempotency_key_in_use"


async def test_the_asynchronous_client_has_the_same_errors(server: ThreadServer) -> None:
    async with AsyncOpenAI(base_url=server.base_url, api_key="none") as client:
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(MISSING)
        with pytest.raises(openai.BadRequestError):
            await client.responses.create(input="Hi", temperature=9, stream=True)
