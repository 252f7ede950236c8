import asyncio
import json
import zlib
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any

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
from antiphon.core.turns import Usage
from antiphon.errors import (
    AntiphonError,
    ContextLengthExceededError,
    InvalidRequestError,
    ModelError,
    ModelNotFoundError,
    ModelTimeoutError,
)
from antiphon.models.openai import upstream_response
from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.openai.chat_completions_stream import ChatCompletionsParser
from antiphon.turn.protocols import ModelCall, ModelInfo
from support.chat_completions_upstream import (
    HELLO,
    INVALID_JSON_EVENT,
    KEY,
    ChatCompletionsUpstream,
    collect_deltas,
    expect_failure,
    make_call,
    run_with_upstream,
    with_model,
)
from support.misbehaving_upstream import (
    CUT,
    DONE,
    HANG,
    MisbehavingUpstream,
    answer,
    chunk,
    completion,
    events,
    hello_answer,
    refuse,
    stream,
    usage,
)


def test_what_arrives_together_is_one_batch() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        first, second = asyncio.Event(), asyncio.Event()
        upstream.then(
            stream(
                b"".join(events(chunk(content="a"), chunk(content="b"))),
                first,
                b"".join(events(chunk(reasoning="c"), chunk(refusal="d"))),
                second,
                b"".join(events(chunk("stop"), usage(), DONE)),
            )
        )
        async with aclosing(model.generate(make_call())) as answer:
            assert await anext(answer) == [OutputTextDelta("a"), OutputTextDelta("b")]
            first.set()
            thought, refusal = await anext(answer)
            assert isinstance(thought, ReasoningSummaryDelta)
            assert (thought.text, refusal) == ("c", RefusalTextDelta("d"))
            second.set()
            assert await anext(answer) == [UsageUpdate(Usage(5, 2)), Finish("stop")]

    run_with_upstream(main)


def test_a_finished_stream_is_not_waited_for() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        rest = asyncio.Event()
        data = events(chunk("stop", content="a"), DONE)
        upstream.then(stream(*data, rest), hello_answer(), hello_answer())
        assert await collect_deltas(model) == [OutputTextDelta("a"), Finish("stop")]
        assert await collect_deltas(model) == HELLO
        rest.set()
        # The rest has come before the answer to a request that was sent after it.
        await collect_deltas(model)
        await asyncio.gather(collect_deltas(model), collect_deltas(model))
        assert [request.connection for request in upstream.requests] == [1, 2, 2, 1, 2]

    run_with_upstream(main)


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_a_stream_in_small_pieces(size: int, newline: bytes) -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        data = events(chunk(content="é😀"), chunk("stop"), usage(), DONE, newline=newline)
        raw = json.dumps({"choices": [{"delta": {"content": "日本"}}]}, ensure_ascii=False).encode()
        first = b"".join(events(raw, newline=newline))
        upstream.then(stream(b": ping" + newline, first, *data, size=size))
        assert await collect_deltas(model) == [
            OutputTextDelta("日本"),
            OutputTextDelta("é😀"),
            UsageUpdate(Usage(5, 2)),
            Finish("stop"),
        ]

    run_with_upstream(main)


def test_a_completion_in_small_pieces() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        body = json.dumps({"choices": [{"message": {"content": "é"}}]}).encode()
        upstream.then(answer(body, size=1))
        assert await collect_deltas(model, streamed=False) == [OutputTextDelta("é"), Finish("stop")]

    run_with_upstream(main)


@pytest.mark.parametrize("cut", [True, False])
def test_a_stream_may_end_without_its_mark(cut: bool) -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        opened = asyncio.Event()
        data = events(chunk(content="a"), chunk("stop"))
        upstream.then(stream(*data, opened, end=CUT if cut else None))
        async with aclosing(model.generate(make_call())) as answered:
            assert await anext(answered) == [OutputTextDelta("a")]
            opened.set()
            assert [list(batch) async for batch in answered] == [[Finish("stop")]]

    run_with_upstream(main)


def test_tool_calls_in_fragments() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        opening = {"index": 0, "id": "x", "function": {"name": "f", "arguments": ""}}
        more = {"index": 0, "function": {"arguments": "{}"}}
        data = events(chunk(tool_calls=[opening]), chunk(tool_calls=[more]), chunk("tool_calls"))
        upstream.then(stream(*data, *events(DONE)))
        assert await collect_deltas(model) == [
            # Until its end it might have been a placeholder.
            ToolCallDelta(0, "x", "f", "{}"),
            Finish("tool_calls"),
        ]

    run_with_upstream(main)


def test_an_answer_in_the_form_that_was_not_requested() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then(completion(), hello_answer())
        assert await collect_deltas(model) == [
            OutputTextDelta("Hello."),
            UsageUpdate(Usage(5, 2)),
            Finish("stop"),
        ]
        assert await collect_deltas(model, streamed=False) == HELLO

    run_with_upstream(main)


def test_a_compressed_answer_is_read_all_the_same() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        body = zlib.compress(b'{"choices":[{"message":{"content":"a"}}]}')
        upstream.then(answer(body, headers={"Content-Encoding": "deflate"}))
        assert await collect_deltas(model, streamed=False) == [OutputTextDelta("a"), Finish("stop")]

    run_with_upstream(main)


@pytest.mark.parametrize("end", [CUT, None])
def test_a_stream_cut_after_its_first_word_is_an_error(end: Any) -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        opened = asyncio.Event()
        upstream.then(stream(*events(chunk(content="a")), opened, end=end))
        deltas: list[Delta] = []
        answered = model.generate(make_call())
        deltas += await anext(answered)
        opened.set()
        with pytest.raises(ModelError) as caught:
            await anext(answered)
        assert caught.value.code == "upstream_disconnected"
        assert deltas == [OutputTextDelta("a")]
        assert len(upstream.requests) == 1

    run_with_upstream(main)


def test_silence_within_a_stream_keeps_what_came() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then(stream(*events(chunk(content="a")), end=HANG))
        deltas, _ = await expect_failure(model, ModelTimeoutError)
        assert deltas == [OutputTextDelta("a")]
        await upstream.requests[0].disconnected.wait()

    with_model(main, read_timeout=0.2)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (refuse(401, {"error": {"message": f"Incorrect API key: {KEY}"}}), ModelError),
        (refuse(403, {"error": KEY}), ModelError),
        (refuse(404, {"error": {"message": "model 'x' not found"}}), ModelNotFoundError),
        (refuse(400, {"error": {"message": f"{KEY} is bad"}}), InvalidRequestError),
        (
            refuse(400, {"error": {"message": "x", "code": "context_length_exceeded"}}),
            ContextLengthExceededError,
        ),
        (answer(b"{"), ModelError),
        (answer(b"<html>", headers={"Content-Type": "text/html"}), ModelError),
        (answer(b'{"choices":[{"message":3}]}'), ModelError),
        (answer(b"zip", headers={"Content-Encoding": "gzip"}), ModelError),
        ([f"HTTP/9 {KEY}\r\n\r\n".encode(), CUT], ModelError),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", CUT], ModelError),
        (answer(b'{"error":{"message":"No.","code":400}}'), InvalidRequestError),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_bad_answers(behaviour: Any, kind: type[AntiphonError], streamed: bool) -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then(*[behaviour] * 3)
        deltas, _ = await expect_failure(model, kind, streamed=streamed)
        assert deltas == []

    run_with_upstream(main)


@pytest.mark.parametrize(
    "bad", [INVALID_JSON_EVENT, b'data: {"choices":[{]}\n\n', b'data: {"error":{}}\n\n']
)
def test_bad_events_keep_what_came_before(bad: bytes) -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then(stream(*events(chunk(content="a")), bad, *events(chunk(content="b"))))
        deltas, _ = await expect_failure(model, ModelError)
        assert deltas == [OutputTextDelta("a")]
        assert len(upstream.requests) == 1

    run_with_upstream(main)


def test_an_endless_event_is_an_error() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        part = b"data: " + b"x" * 1024 * 1024
        upstream.then(stream(*[part] * 20))
        _, error = await expect_failure(model, ModelError)
        assert error.code == "upstream_invalid_response"
        await upstream.requests[0].disconnected.wait()

    run_with_upstream(main)


def test_an_error_whose_body_hangs_is_reported_by_its_status() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then([b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\nKey", HANG])
        _, error = await expect_failure(model, ModelError)
        assert error.code == "upstream_unauthorized"
        assert "Key" in error.message
        await upstream.requests[0].disconnected.wait()

    with_model(main, read_timeout=0.2)


class BrokenParser(ChatCompletionsParser):
    """A parser with a bug in it."""

    def feed(self, events: Iterable[bytes]) -> list[Delta]:
        raise ValueError("a bug in the parser")


class BrokenParserModel(ChatCompletionsModel):
    def _parse_plain(self, body: bytes) -> list[Delta] | None:
        raise RuntimeError("a bug in the parser")

    def _create_parser(self, call: ModelCall) -> ChatCompletionsParser:
        return BrokenParser()


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_bug_in_a_parser_is_not_reported_as_an_upstream_error(streamed: bool) -> None:
    async with MisbehavingUpstream() as upstream:
        model = BrokenParserModel(ModelInfo("m"), upstream.base_url, KEY)
        with pytest.raises((ValueError, RuntimeError), match="a bug in the parser"):
            await collect_deltas(model, streamed=streamed)
        assert len(upstream.requests) == 1
        await model.close()


def test_an_answer_that_cannot_be_read_is_quoted_without_the_key() -> None:
    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        upstream.then(answer(f"<html>{KEY} is unknown".encode() + b"x" * 500))
        _, error = await expect_failure(model, ModelError, streamed=False)
        assert error.code == "upstream_invalid_response"
        assert "It begins: <html>[key] is unknown" in error.message
        assert KEY not in error.message
        assert len(error.message) < 400

    run_with_upstream(main)


def test_a_reason_to_stop_with_each_piece_is_not_taken_at_its_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After pieces behind such reasons the rest is waited for longer, and not for ever."""
    # The usual wait would outlast the test.
    monkeypatch.setattr(upstream_response, "_END_TIMEOUT", 1000.0)
    monkeypatch.setattr(upstream_response, "_LATE_END_TIMEOUT", 0.05)

    async def main(upstream: ChatCompletionsUpstream, model: ChatCompletionsModel) -> None:
        gates = [asyncio.Event(), asyncio.Event()]
        pieces = [events(chunk("stop", content=word))[0] for word in ("Hel", "lo", ".")]
        upstream.then(stream(pieces[0], gates[0], pieces[1], gates[1], pieces[2], end=HANG))
        words = []
        async with aclosing(model.generate(make_call())) as batches:
            async for batch in batches:
                words += [one.text for one in batch if isinstance(one, OutputTextDelta)]
                for gate in gates[: len(words)]:
                    gate.set()
        assert words == ["Hel", "lo", "."]

    run_with_upstream(main)
