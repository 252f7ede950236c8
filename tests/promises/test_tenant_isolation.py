"""Tenant isolation: another tenant's id is answered like a missing one, on every endpoint."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from websockets.sync.client import connect

from antiphon.api.http.app import HttpApp, create_app
from antiphon.api.http.middleware import RequestMiddleware
from antiphon.core.ids import completion_id_of, item_id, new_conversation_id, new_response_id
from antiphon.core.items import FunctionCall, Message
from antiphon.core.share_secrets import new_share_id
from antiphon.core.turns import TurnRequest
from antiphon.models.scripted import ScriptedModel
from antiphon.stores.memory.store import MemoryApiKeyStore
from antiphon.turn.service import TurnService
from support.http_server import TIMEOUT, ThreadServer, serving
from support.keyed_server import Client, KeyedServer
from support.routes import METHODS_BY_PATH
from support.store_turns import STORES

WAITING = FunctionCall("call_1", "files__read", "{}", server="files")
#: Endpoints that take no id of anything stored, and what else they are.
WITHOUT_IDS = {
    "/v1/models",
    "/v1/models/{id:path}",
    "/v1/chat/completions",
    "/v1/language-models",
    "/v1/language-models/{id:path}",
    "/v1/api-key",
    "/v1/tokenize-text",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
    # What it is sent is a file; its own tests say whose imports it lists.
    "/v1/import",
    # All of a tenant's chats: its own tests say that there is nothing of others.
    "/v1/export",
    # Their own tests say what they do with them.
    "/mcp",
    "/v1/feed",
    "/v1/blobs/{sha256}",
    "/v1/approvals",
    "/v1/usage",
}


class Ids(NamedTuple):
    """One id of each kind, of one tenant's objects or of nothing."""

    response: str
    conversation: str
    item: str
    approval: str
    conversation_item: str
    completion: str
    chat: str
    share: str
    job: str


MISSING = Ids(
    new_response_id(),
    new_conversation_id(),
    item_id(new_response_id(), "message", 0),
    item_id(new_response_id(), "mcp_approval_request", 1),
    item_id(new_response_id(), "message", 0),
    completion_id_of(new_response_id()),
    f"chat_{new_response_id()[5:]}",
    new_share_id(),
    "import_" + "0" * 32,
)


class SharedServer(NamedTuple):
    """A server, its app, and the clients of two tenants: the owner and a stranger."""

    app: HttpApp
    site: KeyedServer
    owner: Client
    other: Client
    ids: Ids


@pytest.fixture(
    scope="module",
    params=["memory", *(pytest.param(kind, marks=pytest.mark.slow) for kind in STORES[1:])],
)
def shared_server(request: pytest.FixtureRequest) -> Iterator[SharedServer]:
    keys = MemoryApiKeyStore(time.time)
    apps: list[HttpApp] = []

    def make(service: TurnService) -> RequestMiddleware:
        front = create_app(service, keys)
        app = front._app
        assert isinstance(app, HttpApp)
        apps.append(app)
        return front

    with serving(ScriptedModel(), request.param, site=make) as server:
        site = KeyedServer(server, keys)
        owner, other = site.client("owner"), site.client("other")
        yield SharedServer(apps[0], site, owner, other, _things(server, owner))


def _things(server: ThreadServer, owner: Client) -> Ids:
    response = owner.respond("A secret").json["id"]
    first_of_chat = owner.respond("A secret").json["id"]
    chat = owner.get(f"/v1/chats/{first_of_chat}").json["id"]
    items = [{"role": "user", "content": "A secret"}]
    made = owner.request("POST", "/v1/conversations", {"items": items}).json["id"]
    first = owner.get(f"/v1/conversations/{made}/items").json["data"][0]["id"]
    requests_with_ids = TurnRequest((Message("user", "Read."),), tenant="owner")
    hello = {"messages": [{"role": "user", "content": "A secret"}], "store": True}
    completion = owner.request("POST", "/v1/chat/completions", hello).json["id"]
    waiting = server.run(server.service.store_turn(requests_with_ids, [WAITING]))
    return Ids(
        response,
        made,
        item_id(response, "message", 0),
        item_id(waiting, "mcp_approval_request", 1),
        first,
        completion,
        chat,
        owner.request("POST", "/v1/shares", {"response_id": response}).json["id"],
        owner.request("POST", "/v1/import", b"[]").json["id"],
    )


def bodies(ids: Ids) -> list[dict[str, Any]]:
    """A request body for every field that may hold an id."""
    said = {"role": "user", "content": "Hi"}
    decision = {"type": "mcp_approval_response", "approval_request_id": ids.approval}
    named = [ids.item, ids.conversation_item, ids.approval, ids.response]
    return [
        {"input": "Hi", "previous_response_id": ids.response},
        {"input": "Hi", "previous_response_id": ids.conversation},
        {"input": "Hi", "previous_response_id": ids.completion},
        {"input": "Hi", "sibling_of": ids.response},
        {"input": "Hi", "conversation": ids.conversation},
        {"input": "Hi", "conversation": {"id": ids.conversation}, "on_busy": "queue"},
        {"input": "Hi", "conversation": ids.response},
        *({"input": [said, {"type": "item_reference", "id": one}]} for one in named),
        {"input": [{"id": ids.item}]},
        {"input": [{**decision, "approve": True}]},
        {"input": [{**decision, "approve": False}, said]},
    ]


def requests_with_ids(ids: Ids) -> Iterator[tuple[str, str, dict[str, Any] | None]]:
    """Every request with an id, for every endpoint in the route table."""
    every = [
        (method, template)
        for template, methods in METHODS_BY_PATH.items()
        if template not in WITHOUT_IDS
        for method in methods
    ]
    # Deleting comes last: the rest shall find what there is.
    for method, template in sorted(every, key=lambda one: one[0] == "DELETE"):
        for path in _paths(template, ids):
            yield from ((method, path, body) for body in _bodies(template, method, ids))


def _paths(template: str, ids: Ids) -> list[str]:
    is_chat = template.startswith("/v1/chat/")
    names = [ids.completion if is_chat else ids.response, ids.conversation]
    if template.startswith("/v1/chats"):
        names = [ids.chat, ids.response, ids.conversation]
    if template.startswith("/v1/import"):
        names = [ids.job, ids.response]
    if template.startswith("/v1/shares"):
        names = [ids.share, ids.response]
    if "{id}" not in template:
        if template in ("/v1/responses", "/v1/conversations", "/v1/chats", "/v1/shares"):
            return [template, *(f"{template}?after={name}" for name in names)]
        return [template]
    items = [ids.item, ids.conversation_item] if "{item}" in template else [""]
    paths = [
        template.replace("{id}", name).replace("{item}", item) for name in names for item in items
    ]
    queries = ["", "?stream=true", "?cascade=true", f"?after={ids.item}"]
    return [path + query for path in paths for query in queries]


def _bodies(template: str, method: str, ids: Ids) -> list[dict[str, Any] | None]:
    if method != "POST" or template.endswith("/cancel"):
        return [None]
    said = [{"role": "user", "content": "Hi"}]
    if template == "/v1/shares":
        return [{"response_id": one} for one in (ids.response, ids.completion, ids.conversation)]
    if template.startswith("/v1/chat/completions/"):
        return [{"metadata": {"a": "b"}}]
    if template.startswith("/v1/conversations"):
        named = [{"items": [{"type": "item_reference", "id": ids.item}]}]
        return [*named, {"items": said, "metadata": {}}] if "{id}" in template else [*named]
    if template.startswith("/v1/chats"):
        return [{"title": "A title"}]
    more: list[dict[str, Any]] = [{}, {"stream": True}, {"store": False}, {"background": True}]
    return [{"model": "scripted", **body, **extra} for body in bodies(ids) for extra in more]


def normalized(answer: str, ids: Ids) -> str:
    """An answer with all ids and times removed."""
    for name, one in ids._asdict().items():
        answer = answer.replace(one, name)
    return re.sub(r'"(created_at|completed_at)":\d+', "", re.sub(r"[0-9a-f]{32}", "HEX", answer))


def answers(shared_server: SharedServer, who: Client, ids: Ids) -> list[tuple[str, str, int, str]]:
    seen = []
    for method, path, body in requests_with_ids(ids):
        answer = who.request(method, path, body)
        shown = normalized(answer.body.decode(), ids)
        what = normalized(f"{method} {path} {json.dumps(body)}", ids)
        kept = {name: answer.headers.get(name, "") for name in ("content-type", "x-should-retry")}
        seen.append((what, json.dumps(kept), answer.status, shown))
    return seen


def test_every_endpoint_answers_foreign_and_missing_ids_alike(shared_server: SharedServer) -> None:
    before = _everything(shared_server)
    foreign, missing = (
        answers(shared_server, shared_server.other, ids) for ids in (shared_server.ids, MISSING)
    )
    assert len(foreign) > 200
    for one, another in zip(foreign, missing, strict=True):
        assert one == another
    statuses = {status for _, _, status, _ in foreign}
    assert statuses <= {200, 400, 404}
    # Only lists and counts of one's own are answered.
    assert all(
        "secret" not in shown and ('"data":[]' in shown or '"turns":0' in shown)
        for _, _, status, shown in foreign
        if status == 200
    )
    assert _everything(shared_server) == before, "nothing was touched, and nothing of it stored"
    assert shared_server.other.get("/v1/responses").json["data"] == []


def test_requests_cover_every_endpoint(shared_server: SharedServer) -> None:
    """The owner's requests succeed, so that the stranger's failures mean isolation."""
    reached = {
        template
        for template in METHODS_BY_PATH
        if template in WITHOUT_IDS or any(_paths(template, shared_server.ids))
    }
    assert reached == set(METHODS_BY_PATH)
    found = {
        what.split("?")[0]
        for what, _, status, _ in answers(
            shared_server,
            shared_server.owner,
            _things(shared_server.site.server, shared_server.owner),
        )
        # What is over cannot be cancelled, but is found.
        if status == (400 if "/cancel" in what else 200)
    }
    for template, methods in METHODS_BY_PATH.items():
        if template in WITHOUT_IDS or "{item}" in template:
            continue
        for method in methods:
            kind = "conversation" if "conversations" in template else "response"
            kind = "completion" if template.startswith("/v1/chat/") else kind
            kind = "chat" if template.startswith("/v1/chats/") else kind
            kind = "share" if template.startswith("/v1/shares/") else kind
            kind = "job" if template.startswith("/v1/import/") else kind
            start = f"{method} {template.replace('{id}', kind)}"
            assert any(what.startswith(start) for what in found), start


def _everything(shared_server: SharedServer) -> list[bytes]:
    ids = shared_server.ids
    return [
        shared_server.owner.get(path).body
        for path in (
            "/v1/responses",
            "/v1/conversations",
            "/v1/chats",
            "/v1/shares",
            f"/v1/conversations/{ids.conversation}/items",
            f"/v1/responses/{ids.response}/input_items",
            f"/v1/chat/completions/{ids.completion}",
        )
    ]


def test_websocket_answers_foreign_and_missing_ids_alike(shared_server: SharedServer) -> None:
    server = shared_server.site.server
    told: list[list[str]] = [[], []]
    with connect(
        f"ws://127.0.0.1:{server.port}/v1/responses", additional_headers=shared_server.other.headers
    ) as client:
        for seen, ids in zip(told, (shared_server.ids, MISSING), strict=True):
            for body in bodies(ids):
                for store in (True, False):
                    client.send(json.dumps({"type": "response.create", "store": store, **body}))
                    answer = str(client.recv(TIMEOUT))
                    assert json.loads(answer)["type"] == "error"
                    seen.append(normalized(answer, ids))
    assert told[0] == told[1]


def test_idempotency_key_does_not_return_another_tenants_response(
    shared_server: SharedServer,
) -> None:
    headers = {"idempotency-key": "shared"}
    body = {"input": "A secret"}
    mine, theirs = (
        who.request("POST", "/v1/responses", body, headers).json["id"]
        for who in (shared_server.owner, shared_server.other)
    )
    assert mine != theirs
    shared_server.other.request("DELETE", f"/v1/responses/{theirs}")
