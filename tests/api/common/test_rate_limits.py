"""How much one key may ask for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.api.common.rate_limits import KeyUsage
from antiphon.errors import RateLimitError
from antiphon.models.scripted import ScriptedModel, say, wait
from support.http_server import Answer, parse_events
from support.keyed_server import KeyedServer, serving_with_keys


class Allowed(msgspec.Struct, frozen=True):
    requests_per_minute: int | None = None
    concurrent_turns: int | None = None


class Ticking:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def refused(answer: Answer, retry_after: str) -> None:
    assert answer.status == 429
    assert answer.headers["retry-after"] == retry_after
    assert (answer.error["type"], answer.error["code"]) == (
        "rate_limit_error",
        "rate_limit_exceeded",
    )


def wait_for(account: KeyUsage) -> float | None:
    """Spend a request; seconds to wait for it if there is none left."""
    try:
        account.consume()
    except RateLimitError as refusal:
        return refusal.retry_after
    return None


# The rule.


@given(
    st.integers(1, 1000),
    st.lists(st.floats(0, 100, allow_nan=False), max_size=200),
)
def test_never_more_than_a_minutes_worth_and_what_time_gave(
    per_minute: int, pauses: list[float]
) -> None:
    clock = Ticking()
    account = KeyUsage(Allowed(per_minute), clock)
    for granted, pause in enumerate(pauses, 1):
        clock.now += pause
        if (seconds := wait_for(account)) is not None:
            # After the time that was said one is granted.
            clock.now += seconds + 1e-6
            account.consume()
        assert granted <= per_minute + clock.now * per_minute / 60 + 1e-6
        remaining = int(dict(account.headers())[b"x-ratelimit-remaining-requests"])
        assert 0 <= remaining < per_minute


def test_a_pause_saves_up_one_minutes_worth_and_no_more() -> None:
    clock = Ticking()
    account = KeyUsage(Allowed(3), clock)
    clock.now += 3600
    for _ in range(3):
        account.consume()
    with pytest.raises(RateLimitError) as refusal:
        account.consume()
    assert refusal.value.retry_after == pytest.approx(20)
    assert dict(account.headers()) == {
        b"x-ratelimit-limit-requests": b"3",
        b"x-ratelimit-remaining-requests": b"0",
        b"x-ratelimit-reset-requests": b"60.000s",
    }


# On the wire.


def allowance(tenant: str) -> Allowed:
    return Allowed(2) if tenant == "poor" else Allowed()


@pytest.fixture(scope="module")
def site() -> Iterator[KeyedServer]:
    with serving_with_keys(rate_limit_for=allowance) as started:
        yield started


def test_each_key_has_its_own_requests(site: KeyedServer) -> None:
    first, second, rich = site.client("poor"), site.client("poor"), site.client("rich")
    assert first.respond().headers["x-ratelimit-remaining-requests"] == "1"
    assert first.get("/v1/models").headers["x-ratelimit-remaining-requests"] == "0"
    for method, path in (("POST", "/v1/responses"), ("GET", "/v1/models"), ("GET", "/nowhere")):
        answer = first.request(method, path, {"input": "Hi"})
        refused(answer, "30")
        assert answer.headers["x-ratelimit-limit-requests"] == "2"
    assert second.respond().status == 200
    for _ in range(5):
        answer = rich.respond()
        assert answer.status == 200
        assert not [name for name in answer.headers if "ratelimit" in name]
    # Watching over the server is nobody's request.
    assert first.get("/healthz").status == 200


def test_without_keys_all_share_one_allowance() -> None:
    with serving_with_keys(rate_limit_for=lambda _: Allowed(2)) as site:
        assert [site.anonymous_client().respond().status for _ in range(3)] == [200, 200, 429]


def test_turns_at_once() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel(
        [say("Hel") + wait(opened, reached) + say("lo"), "Another's", "And one more"]
    )
    with serving_with_keys(model, rate_limit_for=lambda _: Allowed(concurrent_turns=1)) as site:
        acme, other = site.client("acme"), site.client("other")
        with closing(site.server.connect()) as connection:
            body = json.dumps({"input": "Hi", "stream": True})
            connection.request("POST", "/v1/responses", body, acme.headers)
            stream = connection.getresponse()
            site.server.wait(reached)
            refused(acme.respond(), "1")
            chat = {"messages": [{"role": "user", "content": "Hi"}]}
            refused(acme.request("POST", "/v1/chat/completions", chat), "1")
            assert acme.get("/v1/models").status == 200, "that is no turn"
            assert other.respond().status == 200
            site.server.set(opened)
            assert parse_events(stream.read())[-1]["type"] == "response.completed"
        assert acme.respond().status == 200
        # Two were let in, and neither refusal took a place with it.
        assert len(model.calls) == 3


def test_a_turn_without_its_reader_still_counts() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([say("Hel") + wait(opened, reached) + say("lo"), "Next"])
    with serving_with_keys(model, rate_limit_for=lambda _: Allowed(concurrent_turns=1)) as site:
        acme = site.client()
        with closing(site.server.connect()) as connection:
            body = json.dumps({"input": "Hi", "stream": True})
            connection.request("POST", "/v1/responses", body, acme.headers)
            stream = connection.getresponse()
            created = json.loads(b"".join(stream.readline() for _ in range(2)).split(b"data: ")[1])
            site.server.wait(reached)
            stream.close()
        response_id = created["response"]["id"]
        turn = site.server.service.registry.get(response_id)
        assert turn is not None
        refused(acme.respond(), "1")
        site.server.set(opened)

        async def over() -> None:
            assert turn.task is not None
            await asyncio.wait({turn.task})

        site.server.run(over())
        assert acme.respond().status == 200


@pytest.mark.parametrize("body", [b"{", b'{"input":""}', b'{"input":"Hi","model":"nobody"}'])
def test_a_request_that_starts_no_turn_gives_its_place_back(body: bytes) -> None:
    with serving_with_keys(rate_limit_for=lambda _: Allowed(concurrent_turns=1)) as site:
        acme = site.client()
        for _ in range(3):
            assert acme.request("POST", "/v1/responses", body).status in (400, 404)
        assert acme.respond().status == 200


def test_requests_on_one_line_take_one_place_after_another() -> None:
    with serving_with_keys(rate_limit_for=lambda _: Allowed(concurrent_turns=1)) as site:
        acme = site.client()
        body = b'{"input":"Hi","store":false}'
        head = (
            "{method} HTTP/1.1\r\nhost: localhost\r\n"
            f"x-api-key: {acme.text}\r\ncontent-length: {{length}}\r\n{{more}}\r\n"
        )
        post = head.format(method="POST /v1/responses", length=len(body), more="").encode() + body
        get = head.format(method="GET /v1/models", length=0, more="").encode()
        last = head.format(method="GET /v1/models", length=0, more="connection: close\r\n")
        with site.server.socket() as client, client.makefile("rb") as reader:
            client.sendall((post + get) * 5 + last.encode())
            assert reader.read().count(b"HTTP/1.1 200 OK\r\n") == 11
