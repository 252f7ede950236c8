"""Usage by API key: each interface counts a turn for the key that it came with."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from websockets.sync.client import connect
from xai_sdk.chat import user  # type: ignore[import-untyped]

from support.grpc_client import GrpcTestServer, grpc_serving
from support.http_server import TIMEOUT
from support.mcp_clients import MODES, call, over_http


class KeyHolder:
    """Someone with a key, who makes one turn by each interface."""

    def __init__(self, server: GrpcTestServer) -> None:
        self.server = server
        self.text = server.key("acme")
        self.headers = {"authorization": f"Bearer {self.text}"}
        self.key_id = server.http.request("GET", "/v1/api-key", None, self.headers).json[
            "api_key_id"
        ]

    def post(self, path: str, **body: object) -> None:
        answer = self.server.http.request("POST", path, body, self.headers)
        assert answer.status == 200, answer.body

    def respond(self) -> None:
        self.post("/v1/responses", input="Hi")

    def complete(self) -> None:
        self.post("/v1/chat/completions", messages=[{"role": "user", "content": "Hi"}], store=True)

    def append(self) -> None:
        items = [{"type": "message", "role": "user", "content": "Hi"}]
        self.post("/v1/conversations", items=items)

    def send_message(self) -> None:
        url = f"ws://127.0.0.1:{self.server.http.port}/v1/responses"
        with connect(url, additional_headers=self.headers, open_timeout=TIMEOUT) as client:
            client.send(json.dumps({"type": "response.create", "input": "Hi"}))
            while json.loads(client.recv(TIMEOUT))["type"] != "response.completed":
                pass

    def call_grpc(self) -> None:
        with self.server.client(self.text) as client:
            chat = client.chat.create("scripted", store_messages=True)
            chat.append(user("Hi"))
            chat.sample()

    def usage(self, by: str) -> list[dict[str, object]]:
        path = f"/v1/usage?by={by}"
        rows: list[dict[str, object]] = self.server.http.request(
            "GET", path, None, self.headers
        ).json["data"]
        return rows


WAYS: list[Callable[[KeyHolder], None]] = [
    KeyHolder.respond,
    KeyHolder.complete,
    KeyHolder.append,
    KeyHolder.send_message,
    KeyHolder.call_grpc,
]


async def test_every_interface_counts_a_turn_for_its_key() -> None:
    with grpc_serving() as server:
        holders = [KeyHolder(server) for _ in range(2)]
        for way in WAYS:
            way(holders[0])
        async with over_http(server.http, MODES[0], holders[1].headers) as client:
            await call(client, "stateful_chat", prompt="Hi")
        rows = {row["key"]: row for row in holders[0].usage("key")}
        assert {key: row["turns"] for key, row in rows.items()} == {
            holders[0].key_id: len(WAYS),
            holders[1].key_id: 1,
        }
        assert {row["key_name"] for row in rows.values()} == {"laptop"}
        by_day = holders[0].usage("day,key")
        assert sum(row["turns"] for row in by_day) == len(WAYS) + 1  # type: ignore[misc]
        assert list(by_day[0])[:3] == ["day", "key", "key_name"]
        secret = holders[0].text.encode()
        answer = server.http.request("GET", "/v1/usage?by=key", None, holders[1].headers)
        assert secret not in answer.body


@pytest.mark.parametrize("grouping", ["key", "model,key"])
def test_other_tenants_keys_are_not_in_a_usage_by_key(grouping: str) -> None:
    with grpc_serving() as server:
        KeyHolder(server).respond()
        other = {"authorization": f"Bearer {server.key('other')}"}
        path = f"/v1/usage?by={grouping}"
        assert server.http.request("GET", path, None, other).json["data"] == []
