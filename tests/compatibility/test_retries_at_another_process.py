"""Retries that come to another process of the store than their first try, without a key."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from antiphon.api.http.asgi_responses import DisconnectWatcher
from antiphon.models.scripted import ScriptedModel, say, wait
from support.http_server import serving, wait_for
from support.scenario import Json
from support.side_stores import query_file, writing_to

RESPONSES, CHAT = "/v1/responses", "/v1/chat/completions"


@pytest.mark.parametrize("api", [RESPONSES, CHAT])
@pytest.mark.parametrize("ends_before", [True, False])
def test_a_retry_that_comes_to_another_process_gets_the_same_turn(
    tmp_path: Path, ends_before: bool, api: str
) -> None:
    file, reached, spoke = tmp_path / "a.db", asyncio.Event(), asyncio.Event()
    first_model = ScriptedModel([wait(spoke, reached) + say("Once.")])
    other_model = ScriptedModel(["Another.", "A third."])
    body: Json = {"model": "m", "stream": False}
    if api == CHAT:
        body |= {"messages": [{"role": "user", "content": "Hi"}], "store": True}
    else:
        body |= {"input": "Hi"}
    with serving({"m": first_model}, file) as first, serving({"m": other_model}, file) as other:
        if api == RESPONSES:
            body["conversation"] = first.post("/v1/conversations").json["id"]
        raw = json.dumps(body).encode()
        head = f"POST {api} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n"
        with closing(first.socket()) as connection:
            connection.sendall(head.encode() + raw)
            first.wait(reached)
        # Its leaving is in the store, where the other process sees it.
        count = "SELECT count(result_id) FROM idempotency_records"
        wait_for(lambda: query_file(file, count) == [(1,)])
        if ends_before:
            first.set(spoke)
            wait_for(lambda: not first.service.registry.all())
        else:
            # The turn ends while the retry waits for it, or just before: either will do.
            threading.Timer(0.05, lambda: first.set(spoke)).start()
        again = {"x-stainless-retry-count": "1"}
        got = other.request("POST", api, body, again)
        assert "Once." in got.body.decode()
        assert other_model.calls == []
        # The same words once more are words of their own, and so is their retry.
        assert "Another." in other.request("POST", api, body, again).body.decode()
        assert len(first_model.calls) == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("continues", ["conversation", "previous_response_id", "messages"])
def test_a_client_that_leaves_before_its_turn_is_stored_gets_it_at_another_process(
    tmp_path: Path, continues: str, stream: bool
) -> None:
    file, reached, spoke = tmp_path / "a.db", asyncio.Event(), asyncio.Event()
    first_model = ScriptedModel(["First.", wait(spoke, reached) + say("Once.")])
    other_model = ScriptedModel(["Another."])
    path = CHAT if continues == "messages" else RESPONSES
    body: Json = {"model": "m", "store": True}
    with serving({"m": first_model}, file) as first, serving({"m": other_model}, file) as other:
        if continues == "messages":
            body["messages"] = [{"role": "user", "content": "Hi"}]
            first.request("POST", path, body)
            body["messages"] += [
                {"role": "assistant", "content": "First."},
                {"role": "user", "content": "Go on."},
            ]
        elif continues == "conversation":
            body["conversation"] = first.post("/v1/conversations").json["id"]
            first.request("POST", path, body | {"input": "Hi"})
            body["input"] = "Go on."
        else:
            begun = first.request("POST", path, body | {"input": "Hi"})
            body["previous_response_id"] = begun.json["id"]
            body["input"] = "Go on."
        raw = json.dumps(body | {"stream": stream}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n"
        with writing_to(file):
            with closing(first.socket()) as connection:
                connection.sendall(head.encode() + raw)
                first.wait(reached)
            # Longer than an answer may take that is given in spite of it.
            time.sleep(4 * DisconnectWatcher.LISTEN_DELAY)
        count = "SELECT count(result_id) FROM idempotency_records"
        wait_for(lambda: query_file(file, count) == [(1,)])
        first.set(spoke)
        again = {"x-stainless-retry-count": "1"}
        got = other.request("POST", path, body | {"stream": stream}, again)
        assert "Once." in got.body.decode()
        assert other_model.calls == []
