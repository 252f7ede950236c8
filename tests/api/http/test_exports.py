"""``/v1/chats/{id}/export`` and ``/v1/export``: files of one chat, and of all."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from antiphon.models.scripted import ScriptedModel, say
from support.http_server import ThreadServer, serving
from support.keyed_server import serving_with_keys


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with serving(ScriptedModel(lambda _: say("Yes, **indeed**."))) as started:
        yield started


def test_one_chat_in_every_format(server: ThreadServer) -> None:
    first = server.respond('A "quoted" title <b>').json["id"]
    second = server.respond("More", previous_response_id=first).json["id"]
    other = server.respond("Else", previous_response_id=first).json["id"]
    answer = server.get(f"/v1/chats/{first}/export")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json
    assert (document["format"], document["version"]) == ("antiphon.chat", 1)
    assert [one["id"] for one in document["turns"]] == [first, second, other]
    assert [one.get("parent") for one in document["turns"]] == [None, first, first]
    markdown = server.get(f"/v1/chats/{first}/export?format=markdown&head={second}")
    assert markdown.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "## You\n\nMore\n" in markdown.body.decode()
    assert "Else" not in markdown.body.decode()
    page = server.get(f"/v1/chats/{second}/export?format=html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src")
    html = page.body.decode()
    assert "Else" in html, "the newest chain"
    assert "<strong>indeed</strong>" in html
    assert "<b>" not in html
    disposition = page.headers["content-disposition"]
    assert disposition.startswith('attachment; filename="A-quoted-title-b.html"; filename*=UTF-8')


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [("format=pdf", 400, "format"), ("head=resp_" + "0" * 32, 404, None), ("head=x", 404, None)],
)
def test_what_cannot_be_exported(
    server: ThreadServer, query: str, status: int, param: str | None
) -> None:
    name = server.respond("Hi").json["id"]
    answer = server.get(f"/v1/chats/{name}/export?{query}")
    assert (answer.status, answer.error["param"]) == (status, param)
    another = server.respond("Hi").json["id"]
    assert server.get(f"/v1/chats/{name}/export?head={another}").status == 404
    assert server.get(f"/v1/chats/resp_{'0' * 32}/export").status == 404


def test_all_chats_come_one_a_line_and_go_in_again() -> None:
    with serving_with_keys() as site:
        acme, other = site.client("acme"), site.client("other")
        for number in range(120):
            acme.respond(f"Chat {number}")
        answer = acme.get("/v1/export")
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = answer.body.splitlines()
        asked = [json.loads(line)["turns"][0]["input"][0]["content"] for line in lines]
        assert asked == [f"Chat {number}" for number in range(120)]
        assert other.get("/v1/export").body == b""
        assert site.anonymous_client().get("/v1/export").status == 401
        started = other.request("POST", "/v1/import", answer.body)
        assert started.status == 202
