"""``/v1/chat/completions`` on the wire."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from antiphon.api.http.asgi_responses import KeepAlive
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
    ScriptedReply,
    call,
    calls,
    fail,
    hang,
    report_usage,
    say,
    think,
    wait,
)
from support.http_server import Answer, ThreadServer, parse_chunks, serving

HI = {"role": "user", "content": "Hi"}


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with serving() as started:
        yield started


def complete(server: ThreadServer, **fields: Any) -> Answer:
    return server.post("/v1/chat/completions", **{"messages": [HI], **fields})


def message(answer: Answer) -> dict[str, Any]:
    (choice,) = answer.json["choices"]
    found: dict[str, Any] = choice["message"]
    return found


def test_the_client_keeps_the_messages(server: ThreadServer) -> None:
    window = [
        {"role": "system", "content": "Be brief."},
        HI,
        {"role": "assistant", "content": "Hello", "tool_calls": None},
        {"role": "user", "content": "Bye"},
    ]
    said = message(complete(server, messages=window))["content"]
    assert said == "You said: Bye\nBefore that you said: Hi\n(I was shown 4 messages.)"
    assert server.stored_count() == 0


def test_a_stream_says_the_same(server: ThreadServer) -> None:
    answer = complete(server, stream=True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    chunks = parse_chunks(answer.body)
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert said == message(complete(server))["content"]
    assert server.stored_count() == 0


@pytest.mark.parametrize("include", [True, False])
def test_the_usage_of_a_stream(server: ThreadServer, include: bool) -> None:
    answer = complete(server, stream=True, stream_options={"include_usage": include})
    chunks = parse_chunks(answer.body)
    usages = [chunk["usage"] for chunk in chunks if "usage" in chunk]
    if not include:
        assert usages == []
        return
    # The last chunk has it, and every other one says that it has none, as OpenAI's do.
    assert usages == [*[None] * (len(chunks) - 1), complete(server).json["usage"]]


def test_a_round_of_tools() -> None:
    model = ScriptedModel(
        [
            think("Hm.") + calls(call("f", {"a": 1}, call_id="c1"), call("g", {}, call_id="c2")),
            "Done",
        ]
    )
    with serving(model) as server:
        asked = message(complete(server))
        assert [one["function"]["name"] for one in asked["tool_calls"]] == ["f", "g"]
        assert asked["content"] is None
        outputs = [
            {"role": "tool", "tool_call_id": one["id"], "content": f"<{one['id']}>"}
            for one in asked["tool_calls"]
        ]
        # An output goes behind its call, wherever the client put it.
        answer = complete(server, messages=[HI, asked, *outputs[::-1]])
        assert message(answer)["content"] == "Done"
        assert model.context() == [
            HI,
            {"role": "assistant", "content": "", "tool_calls": asked["tool_calls"]},
            *outputs,
        ]


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([HI, {"role": "tool", "tool_call_id": "c9", "content": "x"}], "tool_call_not_found"),
        (
            [
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                },
                HI,
            ],
            "tool_output_missing",
        ),
        ([{"role": "user", "content": ""}], "empty_input"),
    ],
)
def test_messages_that_make_no_sense(server: ThreadServer, messages: list[Any], code: str) -> None:
    answer = complete(server, messages=messages)
    assert (answer.status, answer.error["code"]) == (400, code)


ERRORS: list[tuple[AntiphonError, int]] = [
    (UpstreamRateLimitError("Slow down.", retry_after=2), 429),
    (ModelError("It broke."), 502),
    (ModelTimeoutError("Too slow."), 504),
    (ModelUnavailableError("Gone."), 503),
]


@pytest.mark.parametrize(("error", "status"), ERRORS)
def test_a_failure_before_the_first_word(error: AntiphonError, status: int) -> None:
    with serving(ScriptedModel([fail(error), fail(error)])) as server:
        for stream in (False, True):
            answer = complete(server, stream=stream)
            assert answer.status == status
            assert answer.error["code"] == error.code
            assert "response_id" not in answer.error
            assert answer.headers.get("retry-after") == ("2" if status == 429 else None)


def test_a_failure_after_the_first_word() -> None:
    opened = asyncio.Event()
    model = ScriptedModel([say("Hel") + wait(opened) + fail(UpstreamRateLimitError("Slow down."))])
    with serving(model) as server, closing(server.connect()) as client:
        body = {"messages": [HI], "stream": True}
        client.request("POST", "/v1/chat/completions", json.dumps(body))
        stream = client.getresponse()
        assert stream.status == 200
        first = b"".join(stream.readline() for _ in range(2))
        server.set(opened)
        *blocks, last, rest = (first + stream.read()).split(b"\n\n")
        assert rest == b""
        said = [json.loads(block[6:])["choices"][0]["delta"] for block in blocks]
        assert [delta["content"] for delta in said] == ["", "Hel"]
        assert json.loads(last[6:])["error"]["code"] == "rate_limit_exceeded"


def test_an_empty_answer_is_an_answer() -> None:
    with serving(ScriptedModel([ScriptedReply(()), ScriptedReply(())])) as server:
        assert message(complete(server))["content"] == ""
        chunks = parse_chunks(complete(server, stream=True).body)
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]


def test_usage() -> None:
    with serving(ScriptedModel([say("Hello") + report_usage(Usage(10, 20, 5, 7))])) as server:
        assert complete(server).json["usage"] == {
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "total_tokens": 30,
            "prompt_tokens_details": {"cached_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 7},
        }


@pytest.mark.parametrize("stream", [True, False])
def test_the_work_goes_with_its_client(stream: bool) -> None:
    reached = asyncio.Event()
    model = ScriptedModel([say("Hel") + hang(reached), "Still here"])
    with serving(model) as server:
        with closing(server.connect()) as client:
            body = {"messages": [HI], "stream": stream}
            client.request("POST", "/v1/chat/completions", json.dumps(body))
            server.wait(reached)
        server.wait(model.cancelled)
        assert message(complete(server))["content"] == "Still here"
        assert server.stored_count() == 0


def begun(server: ThreadServer, reader: http.client.HTTPConnection) -> http.client.HTTPResponse:
    """A stream whose model has not said anything yet, up to its first chunk, which is empty."""
    reader.request("POST", "/v1/chat/completions", json.dumps({"messages": [HI], "stream": True}))
    reading = reader.getresponse()
    assert reading.status == 200
    first = json.loads(reading.readline().removeprefix(b"data: "))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    return reading


def test_a_stream_begins_before_the_first_word_if_that_is_long_in_coming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(KeepAlive, "INTERVAL", 0.001)
    model = ScriptedModel([wait(opened := asyncio.Event()) + say("Well.")])
    with serving(model) as server, closing(server.connect()) as reader:
        reading = begun(server, reader)
        server.set(opened)
        chunks = parse_chunks(reading.read().lstrip())
        deltas = [one["choices"][0]["delta"] for one in chunks]
        assert not any("role" in one for one in deltas)
        assert "".join(one.get("content", "") for one in deltas) == "Well."


def test_a_failure_in_a_stream_is_its_last_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(KeepAlive, "INTERVAL", 0.001)
    late = UpstreamRateLimitError("Slow down.", retry_after=2)
    model = ScriptedModel([wait(opened := asyncio.Event()) + fail(late)])
    with serving(model) as server, closing(server.connect()) as reader:
        reading = begun(server, reader)
        server.set(opened)
        last = reading.read().split(b"\n\n")[-2].lstrip()
        assert json.loads(last.removeprefix(b"data: "))["error"] == {
            "message": "Slow down.",
            "type": late.type,
            "code": late.code,
            "param": None,
        }
