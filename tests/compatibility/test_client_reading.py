"""Streams as simple clients read them: silent models, line ends, slow readers, whole events."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from antiphon.api.http.asgi_responses import KeepAlive
from support.http_server import Answer, read_answer
from support.manual_time_loop import ManualTimeLoop, run_with_manual_time
from support.misbehaving_upstream import CUT, Move
from support.scenario import (
    DONE,
    LOOKUP,
    Json,
    Scenario,
    call,
    chunk,
    completion_outcome,
    data,
    end,
    nested,
    response_outcome,
    scenario,
    stream_of,
    text,
)

RESPONSES, CHAT = "/v1/responses", "/v1/chat/completions"
HELLO = (text("Hello"), text(" there."), end(), DONE)


@pytest.fixture(scope="module")
def world() -> Iterator[Scenario]:
    with scenario() as started:
        started.upstream_answers(lambda _: stream_of(*HELLO))
        yield started


def body_for(path: str, **fields: Any) -> Json:
    if path == CHAT:
        messages = [{"role": "user", "content": "Hi"}]
        return {"model": "m", "messages": messages, "stream": True, **fields}
    return {"input": "Hi", "stream": True, **fields}


# ---- readers that know less than the specification


def words_of(path: str, event: Json) -> str:
    if path == CHAT:
        words: str = event["choices"][0]["delta"].get("content", "")
        return words
    return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""


def read_blank_lines(path: str, lines: list[str]) -> str:
    """Dispatches at each empty line, and decodes what it has then."""
    words, held = "", ""
    for line in lines:
        if line.startswith("data:"):
            held += line[5:].strip()
        elif line == "":
            if held == "[DONE]":
                break
            words += words_of(path, json.loads(held))
            held = ""
    return words


def read_lines(path: str, lines: list[str]) -> str:
    """Takes each line for a field, for a comment or for nothing."""
    words = ""
    for line in lines:
        if not line or line.startswith(":"):
            continue
        name, value = line.split(": ", 1)
        assert name in {"event", "data"}
        if name == "data" and value != "[DONE]":
            words += words_of(path, json.loads(value))
    return words


def read_data_lines(path: str, lines: list[str]) -> str:
    """Reads the lines that begin with ``data: `` and no others."""
    values = [line[6:] for line in lines if line.startswith("data: ")]
    assert values.pop() == "[DONE]"
    return "".join(words_of(path, json.loads(one)) for one in values)


def read_blocks(path: str, lines: list[str]) -> str:
    """Splits at empty lines, and skips what does not begin with ``data: ``."""
    blocks = "\n".join(lines).split("\n\n")
    values = [one[6:] for one in blocks if one.startswith("data: ")]
    return "".join(words_of(path, json.loads(one)) for one in values if one != "[DONE]")


READERS: dict[str, tuple[str, Callable[[str, list[str]], str]]] = {
    "quiet-responses-blank-lines": (RESPONSES, read_blank_lines),
    "quiet-responses-lines": (RESPONSES, read_lines),
    "quiet-responses-data-lines": (RESPONSES, read_data_lines),
    "quiet-chat-blank-lines": (CHAT, read_blank_lines),
    "quiet-chat-lines": (CHAT, read_lines),
    "quiet-chat-data-lines": (CHAT, read_data_lines),
    "quiet-chat-blocks": (CHAT, read_blocks),
}


def pieces_around_silence(world: Scenario, path: str, *, before: bool) -> list[bytes]:
    """The chunks of a stream, of which two are signs of life while its model is silent.

    ``before``: it is silent before its first word, not between two.
    """
    spoke = asyncio.Event()
    moves: list[Move] = list(HELLO)
    moves.insert(0 if before else 1, spoke)
    world.upstream_sends(stream_of(*moves))
    pieces: list[bytes] = []
    with closing(world.server.connect()) as connection:
        connection.request("POST", path, json.dumps(body_for(path)))
        answer = connection.getresponse()
        assert answer.status == 200
        signs = 0
        while signs < 2:
            pieces.append(answer.read1(1 << 20))
            signs += is_sign_of_life(pieces[-1])
        world.set(spoke)
        pieces += iter(lambda: answer.read1(1 << 20), b"")
    return pieces


def is_sign_of_life(piece: bytes) -> bool:
    return piece.startswith(b":") or b'"content":""' in piece


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", READERS)
def test_simple_readers_lose_nothing_while_a_model_is_silent(
    world: Scenario, monkeypatch: pytest.MonkeyPatch, name: str, before: bool
) -> None:
    monkeypatch.setattr(KeepAlive, "INTERVAL", 0.02)
    path, read = READERS[name]
    pieces = pieces_around_silence(world, path, before=before)
    assert read(path, b"".join(pieces).decode().split("\n")) == "Hello there."


def test_a_silent_chat_stream_begins_with_the_role_once(
    world: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """quiet-chat-is-alive"""
    monkeypatch.setattr(KeepAlive, "INTERVAL", 0.02)
    for before in (True, False):
        body = b"".join(pieces_around_silence(world, CHAT, before=before))
        outcome = completion_outcome(Answer(200, {"content-type": "text/event-stream"}, body))
        outcome.expect("stop", "Hello there.")
        deltas = [one["choices"][0]["delta"] for one in outcome.events]
        assert [place for place, one in enumerate(deltas) if "role" in one] == [0]
        assert len({one["id"] for one in outcome.events}) == 1


def test_a_failure_after_a_sign_of_life_is_the_last_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeepAlive, "INTERVAL", 0.02)
    with scenario() as world:
        for path in (RESPONSES, CHAT):
            failed = asyncio.Event()
            behaviour = stream_of(failed, data({"error": {"message": "No more."}}))
            world.upstream_answers(lambda _, behaviour=behaviour: behaviour)  # type: ignore[misc]
            with closing(world.server.connect()) as connection:
                connection.request("POST", path, json.dumps(body_for(path)))
                answer = connection.getresponse()
                while not is_sign_of_life(answer.read1(1 << 20)):
                    pass
                world.set(failed)
                rest = answer.read()
            assert b"No more." in rest.split(b"\n\n")[-2 if path == CHAT else -3]


def test_a_stream_gets_signs_of_life_only_while_it_is_silent() -> None:
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message["body"])

    async def stream(loop: ManualTimeLoop) -> None:
        with KeepAlive(send, lambda: b"alive") as keep_alive:
            for _ in range(40):
                await keep_alive.send({"type": "http.response.body", "body": b"word"})
                await loop.advance(KeepAlive.INTERVAL * 0.4)
            assert b"alive" not in sent
            for _ in range(4):
                sent.clear()
                await loop.advance(KeepAlive.INTERVAL / 2)
                await loop.advance(KeepAlive.INTERVAL / 2)
                assert b"alive" in sent

    run_with_manual_time(stream)


# ---- lines

SEPARATORS = {
    "lines-u2028": "\u2028",
    "lines-u2029": "\u2029",
    "lines-u0085": "\x85",
    "lines-vertical-tab": "\x0b",
    "lines-form-feed": "\x0c",
    "lines-file-separator": "\x1c",
    "lines-group-separator": "\x1d",
    "lines-record-separator": "\x1e",
    "lines-carriage-return": "\r",
    "lines-crlf": "\r\n",
}


@pytest.mark.parametrize("name", SEPARATORS)
def test_what_python_takes_for_a_line_end_is_escaped(world: Scenario, name: str) -> None:
    words = f"a{SEPARATORS[name]}b — “c”"
    moves = (
        chunk({"reasoning_content": words}),
        text(words),
        call({"index": 0, "id": "c", "function": {"name": "lookup", "arguments": '{"c":1}'}}),
        end("tool_calls"),
        DONE,
    )
    for path in (RESPONSES, CHAT):
        world.upstream_sends(stream_of(*moves))
        tools = [LOOKUP if path == RESPONSES else nested(LOOKUP)]
        body = body_for(path, tools=tools, user=words, metadata={"k": words})
        answered = world.server.request("POST", path, body)
        raw = answered.body.decode()
        assert raw.splitlines() == raw.split("\n")[:-1]
        assert "— “c”" in raw
        outcome = completion_outcome(answered) if path == CHAT else response_outcome(answered)
        assert outcome.text == words
        if path == RESPONSES:
            again = world.server.get(f"/v1/responses/{outcome.body['id']}?stream=true")
            assert again.events == answered.events
            fetched = world.server.get(f"/v1/responses/{outcome.body['id']}").json
            assert fetched["metadata"] == {"k": words}


def test_errors_are_escaped_too(world: Scenario) -> None:
    for path in (RESPONSES, CHAT):
        world.upstream_sends(stream_of(text("x"), data({"error": {"message": "a\u2028b\x85c"}})))
        raw = world.server.request("POST", path, body_for(path)).body.decode()
        assert raw.splitlines() == raw.split("\n")[:-1]


# ---- pieces


@pytest.mark.parametrize("path", [RESPONSES, CHAT])
def test_each_chunk_of_http_holds_whole_events(world: Scenario, path: str) -> None:
    """chunks-are-whole-events"""
    words = [text(f"word {number} ") for number in range(30)]
    world.upstream_sends(stream_of(*words, end(), DONE))
    with closing(begin(world, path)) as connection:
        raw = b""
        while not raw.endswith(b"\r\n0\r\n\r\n"):
            raw += connection.recv(65536)
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert b"content-encoding" not in head
    pieces = 0
    while not rest.startswith(b"0\r\n"):
        size, _, rest = rest.partition(b"\r\n")
        piece, rest = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        assert piece.endswith(b"\n\n")
        for block in piece.decode().split("\n\n")[:-1]:
            value = block.split("\n")[-1].removeprefix("data: ")
            assert value == "[DONE]" or json.loads(value)
        pieces += 1
    assert pieces > 1


def test_the_first_event_does_not_wait_for_the_model(world: Scenario) -> None:
    """first-event-at-once"""
    spoke = asyncio.Event()
    world.upstream_sends(stream_of(spoke, *HELLO))
    with closing(world.server.connect()) as connection:
        headers = {"accept-encoding": "gzip, deflate, br, zstd"}
        connection.request("POST", RESPONSES, json.dumps(body_for(RESPONSES)), headers)
        answer = connection.getresponse()
        first = answer.read1(1 << 20)
        assert first.startswith(b"event: response.created\ndata: {")
        assert answer.getheader("content-encoding") is None
        world.set(spoke)
        assert answer.read().endswith(b"data: [DONE]\n\n")


# ---- slow and absent readers


def begin(world: Scenario, path: str, **fields: Any) -> socket.socket:
    """A request on a connection of its own that is not read."""
    body = json.dumps(body_for(path, **fields)).encode()
    connection = world.server.socket()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize("path", [RESPONSES, CHAT])
def test_a_slow_reader_gets_all_and_delays_no_other(world: Scenario, path: str) -> None:
    """slow-reader"""
    words = "x" * 1000
    world.upstream_sends(stream_of(*(text(words) for _ in range(1000)), end(), DONE))
    with closing(begin(world, path)) as slow:
        world.respond().expect("completed", "Hello there.")
        world.chat().expect("stop", "Hello there.")
        received = bytearray()
        while not received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            received += slow.recv(4096)
        assert received.count(words.encode()) >= 1000


def status_when_done(world: Scenario, model_text: str) -> Json:
    """The newest response, once it has ended."""
    while True:
        newest: Json = world.server.get("/v1/responses?limit=1").json["data"][0]
        if newest["status"] != "in_progress":
            assert newest["output"][0]["content"][0]["text"] == model_text
            return newest


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ["half-closed", "hung-up-stored", "hung-up-reset"])
def test_a_stored_turn_outlives_its_client(world: Scenario, name: str, stream: bool) -> None:
    spoke = asyncio.Event()
    requests = len(world.requests)
    world.upstream_sends(stream_of(text("Hello"), spoke, text(" there."), end(), DONE))
    connection = begin(world, RESPONSES, stream=stream)
    while len(world.requests) == requests:
        pass
    while not (found := world.server.get("/v1/responses?limit=1&status=in_progress").json["data"]):
        pass
    if name == "half-closed":
        connection.shutdown(socket.SHUT_WR)
    elif name == "hung-up-reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    else:
        connection.close()
    world.set(spoke)
    done = status_when_done(world, "Hello there.")
    assert (done["id"], done["status"]) == (found[0]["id"], "completed")
    connection.close()


# ---- shapes

PREAMBLE = ["response.created", "response.in_progress"]


def test_events_of_a_response_come_in_order_and_shape(world: Scenario) -> None:
    """responses-event-shapes"""
    outcome = world.respond().expect("completed", "Hello there.")
    names = [one["type"] for one in outcome.events]
    assert names[:2] == PREAMBLE
    assert names[-1] == "response.completed"
    assert names[2:-1] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert [one["sequence_number"] for one in outcome.events] == list(range(len(names)))
    item = outcome.body["output"][0]
    for one in outcome.events[2:-1]:
        assert one["output_index"] == 0
        assert one.get("item_id", item["id"]) == item["id"]
    keys = set(outcome.body)
    assert all(set(one["response"]) == keys for one in outcome.events if "response" in one)
    assert outcome.events[0]["response"]["status"] == "in_progress"


def test_chunks_of_a_completion_have_their_shape(world: Scenario) -> None:
    """chat-chunk-shapes"""
    outcome = world.chat().expect("stop", "Hello there.")
    for one in outcome.events:
        assert set(one) == {"id", "object", "created", "model", "choices"}
        assert one["object"] == "chat.completion.chunk"
        (choice,) = one["choices"]
        assert set(choice) == {"index", "delta", "logprobs", "finish_reason"}
    first, *middle, last = (one["choices"][0] for one in outcome.events)
    assert first["delta"] == {"role": "assistant", "content": ""}
    assert last == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert all(one["finish_reason"] is None for one in (first, *middle))
    assert len({(one["id"], one["created"], one["model"]) for one in outcome.events}) == 1


def test_the_usage_chunk_comes_last_where_it_is_wanted(world: Scenario) -> None:
    """chat-usage-chunk"""
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    moves = (*HELLO[:-1], data({"choices": [], "usage": usage}), DONE)
    world.upstream_sends(stream_of(*moves), stream_of(*moves), stream_of(*moves))
    wanted = world.chat(stream_options={"include_usage": True})
    assert wanted.events[-1]["choices"] == []
    assert wanted.events[-1]["usage"]["total_tokens"] == 7
    for options in ({"include_usage": False}, None):
        plain = world.chat(stream_options=options)
        assert all(one["choices"] for one in plain.events)


def test_an_error_after_the_first_word_ends_the_stream(world: Scenario) -> None:
    """chat-error-late"""
    for move in (CUT, data({"error": {"message": "No more."}})):
        world.upstream_sends(stream_of(text("Hello"), move))
        late = world.chat()
        assert (late.http, late.status, late.text) == (200, "error", "Hello")
        assert set(late.events[-1]) == {"error"}
        assert set(late.events[-1]["error"]) == {"message", "type", "code", "param"}
        world.upstream_sends(stream_of(text("Hello"), move))
        failed = world.respond()
        assert (failed.status, failed.text) == ("failed", "Hello")
        assert failed.events[-1]["type"] == "response.failed"


def test_many_read_at_once(world: Scenario) -> None:
    outcomes: list[str] = []

    def read() -> None:
        with closing(world.server.connect()) as connection:
            connection.request("POST", RESPONSES, json.dumps(body_for(RESPONSES)))
            outcomes.append(response_outcome(read_answer(connection)).text)

    threads = [threading.Thread(target=read) for _ in range(20)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert outcomes == ["Hello there."] * 20
