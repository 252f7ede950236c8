"""Which model answers where none was named: the only one that the endpoint lists."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from antiphon.bootstrap import Engine, open_engine
from antiphon.core.items import Message
from antiphon.core.turns import TurnRequest
from antiphon.errors import InvalidRequestError
from antiphon.models.openai.upstream_model import decode_model_list, why_undecided
from antiphon.models.retry import AttemptError
from antiphon.settings import ModelSettings, Secret, Settings
from support.misbehaving_upstream import CUT, Behaviour, MisbehavingUpstream, answer, models, refuse

KEY = "sk-a-secret-key-of-ours"


def with_engine(work: Callable[[Engine, MisbehavingUpstream], Awaitable[None]]) -> None:
    """An engine for which a base URL and a key were given, and no model."""

    async def main() -> None:
        async with MisbehavingUpstream() as upstream:
            given = ModelSettings(
                kind="chat_completions", base_url=upstream.base_url, api_key=Secret(KEY)
            )
            settings = Settings(store="memory:", model=None, upstream=given)
            async with open_engine(settings) as engine:
                await work(engine, upstream)

    asyncio.run(main())


async def output(engine: Engine) -> str:
    """The model that a turn without one was answered by."""
    turn = await engine.service.start(TurnRequest((Message("user", "Hi"),)))
    response = await turn.result()
    assert response.status == "completed"
    return response.header.model


def test_the_only_one_is_taken() -> None:
    async def work(engine: Engine, upstream: MisbehavingUpstream) -> None:
        assert await engine.choose_model()
        assert engine.default_model() == "only"
        assert await output(engine) == "only"
        requested, turn = upstream.requests
        assert (requested.method, requested.path) == ("GET", "/v1/models")
        assert requested.headers["authorization"] == f"Bearer {KEY}"
        assert turn.json["model"] == "only"
        assert engine.service.models.items()[0][0] == "only"

    with_engine(work)


@pytest.mark.parametrize(
    ("behaviour", "words", "answered"),
    [
        (models("a", "b"), "has a, b.", True),
        (models(), "lists none", False),
        (answer(b'{"object":"list","data":null}'), "lists none", False),
        (refuse(401, {"error": {"message": f"Wrong key {KEY}."}}), "Wrong key [key]", False),
        (refuse(404), "Check the base URL", False),
        (answer(f"<html>{KEY}".encode()), "cannot be read", False),
        ([CUT], "closed the connection", False),
    ],
)
def test_the_error_lists_the_available_models(
    behaviour: Behaviour, words: str, answered: bool
) -> None:
    async def work(engine: Engine, upstream: MisbehavingUpstream) -> None:
        # Twice: the HTTP client itself repeats a GET whose connection was cut.
        upstream.then(behaviour, behaviour)
        assert await engine.choose_model() is answered
        assert engine.default_model() is None
        with pytest.raises(InvalidRequestError) as refused:
            await output(engine)
        message = refused.value.message
        assert words in message
        assert message.startswith(f"Name a model: 127.0.0.1:{upstream.port} ")
        assert KEY not in message
        assert (refused.value.status, refused.value.param) == (400, "model")

    with_engine(work)


def test_a_slow_endpoint_is_queried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.bootstrap._ASK_AGAIN_SECONDS", 0.0)

    async def work(engine: Engine, upstream: MisbehavingUpstream) -> None:
        upstream.then([CUT], models(), models("late"))
        await engine.keep_choosing()
        assert await output(engine) == "late"

    with_engine(work)


async def test_a_model_that_was_named_is_not_looked_for() -> None:
    async with MisbehavingUpstream() as upstream:
        given = ModelSettings(kind="chat_completions", base_url=upstream.base_url)
        settings = Settings(store="memory:", model="mine", upstream=given)
        async with open_engine(settings) as engine:
            assert await engine.choose_model()
            assert engine.default_model() == "mine"
        assert upstream.requests == []


def test_names() -> None:
    listed = [{"id": name} for name in ("a", "b", "a", "", "\x1b[31m", "x" * 500)]
    assert decode_model_list(json.dumps({"data": listed}).encode()) == ["a", "b"]
    for body in (b"", b"[]", b'{"data": [{"name": "a"}]}', b'{"data": 3}', b"\xff"):
        with pytest.raises(AttemptError):
            decode_model_list(body)
    many = why_undecided("host", [str(number) for number in range(30)])
    assert many.endswith("18, 19 and 10 more.")
