"""The API's description: nothing is missing in it, it is valid, and nothing it allows breaks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from antiphon.api.http.routes import ROUTES
from antiphon.models.scripted import ScriptedModel
from support.example_counts import examples
from support.http_server import Answer, ThreadServer, serving
from support.keyed_server import serving_with_keys

#: Examples for each of some thirty operations.
EXAMPLES = examples(2)
PROTOCOL = "/mcp"
#: A request for it has no end.
FEED = "/v1/feed"


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with serving(ScriptedModel()) as started:
        yield started


@pytest.fixture(scope="module")
def described(server: ThreadServer) -> dict[str, Any]:
    answer = server.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    return answer.json


def test_the_description_is_valid_and_every_reference_leads_somewhere(
    described: dict[str, Any],
) -> None:
    text = json.dumps(described)
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', text):
        found: Any = described
        for step in reference.split("/"):
            found = found[step]
    for name, schema in described["components"]["schemas"].items():
        assert re.fullmatch(r"[A-Z]\w*", name)
        Draft202012Validator.check_schema(schema)
    names = [one["operationId"] for path in described["paths"].values() for one in path.values()]
    assert len(names) == len(set(names))


def test_the_routes_that_take_a_key_are_documented(described: dict[str, Any]) -> None:
    assert {
        (name, path)
        for path, names in described["paths"].items()
        for name, operation in names.items()
        for one in operation["parameters"]
        if (one["in"], one["name"]) == ("header", "Idempotency-Key")
    } == {
        ("post", "/v1/responses"),
        ("post", "/v1/chat/completions"),
        ("post", "/v1/conversations"),
        ("post", "/v1/conversations/{id}"),
        ("post", "/v1/conversations/{id}/items"),
    }


def validator(described: dict[str, Any], name: str) -> Draft202012Validator:
    here = f"#/components/schemas/{name}"
    return Draft202012Validator({"$ref": here, "components": described["components"]})


def test_what_is_answered_is_as_described(server: ThreadServer, described: dict[str, Any]) -> None:
    talk = server.post("/v1/conversations", items=[{"role": "user", "content": "Hi"}]).json["id"]
    turn = server.respond("Hi there", conversation=talk).json["id"]
    item = server.get(f"/v1/conversations/{talk}/items").json["data"][0]["id"]
    asked: list[tuple[str, Answer]] = [
        ("Response", server.respond()),
        ("Response", server.get(f"/v1/responses/{turn}")),
        ("ResponseList", server.get("/v1/responses")),
        ("ItemList", server.get(f"/v1/responses/{turn}/input_items")),
        ("Context", server.get(f"/v1/responses/{turn}/context")),
        ("Rhythm", server.get(f"/v1/responses/{turn}/rhythm")),
        ("Compaction", server.post("/v1/responses/compact", input="Hi", model="scripted")),
        ("InputTokens", server.post("/v1/responses/input_tokens", input="Hi")),
        (
            "ChatCompletion",
            server.post("/v1/chat/completions", messages=[{"role": "user", "content": "Hi"}]),
        ),
        ("ModelList", server.get("/v1/models")),
        ("Model", server.get("/v1/models/scripted")),
        ("ConversationList", server.get("/v1/conversations")),
        ("ConversationList", server.get("/v1/conversations?query=hi")),
        ("Conversation", server.get(f"/v1/conversations/{talk}")),
        ("ItemList", server.get(f"/v1/conversations/{talk}/items")),
        ("Item", server.get(f"/v1/conversations/{talk}/items/{item}")),
        ("Conversation", server.request("DELETE", f"/v1/conversations/{talk}/items/{item}")),
        ("Deleted", server.request("DELETE", f"/v1/responses/{turn}")),
        ("Deleted", server.request("DELETE", f"/v1/conversations/{talk}")),
    ]
    for name, answer in asked:
        assert answer.status == 200, (name, answer.body)
        validator(described, name).validate(answer.json)
    refused = [
        server.get("/v1/responses/resp_1"),
        server.post(f"/v1/responses/{server.respond().json['id']}/cancel"),
        server.respond(""),
        server.get("/nowhere"),
    ]
    for answer in refused:
        validator(described, "Error").validate(answer.json)
    assert not validator(described, "Error").is_valid({})


class _Page(HTMLParser):
    """What a page shows, and everything in it that would be loaded or run."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "img", "iframe", "link", "object", "form"}:
            self.active.append(tag)
        self.active += [name for name, _ in attrs if name == "src" or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_only_public_routes_answer_without_a_key() -> None:
    with serving_with_keys() as site:
        site.client()
        anonymous = site.anonymous_client()
        answered = {route.path for route in ROUTES if anonymous.get(route.path).status != 401}
    assert answered == {"/healthz", "/readyz", "/openapi.json", "/docs"}


def test_the_page_shows_every_endpoint_and_runs_nothing(server: ThreadServer) -> None:
    answer = server.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = _Page()
    page.feed(answer.body.decode())
    assert page.active == []
    assert {route.documented_path for route in ROUTES} <= {text.strip() for text in page.text}
    assert "previous_response_id" in page.text


@pytest.mark.slow
def test_nothing_that_is_allowed_breaks_the_server(server: ThreadServer) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json").exclude(
        path=[PROTOCOL, FEED]
    )
    few = settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    def call(case: Any) -> None:
        answer = case.call()
        assert answer.status_code < 500, answer.text

    found = list(schema.get_all_operations())
    operations = [result.ok() for result in found if isinstance(result, Ok)]
    assert len(operations) == len(found)
    every = {f"{route.method} {route.documented_path}" for route in ROUTES}
    assert {one.label for one in operations} == every - {
        f"POST {PROTOCOL}",
        f"GET {FEED}",
        # Where it was fetched from.
        "GET /openapi.json",
    }
    for operation in operations:
        for mode in GenerationMode:
            # Where nothing can be asked in a wrong way there is nothing to try.
            if mode.is_positive or operation.body or operation.query:
                few(given(operation.as_strategy(mode))(call))()
    assert server.logged_errors == []
