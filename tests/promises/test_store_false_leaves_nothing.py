"""With ``store: false`` no content is left anywhere: neither on disk nor in a log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from websockets.sync.client import connect

from antiphon.errors import ModelError
from antiphon.models.scripted import ScriptedModel, call, calls, cut, fail, hang, say, think
from antiphon.stores.postgres.store import open_postgres
from antiphon.turn.store_protocols import Store
from support.http_server import TIMEOUT, ServerProcess, ThreadServer, serving
from support.postgres_database import all_rows, empty_database
from support.side_stores import all_bytes

CANARY = "canary-7f3a"
TOOL = {"type": "function", "name": CANARY, "description": CANARY, "parameters": {"title": CANARY}}
#: A request that has the word wherever a word may be.
FULL: dict[str, Any] = {
    "model": "scripted",
    "store": False,
    "instructions": f"{CANARY} instructions",
    "input": [
        {"role": "user", "content": f"{CANARY} said"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": CANARY}]},
        {"type": "function_call", "call_id": CANARY, "name": CANARY, "arguments": CANARY},
        {"type": "function_call_output", "call_id": CANARY, "output": CANARY},
        {"type": "compaction", "encrypted_content": CANARY},
    ],
    "metadata": {CANARY: CANARY},
    "tools": [TOOL],
    "user": CANARY,
    "safety_identifier": CANARY,
    "prompt_cache_key": CANARY,
}
CHAT: dict[str, Any] = {
    "model": "scripted",
    "messages": [{"role": "system", "content": CANARY}, {"role": "user", "content": CANARY}],
    "tools": [{"type": "function", "function": {"name": CANARY, "description": CANARY}}],
    "user": CANARY,
    "metadata": {CANARY: CANARY},
}
ENDINGS = {
    "good": say(CANARY, " answered"),
    "thought": think(CANARY) + say(CANARY),
    "called": calls(call(CANARY, {"x": CANARY})),
    "failed": say(CANARY) + fail(ModelError(f"It broke at {CANARY}.")),
    "cut": say(CANARY) + cut(),
}


class _Lines(logging.Handler):
    """Collects log lines, formatted as they would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter("%(name)s %(message)s").format(record))


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Looks through all that a server logs that is asked to log all it can
    (``antiphon.logging_setup``).
    """
    kept = _Lines()
    logging.getLogger().addHandler(kept)
    with caplog.at_level(logging.DEBUG, "antiphon"), caplog.at_level(logging.WARNING):
        yield
    logging.getLogger().removeHandler(kept)
    assert any(line.startswith("antiphon.access") for line in kept.lines)
    assert [line for line in kept.lines if CANARY in line] == []


class Place(NamedTuple):
    """Where a store lies: what opens it, and all that lies there."""

    store: Path | Callable[[], Awaitable[Store]]
    content: Callable[[], bytes]


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return Place(tmp_path / "a.db", partial(all_bytes, tmp_path))
    uri = empty_database(tmp_path)
    return Place(partial(open_postgres, uri), partial(all_rows, uri))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.usefixtures("logged")
def test_unstored_turn_leaves_no_content(ending: str, place: Place) -> None:
    model = ScriptedModel(["It is.", *[ENDINGS[ending]] * 20])
    with serving(model, place.store) as server:
        server.respond("Something is stored.")
        for fields in ({}, {"stream": True}):
            for path, body in (("/v1/responses", FULL), ("/v1/chat/completions", CHAT)):
                assert server.request("POST", path, {**body, **fields}).status in (200, 502)
        for path in ("/v1/responses/compact", "/v1/responses/input_tokens"):
            # Whatever is said about storing: these keep nothing.
            server.request("POST", path, {**FULL, "store": True})
        _over_a_websocket(server)
        _with_a_key(server)
        _on_a_conversation(server)
        assert CANARY.encode() not in place.content()
    assert CANARY.encode() not in place.content()


def _over_a_websocket(server: ThreadServer) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/v1/responses") as client:
        client.send(json.dumps({"type": "response.create", **FULL}))
        while '"type":"response.' in (told := str(client.recv(TIMEOUT))):
            if '"type":"response.completed"' in told or '"type":"response.failed"' in told:
                break


def _with_a_key(server: ThreadServer) -> None:
    answer = server.request("POST", "/v1/responses", FULL, {"idempotency-key": CANARY})
    assert answer.status in (200, 502)


def _on_a_conversation(server: ThreadServer) -> None:
    name = server.post("/v1/conversations").json["id"]
    server.request("POST", "/v1/responses", {**FULL, "conversation": name})
    assert server.get(f"/v1/conversations/{name}/items").json["data"] == []


def _absent(folder: Path) -> None:
    assert CANARY.encode() not in all_bytes(folder)


@pytest.mark.usefixtures("logged")
def test_refused_or_abandoned_unstored_turn_leaves_no_content(tmp_path: Path) -> None:
    reached = asyncio.Event()
    model = ScriptedModel([say(CANARY) + hang(reached)])
    with serving(model, tmp_path / "a.db") as server:
        refused: list[bytes | dict[str, Any]] = [
            {**FULL, "previous_response_id": CANARY},
            {**FULL, "model": CANARY},
            {**FULL, "input": [{"type": CANARY}]},
            {**FULL, "temperature": CANARY},
            {**FULL, "store": True, "input": [{"role": CANARY, "content": CANARY}]},
            f'{{"input": "{CANARY}'.encode(),
        ]
        for body in refused:
            for path in ("", "/compact", "/input_tokens"):
                answer = server.request("POST", f"/v1/responses{path}", body)
                assert 400 <= answer.status < 500
        items = [{"role": "user", "content": CANARY}, {"type": "nonsense"}]
        assert server.post("/v1/conversations", items=items).status == 400
        with closing(server.connect()) as gone:
            gone.request("POST", "/v1/responses", json.dumps({**FULL, "stream": True}))
            gone.getresponse().readline()
            server.wait(reached)
        server.wait(model.cancelled)
        _absent(tmp_path)
    _absent(tmp_path)


def test_server_process_leaves_no_content_of_an_unstored_turn(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        for fields in ({}, {"stream": True}, {"previous_response_id": CANARY}):
            server.request("POST", "/v1/responses", {**FULL, "model": "m", **fields})
        for path in ("/v1/responses/compact", "/v1/responses/input_tokens"):
            server.request("POST", path, {**FULL, "model": "m"})
        server.request("POST", "/v1/chat/completions", {**CHAT, "model": "m"})
        _absent(tmp_path)
        assert server.stop() == 0
    _absent(tmp_path)


def test_content_of_a_stored_turn_is_found(place: Place) -> None:
    with serving(ScriptedModel(), place.store) as server:
        assert server.request("POST", "/v1/responses", {**FULL, "store": True}).status == 200
        assert CANARY.encode() in place.content()
