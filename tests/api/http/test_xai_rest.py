"""xAI's REST endpoints beside ``/v1/responses``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

import msgspec

from antiphon.api.http.app import create_app
from antiphon.models.scripted import ScriptedModel, wait
from antiphon.settings import Price
from antiphon.stores.memory.store import MemoryApiKeyStore
from antiphon.turn.protocols import ModelInfo, Token
from support.http_server import serving
from support.keyed_server import serving_with_keys
from support.misbehaving_upstream import answer
from support.scenario import body_of, scenario


class Spelling(ScriptedModel):
    """A model whose tokens are bytes."""

    async def tokenize(self, model: str, text: str) -> Sequence[Token]:
        return [Token(byte, bytes([byte])) for byte in text.encode()]


def test_language_models() -> None:
    models = {
        "seeing": ScriptedModel(),
        "org/blind": ScriptedModel(info=ModelInfo("org/blind", images=False)),
    }
    price = Price(3.0, 15.0)
    site = partial(
        create_app,
        keys=MemoryApiKeyStore(time.time),
        prices=lambda name: price if name == "seeing" else None,
    )
    with serving(models, site=site) as server:
        listed = server.get("/v1/language-models").json["models"]
        assert [one["id"] for one in listed] == ["seeing", "org/blind"]
        assert [one["input_modalities"] for one in listed] == [["text", "image"], ["text"]]
        assert [one["prompt_text_token_price"] for one in listed] == [30000, 0]
        assert [one["completion_text_token_price"] for one in listed] == [150000, 0]
        assert server.get("/v1/language-models/org/blind").json == listed[1]
        assert server.get("/v1/language-models/nobody").error["code"] == "model_not_found"


def test_the_api_key_is_redacted() -> None:
    with serving_with_keys() as server:
        client = server.client("acme")
        body = client.get("/v1/api-key").json
        assert client.text is not None
        assert body["redacted_api_key"] == f"ap_...{client.text[-4:]}"
        assert (body["api_key_id"], body["team_id"]) == (client.key.id, "acme")
        assert body["create_time"].endswith("Z")
        assert body["acls"]
        assert client.text not in str(body)
        assert server.anonymous_client().get("/v1/api-key").status == 401


def test_a_key_where_none_is_needed() -> None:
    with serving() as server:
        answered = server.request(
            "GET", "/v1/api-key", headers={"authorization": "Bearer sk-private"}
        )
        assert answered.json["redacted_api_key"] == "none (no keys configured)"
        assert b"private" not in answered.body


def test_tokens_are_exact_or_none() -> None:
    with serving({"spelling": Spelling(), "silent": ScriptedModel()}) as server:
        tokens = server.post("/v1/tokenize-text", model="spelling", text="h\u00e9").json
        assert tokens["token_ids"][0] == {
            "token_id": 0x68,
            "string_token": "h",
            "token_bytes": [0x68],
        }
        assert [one["token_bytes"] for one in tokens["token_ids"]] == [[0x68], [0xC3], [0xA9]]
        silent = server.post("/v1/tokenize-text", model="silent", text="h")
        assert (silent.status, silent.error["code"]) == (405, "tokenizer_unavailable")
        assert server.post("/v1/tokenize-text", model="nobody", text="h").status == 404
        assert server.post("/v1/tokenize-text", model="spelling").error["param"] == "text"


def test_tokens_of_an_upstream() -> None:
    tokens = {"token_ids": [{"token_id": 7, "string_token": "h", "token_bytes": [0x68]}]}
    for kind in ("chat_completions", "responses"):
        with scenario(kind, upstream_name="grok") as world:
            world.upstream_sends(
                body_of(tokens),
                body_of({"error": "no such thing"}, 404),
                body_of({"error": {"message": "Too busy."}}, 429),
                body_of({"token_ids": [{"token_id": 1, "token_bytes": [256]}]}),
                answer(b"<html>", 200, {"Content-Type": "text/html"}),
            )
            post = partial(world.server.post, "/v1/tokenize-text", model="m", text="h")
            assert post().json == tokens
            assert world.requests[-1] == {"model": "grok", "text": "h"}
            assert post().error["code"] == "tokenizer_unavailable"
            assert post().status == 429
            assert [post().status, post().status] == [502, 502]


def test_a_deferred_completion_is_fetched_later() -> None:
    released = asyncio.Event()

    with serving(ScriptedModel([wait(released)])) as server:
        hi = [{"role": "user", "content": "Hi"}]
        begun = server.post("/v1/chat/completions", messages=hi, deferred=True, stream=True)
        assert begun.status == 200
        assert set(begun.json) == {"request_id"}
        path = f"/v1/chat/deferred-completion/{begun.json['request_id']}"
        assert server.get(path).status == 202
        server.set(released)
        answered = server.get(path)
        while answered.status == 202:
            answered = server.get(path)
        assert answered.json["object"] == "chat.completion"
        assert server.get(path).json == answered.json
        lost = server.get("/v1/chat/deferred-completion/deferred_0")
        assert (lost.status, lost.error["code"]) == (404, "deferred_completion_not_found")


def test_a_deferred_completion_is_its_tenants() -> None:
    with serving_with_keys() as server:
        one, other = server.client("acme"), server.client("umbrella")
        body = {"messages": [{"role": "user", "content": "Hi"}], "deferred": True}
        begun = one.request("POST", "/v1/chat/completions", body).json
        path = f"/v1/chat/deferred-completion/{begun['request_id']}"
        assert one.get(path).status in (200, 202)
        assert other.get(path).status == 404


def test_a_deferred_completion_that_fails_says_why() -> None:
    with scenario() as world:
        world.upstream_sends(body_of({"error": {"message": "No such thing."}}, 400))
        hi = [{"role": "user", "content": "Hi"}]
        begun = world.server.post("/v1/chat/completions", model="m", messages=hi, deferred=True)
        path = f"/v1/chat/deferred-completion/{begun.json['request_id']}"
        answered = world.server.get(path)
        while answered.status == 202:
            answered = world.server.get(path)
        assert answered.status == 400
        assert "No such thing." in answered.error["message"]
        assert msgspec.json.decode(answered.body)
