"""Reading along: again, later, from the middle, in the background; and stopping."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.deltas import Delta, Finish, ItemEnd, OutputTextDelta, ToolCallDelta
from antiphon.models.scripted import (
    Cut,
    ScriptedModel,
    ScriptedReply,
    cut,
    finish,
    refuse,
    say,
    think,
)
from antiphon.turn.protocols import ModelCall, ModelInfo
from support.http_server import ServerProcess, read_answer, serving

ODDS: tuple[Any, ...] = tuple(
    {"token": word, "logprob": -0.5, "bytes": [ord(word)], "top_logprobs": []} for word in "Abc"
)
ANSWERS = [
    say("Hello", " there", "."),
    think("Hm. ", "Well.") + say("It is: 4 \u20ac, \U0001f600."),
    ScriptedReply(
        (
            ToolCallDelta(0, "c1", "add", '{"a"'),
            ToolCallDelta(1, "c2", "add", "{"),
            ToolCallDelta(0, None, None, ": 1}"),
            ToolCallDelta(1, None, None, "}"),
            Finish("tool_calls"),
        )
    ),
    refuse("No,", " never."),
    ScriptedReply((OutputTextDelta("Cut"), Finish("length"))),
    ScriptedReply(
        (
            OutputTextDelta("A", ODDS[:1]),
            OutputTextDelta("bc", ODDS[1:]),
            OutputTextDelta("."),
            ItemEnd(),
            OutputTextDelta("C", ODDS[1:]),
        )
    ),
    ScriptedReply((OutputTextDelta("Bro"), OutputTextDelta("ken"), Cut())),
]


class Slow:
    """A model that says one word, and the rest when it is told to."""

    def __init__(self) -> None:
        self.info = ModelInfo("slow")
        self.go = asyncio.Event()
        self.asked = asyncio.Event()
        self.left = asyncio.Event()

    async def generate(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta]]:
        self.asked.set()
        try:
            yield [OutputTextDelta("One ")]
            await self.go.wait()
            yield [OutputTextDelta("two."), Finish("stop")]
        finally:
            self.left.set()

    async def count_tokens(self, call: ModelCall) -> int | None:
        return None

    async def close(self) -> None:
        pass


def frames(body: bytes) -> list[bytes]:
    *events, rest = body.split(b"\n\n")
    assert rest == b""
    return events


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_stream_cut_anywhere_goes_on_with_the_same_bytes(
    answer: ScriptedReply, tmp_path: Path
) -> None:
    with serving(ScriptedModel([answer]), tmp_path / "a.db") as server:
        whole = server.respond(stream=True, tools=[{"type": "function", "name": "add"}])
        events = frames(whole.body)
        name = whole.events[0]["response"]["id"]
        assert server.get(f"/v1/responses/{name}?stream=true").without_ids == whole.body
        for number in range(-1, len(events)):
            rest = server.get(
                f"/v1/responses/{name}?stream=true&starting_after={number}"
            ).without_ids
            assert frames(rest) == (events[number + 1 : -1] + events[-1:])[-len(events) :]


def test_a_second_reader_comes_in_the_middle_and_misses_nothing() -> None:
    model = Slow()
    with serving(model) as server, closing(server.connect()) as first:
        body = json.dumps({"input": "Count.", "stream": True})
        first.request("POST", "/v1/responses", body)
        reading = first.getresponse()
        line = b""
        while b"One " not in line:
            line = reading.readline()
            if line.startswith(b'data: {"type":"response.created"'):
                name = json.loads(line[6:])["response"]["id"]
        with closing(server.connect()) as second:
            second.request("GET", f"/v1/responses/{name}?stream=true&starting_after=3")
            server.set(model.go)
            later = read_answer(second)
        rest = reading.read()
        again = server.get(f"/v1/responses/{name}?stream=true&starting_after=3").without_ids
        assert later.without_ids == again
        assert again.endswith(rest)


def test_a_turn_in_the_background_is_answered_at_once_and_polled() -> None:
    model = Slow()
    with serving(model) as server:
        queued = server.respond(background=True).json
        assert (queued["status"], queued["background"], queued["output"]) == ("queued", True, [])
        server.wait(model.asked)
        path = f"/v1/responses/{queued['id']}"
        assert server.get(path).json["status"] == "in_progress"
        server.set(model.go)
        events = server.get(f"{path}?stream=true").events
        assert [event["type"] for event in events][:3] == [
            "response.created",
            "response.queued",
            "response.in_progress",
        ]
        assert events[-1]["response"]["output"][0]["content"][0]["text"] == "One two."
        assert server.get(path).json["status"] == "completed"


def test_a_client_that_leaves_a_background_stream_does_not_stop_it() -> None:
    model = Slow()
    with serving(model) as server:
        with closing(server.connect()) as gone:
            gone.request(
                "POST",
                "/v1/responses",
                json.dumps({"input": "Hi", "stream": True, "background": True}),
            )
            line = gone.getresponse().readline()
            assert line == b"event: response.created\n"
        server.wait(model.asked)
        server.set(model.go)
        (latest,) = server.get("/v1/responses?limit=1").json["data"]
        events = server.get(f"/v1/responses/{latest['id']}?stream=true").events
        assert events[-1]["type"] == "response.completed"


@pytest.mark.parametrize("background", [True, False])
def test_a_running_turn_is_cancelled_and_keeps_what_arrived(background: bool) -> None:
    model = Slow()
    with serving(model) as server, closing(server.connect()) as reader:
        body = {"input": "Hi", "stream": True, "background": background}
        reader.request("POST", "/v1/responses", json.dumps(body))
        reading = reader.getresponse()
        while b"One " not in (line := reading.readline()):
            if line.startswith(b'data: {"type":"response.created"'):
                name = json.loads(line[6:])["response"]["id"]
        stopped = server.post(f"/v1/responses/{name}/cancel").json
        assert stopped["status"] == "cancelled"
        assert stopped["output"][0]["content"][0]["text"] == "One "
        assert stopped["output"][0]["status"] == "incomplete"
        server.wait(model.left)
        # Twice is as good as once.
        assert server.post(f"/v1/responses/{name}/cancel").json == stopped
        assert server.get(f"/v1/responses/{name}").json == stopped
        assert b'"cancelled"' in reading.read()


def test_cancelling_what_is_over_or_never_was(tmp_path: Path) -> None:
    broken = [say("Yes."), say("Much") + finish("length"), say("Half") + cut()]
    with serving(ScriptedModel(broken), store=tmp_path / "a.db") as server:
        for article, status in (("a", "completed"), ("an", "incomplete"), ("a", "failed")):
            name = server.respond().json.get("id")
            if name is None:
                name = server.get("/v1/responses").json["data"][0]["id"]
            done = server.get(f"/v1/responses/{name}").json
            refused = server.post(f"/v1/responses/{name}/cancel")
            assert refused.status == 400
            assert refused.error == {
                "message": f"Cannot cancel {article} {status} response.",
                "type": "invalid_request_error",
                "param": None,
                "code": "response_not_cancellable",
            }
            assert server.get(f"/v1/responses/{name}").json == done
        missing = server.post(f"/v1/responses/resp_{'0' * 32}/cancel")
        assert (missing.status, missing.error["code"]) == (404, "response_not_found")


@pytest.mark.parametrize("number", ["x", "1.5", "", "--1", "9" * 10])
def test_events_have_whole_numbers(number: str) -> None:
    with serving() as server:
        name = server.respond().json["id"]
        answer = server.get(f"/v1/responses/{name}?stream=true&starting_after={number}")
        if number == "":
            # As if it had not been said.
            assert answer.status == 200
        else:
            assert (answer.status, answer.error["param"]) == (400, "starting_after")


@pytest.mark.slow
def test_another_process_shows_a_turn_once_it_is_over(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as one:
        whole = one.respond(stream=True)
        name: Any = whole.events[0]["response"]["id"]
        with ServerProcess(tmp_path) as other:
            assert other.get(f"/v1/responses/{name}?stream=true").without_ids == whole.body


def test_what_the_model_was_shown() -> None:
    model = ScriptedModel(["Hello.", "Bye."])
    with serving(model) as server:
        first = server.respond("Hi").json["id"]
        second = server.respond("And?", previous_response_id=first, instructions="Be brief.").json[
            "id"
        ]
        shown = server.get(f"/v1/responses/{second}/context").json
        assert shown == {
            "object": "response.context",
            "response_id": second,
            "messages": json.loads(model.calls[-1].messages),
            "turns_left_out": 0,
            "turns_summarized": 0,
        }
        assert [message["role"] for message in shown["messages"]] == [
            "system",
            "user",
            "assistant",
            "user",
        ]
