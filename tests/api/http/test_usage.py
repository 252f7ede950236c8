"""Usage, images by reference, and the inbox of approvals over HTTP."""

from __future__ import annotations

import hashlib
import io
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from antiphon.core.turns import Usage
from antiphon.models.scripted import ScriptedModel, call, calls
from antiphon.stores.memory import chats as memory_chats
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.postgres import chats as postgres_chats
from antiphon.stores.sqlite import chat_reader as sqlite_chats
from antiphon.turn.chat_protocols import UsageSum
from support.http_server import ThreadServer, serving
from support.mcp_toolsets import stdio_config
from support.store_turns import DONE, HEADER, STORES, assistant, complete_turn, new_turn, opener


@pytest.fixture(params=["memory", "sqlite"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ThreadServer]:
    store = tmp_path / "a.db" if request.param == "sqlite" else None
    with serving(ScriptedModel(), store) as started:
        yield started


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()


def test_sums_of_costs_have_no_rest_of_binary_fractions(server: ThreadServer) -> None:
    async def store_turns() -> str:
        head = None
        for cost in (0.1, 0.2):
            end = msgspec.structs.replace(DONE, cost=cost)
            head = await complete_turn(server.store, parent=head, end=end)
        assert head is not None
        return head.response_id

    response_id = server.run(store_turns())
    found = server.get(f"/v1/responses/{response_id}/usage").json
    assert found["chain"]["cost"] == 0.3
    (day,) = server.get("/v1/usage?from=2023-11-14&to=2023-11-15").json["data"]
    assert day["cost"] == 0.3


def test_usage_is_summed_by_day_and_by_model_and_outlives_erasures(server: ThreadServer) -> None:
    made = [server.respond("One two three.").json for _ in range(3)]
    used = sum(one["usage"]["input_tokens"] for one in made)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    server.request("DELETE", f"/v1/responses/{made[0]['id']}")
    (by_day,) = server.get("/v1/usage").json["data"]
    assert (by_day["turns"], by_day["input_tokens"]) == (3, used)
    assert by_day["day"] in {today, time.strftime("%Y-%m-%d", time.gmtime())}
    assert "cost" not in by_day
    (by_model,) = server.get("/v1/usage?by=model").json["data"]
    assert (by_model["model"], by_model["turns"]) == ("scripted", 3)
    assert server.get("/v1/usage?to=2020-01-31").json["data"] == []
    assert (
        len(server.get(f"/v1/usage?from={today}&to={int(time.time()) + 86400}").json["data"]) == 1
    )
    (whole,) = server.get("/v1/usage?by=model,day").json["data"]
    assert whole == {"day": by_day["day"], **by_model}
    # No turn came with a key, so there is nothing to tell apart.
    assert server.get("/v1/usage?by=key").json["data"] == []
    for query in ("by=hour", "by=day,day", "from=yesterday", "to=2026-13-01"):
        assert server.get(f"/v1/usage?{query}").status == 400


@pytest.mark.parametrize("kind", STORES)
async def test_sums_of_a_day_model_and_key_add_up(kind: str, tmp_path: Path) -> None:
    async with opener(kind, tmp_path)() as store:
        for key_id in (None, "key_b", None, "key_a", "key_b"):
            turn = new_turn("Hi.", header=msgspec.structs.replace(HEADER, key_id=key_id))
            await store.begin(turn)
            if key_id == "key_b":
                # The end comes in a transaction of its own.
                await store.write(turn.response_id, [], None)
            await store.write(turn.response_id, [assistant("a")], DONE)
        day = int(DONE.ended_at // 86400)
        expected = [
            UsageSum(day, "a-model", 2, Usage(24, 68)),
            UsageSum(day, "a-model", 1, Usage(12, 34), key_id="key_a"),
            UsageSum(day, "a-model", 2, Usage(24, 68), key_id="key_b"),
        ]
        assert await store.stores.chats.usage_sums("", 0, day) == expected
        await store.delete("", turn.response_id)
        assert await store.stores.chats.usage_sums("", 0, day) == expected
        assert await store.stores.chats.usage_sums("other", 0, day) == []


@pytest.mark.parametrize("kind", STORES)
async def test_contents_count_what_is_not_erased(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opener(kind, tmp_path)() as store:
        turns = [new_turn("Hi.") for _ in range(3)]
        for turn in turns:
            await store.begin(turn)
            await store.write(turn.response_id, [assistant("a")], DONE)
        await store.stores.conversations.create("", {})
        await store.delete("", turns[0].response_id)
        found = await store.stores.chats.contents("")
        assert (found.chats, found.conversations, found.turns) == (2, 1, 2)
        # Counting does not go on for ever.
        for module in (memory_chats, sqlite_chats, postgres_chats):
            monkeypatch.setattr(module, "MAX_COUNTED", 1)
        found = await store.stores.chats.contents("")
        assert (found.chats, found.conversations, found.turns) == (1, 1, 1)
        other = await store.stores.chats.contents("other")
        assert (other.chats, other.conversations, other.turns) == (0, 0, 0)


def test_usage_of_a_response_and_of_its_chain(server: ThreadServer) -> None:
    chain = [server.respond("One.").json]
    for _ in range(60):
        chain.append(server.respond("More.", previous_response_id=chain[-1]["id"]).json)
    beside = server.respond("Beside.", previous_response_id=chain[0]["id"]).json
    found = server.get(f"/v1/responses/{chain[-1]['id']}/usage").json
    assert found["turn"]["input_tokens"] == chain[-1]["usage"]["input_tokens"]
    assert found["turns"] == len(chain)
    assert found["chain"]["total_tokens"] == sum(one["usage"]["total_tokens"] for one in chain)
    assert server.get(f"/v1/responses/{beside['id']}/usage").json["turns"] == 2
    missing = server.get("/v1/responses/resp_nobodys/usage")
    assert (missing.status, missing.json["error"]["code"]) == (404, "response_not_found")
    held = server.get("/v1/usage/store").json
    assert (held["chats"], held["conversations"], held["turns"]) == (1, 0, len(chain) + 1)
    assert (held["counted_to"], held["expires_next"]) == (100_000, None)


def test_image_is_shown_by_reference_and_returned_by_its_hash(server: ThreadServer) -> None:
    data = png()
    name = hashlib.sha256(data).hexdigest()
    url = f"data:image/png;base64,{b64encode(data).decode()}"
    content = [{"type": "input_image", "image_url": url}]
    made = server.post("/v1/responses", input=[{"role": "user", "content": content}]).json["id"]
    path = f"/v1/responses/{made}/turns"
    (whole,) = server.get(path).json["data"]
    assert whole["input"][0]["content"][0]["image_url"] == url
    (short,) = server.get(f"{path}?images=reference").json["data"]
    reference = short["input"][0]["content"][0]["image_url"]
    assert reference == f"/v1/blobs/{name}"
    found = server.get(reference)
    assert (found.status, found.body, found.headers["content-type"]) == (200, data, "image/png")
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-security-policy"] == "default-src 'none'"
    server.request("DELETE", f"/v1/responses/{made}")
    for missing in (reference, f"/v1/blobs/{'0' * 64}", "/v1/blobs/x"):
        gone = server.get(missing)
        assert (gone.status, gone.json["error"]["code"]) == (404, "blob_not_found")


async def test_image_of_another_tenant_is_missing() -> None:
    store = MemoryStore()
    turn = new_turn(images=[b"cat"], tenant="owner")
    await store.begin(turn)
    name = turn.blobs[0].hash
    assert await store.stores.chats.image("owner", name) == b"cat"
    assert await store.stores.chats.image("other", name) is None
    await store.close()


def test_calls_that_wait_for_a_person_are_in_one_list_until_decided(tmp_path: Path) -> None:
    adding = calls(call("files__add", {"a": 1, "b": 2}, call_id="c1"))
    model = ScriptedModel([adding, "Three."])
    tools = [{"type": "mcp", "server_label": "files", "require_approval": "always"}]
    with serving(model, tmp_path / "a.db", mcp=[stdio_config()]) as server:
        made = server.respond("Add.", tools=tools).json
        (waiting,) = server.get("/v1/approvals").json["data"]
        assert (waiting["id"], waiting["response_id"]) == (made["output"][-1]["id"], made["id"])
        assert (waiting["name"], waiting["server_label"]) == ("add", "files")
        (chat,) = server.get("/v1/chats?status=waiting").json["data"]
        assert (chat["id"], chat["status"]) == (waiting["chat_id"], "waiting")
        decision = {
            "type": "mcp_approval_response",
            "approval_request_id": waiting["id"],
            "approve": True,
        }
        server.post("/v1/responses", input=[decision], previous_response_id=made["id"], tools=tools)
        assert server.get("/v1/approvals").json["data"] == []
        assert server.get("/v1/chats?status=waiting").json["data"] == []
