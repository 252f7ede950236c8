"""Durability: acknowledged turns are readable at once, after a kill, and in every process."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from antiphon.errors import ModelError
from antiphon.models.scripted import Messages, ScriptedModel, ScriptedReply, fail, hang, say
from support.http_server import ServerProcess, ThreadServer, serving
from support.postgres_database import empty_database
from support.stored_responses import response_ids


def digest(messages: Messages) -> str:
    """A hash of exactly these messages."""
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()


def digest_reply(messages: Messages) -> ScriptedReply:
    """A model that streams the hash of its messages."""
    text = digest(messages)
    return say(text[:20], text[20:])


async def events_of(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """A stream's events as they arrive, up to the last."""
    rest = b""
    async for piece in answer.content.iter_any():
        *blocks, rest = (rest + piece).split(b"\n\n")
        for block in blocks:
            if block.startswith(b"event: "):
                yield json.loads(block.split(b"\ndata: ", 1)[1])


def text_of(response: dict[str, Any]) -> str:
    return "".join(item["content"][0]["text"] for item in response["output"])


async def take_turn(
    session: aiohttp.ClientSession, text: str, previous: str | None, stream: bool
) -> dict[str, Any]:
    """Runs one turn; returns as soon as the client knows its end."""
    body = {"input": text, "previous_response_id": previous, "stream": stream}
    async with session.post("/v1/responses", json=body) as answer:
        assert answer.status == 200, await answer.text()
        if not stream:
            return msgspec.json.decode(await answer.read(), type=dict[str, Any])
        async for event in events_of(answer):
            if event["type"] == "response.completed":
                return dict(event["response"])
    raise AssertionError("the stream ended without an end")


def test_next_turn_sees_the_previous_turn_at_once(tmp_path: Path) -> None:
    clients, turns = 8, 63

    async def converse(session: aiohttp.ClientSession, who: int) -> int:
        messages: Messages = []
        previous: str | None = None
        for turn in range(turns):
            text = f"client {who}, turn {turn}"
            messages.append({"role": "user", "content": text})
            response = await take_turn(session, text, previous, stream=(who + turn) % 2 == 0)
            assert text_of(response) == digest(messages), f"{text} was shown something else"
            messages.append({"role": "assistant", "content": digest(messages)})
            previous = response["id"]
        return turns

    async def main(url: str) -> int:
        async with aiohttp.ClientSession(url) as session:
            return sum(await asyncio.gather(*(converse(session, who) for who in range(clients))))

    with serving(ScriptedModel(digest_reply), tmp_path / "antiphon.db") as server:
        assert asyncio.run(main(server.url)) >= 500
        assert server.stored_count() == clients * turns


class Acknowledged(msgspec.Struct):
    """What a client received of one turn; ``output`` is None if it only began."""

    response_id: str
    text: str
    output: str | None = None


class Moment:
    """Kills the server after a number of steps."""

    def __init__(self) -> None:
        self._server: ServerProcess | None = None
        self._left = 0

    def set(self, server: ServerProcess, steps: int) -> None:
        self._server, self._left = server, steps

    def step(self) -> None:
        """One more thing happens: a request or a chunk leaves, or an event came."""
        self._left -= 1
        if self._left == 0 and self._server is not None:
            self._server.send_kill()


class Upstream:
    """A chat completions endpoint that answers with the hash of its messages."""

    def __init__(self, moment: Moment) -> None:
        self._moment = moment

    async def answer(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        text = digest(asked["messages"])
        pieces = [text[at : at + 16] for at in range(0, len(text), 16)]
        self._moment.step()
        if not asked.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}}
            return web.json_response({"choices": [{**choice, "finish_reason": "stop"}]})
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        for piece in pieces:
            await self._send(answer, {"delta": {"content": piece}, "finish_reason": None})
        await self._send(answer, {"delta": {}, "finish_reason": "stop"})
        await answer.write(b"data: [DONE]\n\n")
        return answer

    async def _send(self, answer: web.StreamResponse, choice: dict[str, Any]) -> None:
        chunk = json.dumps({"choices": [{"index": 0, **choice}]})
        await answer.write(f"data: {chunk}\n\n".encode())
        self._moment.step()


@asynccontextmanager
async def upstream(moment: Moment) -> AsyncIterator[str]:
    """The upstream's base URL."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", Upstream(moment).answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


class Client:
    """One conversation that continues after each kill."""

    def __init__(self, who: int, moment: Moment) -> None:
        self.acknowledged: list[Acknowledged] = []
        self._who = who
        self._moment = moment
        self._sent = 0

    async def talk(self, session: aiohttp.ClientSession) -> None:
        """Take turns until the server is gone."""
        try:
            while True:
                await self._turn(session)
        except aiohttp.ClientError:
            return

    async def _turn(self, session: aiohttp.ClientSession) -> None:
        self._sent += 1
        text = f"client {self._who}, text {self._sent}"
        history = [*self._messages(), {"role": "user", "content": text}]
        body = {
            "input": text,
            "previous_response_id": (
                self.acknowledged[-1].response_id if self.acknowledged else None
            ),
            "stream": (self._who + self._sent) % 3 != 0,
        }
        self._moment.step()
        async with session.post("/v1/responses", json=body) as answer:
            assert answer.status == 200, await answer.text()
            if not body["stream"]:
                response = await answer.json()
                self._ended(Acknowledged(response["id"], text), response, history)
                return
            async for event in events_of(answer):
                if event["type"] == "response.created":
                    turn = Acknowledged(event["response"]["id"], text)
                    self.acknowledged.append(turn)
                elif event["type"] == "response.completed":
                    self._ended(self.acknowledged.pop(), event["response"], history)
                self._moment.step()

    def _ended(self, turn: Acknowledged, response: dict[str, Any], history: Messages) -> None:
        assert (turn.response_id, response["status"]) == (response["id"], "completed")
        turn.output = text_of(response)
        assert turn.output == digest(history), "the model was shown something else"
        self.acknowledged.append(turn)
        self._moment.step()

    def _messages(self) -> Messages:
        """The history, as it must be shown."""
        messages: Messages = []
        for turn in self.acknowledged:
            messages.append({"role": "user", "content": turn.text})
            if turn.output:
                messages.append({"role": "assistant", "content": turn.output})
        return messages


def read_ended(server: ServerProcess, response_id: str) -> dict[str, Any]:
    """A turn that has ended: in PostgreSQL once the lease of its process is over."""
    until = time.monotonic() + (0.0 if server.database.exists() else NOTICED)
    while True:
        kept: dict[str, Any] = server.get(f"/v1/responses/{response_id}").json
        if kept["status"] in {"completed", "failed"}:
            return kept
        assert time.monotonic() < until, kept
        time.sleep(0.1)


def check_stored(server: ServerProcess, turns: list[Acknowledged]) -> None:
    """Everything that was acknowledged is in the store.

    A turn whose end nobody was told may have one, which is taken down here.
    """
    for turn in turns:
        kept = read_ended(server, turn.response_id)
        (item,) = server.get(f"/v1/responses/{turn.response_id}/input_items").json["data"]
        assert item["content"][0]["text"] == turn.text
        if turn.output is None:
            turn.output = text_of(kept)
        assert text_of(kept) == turn.output


def check_ended(server: ServerProcess) -> None:
    """Checks that the killed process left no turn in progress."""
    if server.database.exists():
        with closing(sqlite3.connect(server.database)) as database:
            assert database.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    newest = server.get("/v1/responses?limit=20").json["data"]
    for response_id in [one["id"] for one in newest]:
        kept = read_ended(server, response_id)
        if kept["status"] == "failed":
            assert kept["error"]["code"] == "interrupted"


async def send_until_killed(server: ServerProcess, clients: list[Client]) -> None:
    """All clients send turns until the server is killed."""
    async with aiohttp.ClientSession(server.url) as session:
        await asyncio.gather(*(client.talk(session) for client in clients))
    await asyncio.to_thread(server.process.wait)


def check_all(server: ServerProcess, clients: list[Client], checked: list[int]) -> None:
    check_ended(server)
    for place, client in enumerate(clients):
        check_stored(server, client.acknowledged[checked[place] :])
        checked[place] = len(client.acknowledged)


#: Seconds until the turns of a dead process have ended.
NOTICED = 10.0
#: Turns that run alone are committed by the event loop, many at once by groups.
CLIENTS = {1: 2, 4: 10, 32: 2}


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [1, pytest.param(4, marks=pytest.mark.slow), 32])
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, 9))]
)
async def test_acknowledged_turns_survive_kills(
    tmp_path: Path, seed: int, count: int, kind: str
) -> None:
    store = empty_database(tmp_path) if kind == "postgres" else None
    chance = random.Random(seed)
    moment = Moment()
    clients = [Client(who, moment) for who in range(count)]
    checked = [0] * len(clients)
    async with upstream(moment) as base_url:
        start = functools.partial(ServerProcess, tmp_path, base_url, store=store)
        for _ in range(CLIENTS[count] if store is None else 2):
            with await asyncio.to_thread(start) as server:
                await asyncio.to_thread(check_all, server, clients, checked)
                moment.set(server, chance.randint(max(1, 4 * count - 16), 150 + 20 * count))
                await send_until_killed(server, clients)
        with await asyncio.to_thread(start) as server:
            await asyncio.to_thread(check_all, server, clients, [0] * len(clients))
            assert await asyncio.to_thread(server.stop) == 0
    # Of many at once some may never have had an answer.
    assert sum(bool(client.acknowledged) for client in clients) > len(clients) // 2


def test_turn_running_at_shutdown_is_interrupted(tmp_path: Path) -> None:
    database = tmp_path / "antiphon.db"
    reached = asyncio.Event()
    with serving(ScriptedModel([say("Hel") + hang(reached)]), database) as server:
        with closing(server.connect()) as client:
            client.request("POST", "/v1/responses", b'{"input":"Hi","stream":true}')
            event = client.getresponse().readline()
            assert event == b"event: response.created\n"
            server.wait(reached)
        (running,) = server.run(response_ids(server.store))
    model = ScriptedModel(["Welcome back"])
    with serving(model, database) as server:
        kept = server.get(f"/v1/responses/{running}").json
        assert kept["status"] == "failed"
        assert kept["error"]["code"] == "interrupted"
        assert server.respond("Hello?", previous_response_id=running).status == 200
        assert [message["content"] for message in model.context() if message["role"] == "user"] == [
            "Hi",
            "Hello?",
        ]


def test_two_processes_share_one_database(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as other, serving(ScriptedModel(), other.database) as server:
        servers = [other, server]
        previous = None
        said: list[str] = []
        for turn in range(10):
            response = servers[turn % 2].respond(f"text {turn}", previous_response_id=previous).json
            said.append(text_of(response))
            previous = response["id"]
        assert said[1:] == [
            f"You said: text {turn}\nBefore that you said: text {turn - 1}\n"
            f"(I was shown {2 * turn + 1} messages.)"
            for turn in range(1, 10)
        ]
        assert server.request("DELETE", f"/v1/responses/{previous}").status == 200
        assert other.get(f"/v1/responses/{previous}").status == 404
        assert other.respond(previous_response_id=previous).status == 400
        # A killed process takes no running turn of the other's with it.
        other.kill()
        assert server.respond().status == 200


CANARY = "tangerine-4711"


def holds_canary(folder: Path) -> bool:
    return any(CANARY.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def unstored_turns(server: ThreadServer, previous: str) -> Iterator[int]:
    """Runs an unstored turn in every way; yields the HTTP status."""
    for stream in (False, True):
        body: dict[str, Any] = {"input": CANARY, "store": False, "stream": stream}
        yield server.post("/v1/responses", **body).status
        yield server.post("/v1/responses", **body, previous_response_id=previous).status
        yield server.post("/v1/responses", **body, instructions=CANARY).status
        messages = [{"role": "user", "content": CANARY}]
        yield server.post("/v1/chat/completions", messages=messages, stream=stream).status
        # These fail.
        yield server.post("/v1/responses", **body, user=f"fail {CANARY}").status
        yield server.post("/v1/responses", **body, model=CANARY).status
        yield server.post("/v1/responses", **{**body, "store": True, "model": CANARY}).status
        yield server.post("/v1/responses", **{**body, "store": True, "top_p": CANARY}).status


def test_unstored_turns_leave_no_trace_on_disk(tmp_path: Path) -> None:
    reached = asyncio.Event()

    def script(messages: Messages) -> ScriptedReply:
        said = str(messages[-1]["content"])
        if said == f"fail {CANARY}":
            return say(CANARY) + fail(ModelError(f"I cannot say {CANARY}."))
        if said == f"hang {CANARY}":
            return say(CANARY) + hang(reached)
        return say("You said: ", said)

    model = ScriptedModel(script)
    with serving(model, tmp_path / "antiphon.db") as server:
        previous = server.respond("Nothing special.").json["id"]
        assert set(unstored_turns(server, previous)) == {200, 400, 404}
        for stream in (False, True):
            failed = server.respond(f"fail {CANARY}", store=False, stream=stream)
            assert CANARY in failed.body.decode()
        with server.socket() as client:
            body = json.dumps({"input": f"hang {CANARY}", "store": False}).encode()
            client.sendall(
                b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            server.wait(reached)
        server.wait(model.cancelled)
        assert server.stored_count() == 1
        assert not holds_canary(tmp_path)
    assert not holds_canary(tmp_path)
    # The same search finds what was stored.
    with serving(ScriptedModel(), tmp_path / "antiphon.db") as server:
        server.respond(CANARY)
        assert holds_canary(tmp_path)
    assert holds_canary(tmp_path)
