"""Chats over HTTP: the list, its filters, titles, and erasure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.chat_titles import MAX_TITLE_LENGTH, single_line
from antiphon.models.scripted import ScriptedModel
from antiphon.turn import chats as chat_service
from support.http_server import ThreadServer, serving
from support.side_stores import all_bytes


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ThreadServer]:
    store = tmp_path / "a.db" if request.param == "sqlite" else None
    with serving(ScriptedModel(), store) as started:
        yield started


def respond(world: ThreadServer, text: str, **fields: Any) -> dict[str, Any]:
    found = world.respond(text, **fields)
    assert found.status == 200, found.body
    return found.json


def chats(world: ThreadServer, query: str = "") -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = world.request("GET", f"/v1/chats{query}").json["data"]
    return listed


def test_every_interfaces_turns_are_chats_the_newest_first(world: ThreadServer) -> None:
    first = respond(world, "What is a fugue?")
    second = respond(world, "And a canon?")
    again = respond(world, "More.", previous_response_id=first["id"])
    completion = {"messages": [{"role": "user", "content": "Hello"}], "store": True}
    world.request("POST", "/v1/chat/completions", completion)
    listed = chats(world)
    assert [chat["title"] for chat in listed] == ["Hello", "What is a fugue?", "And a canon?"]
    assert listed[1]["head"] == again["id"]
    assert (listed[1]["turns"], listed[1]["branches"]) == (2, 1)
    assert listed[1]["id"] == f"chat_{first['id'][5:]}"
    assert listed[2]["head"] == second["id"]


def test_chat_is_found_by_each_of_its_ids(world: ThreadServer) -> None:
    made = world.request("POST", "/v1/conversations", {}).json["id"]
    one = respond(world, "Hi.", conversation=made)
    chat = world.request("GET", f"/v1/chats/{one['id']}").json
    assert chat["conversation"] == made
    for name in (chat["id"], made, one["id"]):
        assert world.request("GET", f"/v1/chats/{name}").json == chat
    missing = world.request("GET", f"/v1/chats/chat_{'0' * 32}")
    assert (missing.status, missing.json["error"]["code"]) == (404, "chat_not_found")


def test_update_changes_only_the_fields_that_are_given(world: ThreadServer) -> None:
    one = respond(world, "Hi.")
    path = f"/v1/chats/{one['id']}"
    assert world.request("POST", path, {"title": "Greetings"}).json["title"] == "Greetings"
    changed = world.request("POST", path, {"pinned": True, "metadata": {"a": "b"}}).json
    assert (changed["title"], changed["pinned"], changed["metadata"]) == (
        "Greetings",
        True,
        {"a": "b"},
    )
    assert chats(world, "?pinned=true") == [changed]
    assert chats(world, "?pinned=false") == []
    assert chats(world, "?metadata[a]=b") == [changed]
    assert chats(world, "?metadata[a]=c") == []
    assert world.request("POST", path, {"title": None}).json["title"] == "Hi."
    permanent = world.request("POST", path, {"permanent": True}).json
    assert (permanent["permanent"], permanent["expires_at"]) == (True, None)
    assert not world.request("POST", path, {"permanent": False}).json["permanent"]
    assert world.request("POST", path, {}).status == 400
    assert world.request("POST", path, {"title": "x" * 600}).status == 400


def test_delete_erases_all_branches_and_the_conversation(world: ThreadServer) -> None:
    made = world.request("POST", "/v1/conversations", {}).json["id"]
    first = respond(world, "Hi.", conversation=made)
    second = respond(world, "More.", conversation=made)
    branch = respond(world, "Else.", previous_response_id=first["id"])
    deleted = world.request("DELETE", f"/v1/chats/{branch['id']}").json
    assert deleted == {
        "id": f"chat_{first['id'][5:]}",
        "object": "chat.deleted",
        "deleted": True,
    }
    for one in (first, second, branch):
        assert world.request("GET", f"/v1/responses/{one['id']}").status == 404
    assert world.request("GET", f"/v1/conversations/{made}").status == 404
    assert chats(world) == []
    assert world.request("DELETE", f"/v1/chats/{deleted['id']}").status == 404


def test_chat_outlives_its_first_turn_under_the_same_id(world: ThreadServer) -> None:
    first = respond(world, "Hi.")
    second = respond(world, "More.", previous_response_id=first["id"])
    (before,) = chats(world)
    world.request("DELETE", f"/v1/responses/{first['id']}")
    (after,) = chats(world)
    assert after["id"] == before["id"]
    assert (after["title"], after["head"]) == ("More.", second["id"])
    world.request("DELETE", f"/v1/responses/{second['id']}")
    assert chats(world) == []


def test_pages_follow_one_another_by_the_last_chats_id(world: ThreadServer) -> None:
    made = [respond(world, f"Question {number}")["id"] for number in range(5)]
    seen: list[str] = []
    after = ""
    while True:
        page = world.request("GET", f"/v1/chats?limit=2{after}").json
        seen += [chat["head"] for chat in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert seen == made[::-1]
    assert [chat["head"] for chat in chats(world, "?order=asc")] == made
    unknown = world.request("GET", f"/v1/chats?after=chat_{'0' * 32}")
    assert (unknown.status, unknown.json["error"]["code"]) == (400, "cursor_not_found")


def test_search_finds_each_chat_once_with_its_best_turn(world: ThreadServer) -> None:
    first = respond(world, "The heron stands still.")
    respond(world, "A heron again, heron.", previous_response_id=first["id"])
    other = respond(world, "One heron more.")
    respond(world, "Nothing of the kind.")
    found = world.request("GET", "/v1/chats?query=heron").json
    assert {chat["id"] for chat in found["data"]} == {
        f"chat_{one['id'][5:]}" for one in (first, other)
    }
    assert all("«heron»" in chat["match"]["excerpt"].lower() for chat in found["data"])
    page = world.request("GET", "/v1/chats?query=heron&limit=1").json
    assert page["has_more"]
    rest = world.request("GET", f"/v1/chats?query=heron&limit=1&after={page['last_id']}").json
    assert [page["data"][0], rest["data"][0]] == found["data"]


@pytest.mark.parametrize(
    "query", ["status=asleep", "pinned=perhaps", "limit=0", "order=up", "query=a&order=asc"]
)
def test_invalid_filter_is_refused(world: ThreadServer, query: str) -> None:
    assert world.request("GET", f"/v1/chats?{query}").status == 400


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("  Two\nlines\t", "Two lines"),
        ("word " * 40, ("word " * 15 + "word") + "…"),
        ("x" * 100, "x" * 79 + "…"),
        ("\x1b[31mred\x07", "[31mred"),
        ("\N{WOMAN}\u200d\N{GIRL} می\u200cروم\u202e", "\N{WOMAN}\u200d\N{GIRL} می\u200cروم"),
        ("", ""),
    ],
)
def test_title_is_one_line_of_words(text: str, title: str) -> None:
    assert single_line(text) == title
    assert len(single_line(text)) <= MAX_TITLE_LENGTH


def test_branches_say_where_each_ends_and_what_it_forks_from(world: ThreadServer) -> None:
    first = respond(world, "One")["id"]
    second = respond(world, "Two", previous_response_id=first)["id"]
    other = respond(world, "Two, better", previous_response_id=first)["id"]
    beside = respond(world, "One, better", sibling_of=first)["id"]
    listed = world.get(f"/v1/chats/{first}/branches").json["data"]
    assert [
        (one["response_id"], one["forks_from"], one["opening"], one["turns"]) for one in listed
    ] == [
        (second, None, "One", 2),
        (other, first, "Two, better", 2),
        (beside, None, "One, better", 1),
    ]
    (chat,) = chats(world)
    assert chat["branches"] == len(listed)
    page = world.get(f"/v1/chats/{first}/branches?limit=1&after={second}").json
    assert ([one["response_id"] for one in page["data"]], page["has_more"]) == ([other], True)
    assert world.get(f"/v1/chats/{first}/branches?limit=1000").json["data"] == listed
    assert world.get(f"/v1/chats/{first}/branches?limit=1001").status == 400


def test_search_within_a_chat_finds_its_turns_only(world: ThreadServer) -> None:
    first = respond(world, "A heron.")["id"]
    second = respond(world, "More of the heron.", previous_response_id=first)["id"]
    respond(world, "A heron elsewhere.")
    found = world.get(f"/v1/chats/{first}/search?query=heron").json
    hits = found["data"]
    assert {(hit["response_id"], hit["position"]) for hit in hits} == {(first, 0), (second, 1)}
    page = world.get(f"/v1/chats/{first}/search?query=heron&limit=1").json
    assert (page["data"], page["has_more"]) == (hits[:1], True)
    page = world.get(f"/v1/chats/{first}/search?query=heron&after={hits[0]['id']}").json
    assert (page["data"], page["has_more"]) == (hits[1:], False)
    assert world.get(f"/v1/chats/{first}/search").json["data"] == []


def test_search_finds_chats_behind_a_long_one_with_better_hits(world: ThreadServer) -> None:
    other = respond(world, "A heron, and many other words that make less of it.")["id"]
    parent = None
    for _ in range(30):
        parent = respond(world, "heron heron", previous_response_id=parent)["id"]
    found = world.get("/v1/chats?query=heron&limit=1").json
    assert (found["has_more"], found["data"][0]["head"]) == (True, parent)
    rest = world.get(f"/v1/chats?query=heron&limit=1&after={found['last_id']}").json
    assert [one["head"] for one in rest["data"]] == [other]
    assert (rest["has_more"], rest["is_complete"]) == (False, True)


def test_search_says_whether_it_looked_at_all_chats_with_the_words(
    world: ThreadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in ("A heron.", "More of the heron.", "The last heron."):
        respond(world, words)
    assert world.get("/v1/chats?query=heron&pinned=true").json["is_complete"]
    monkeypatch.setattr(chat_service, "_SEARCH_PAGE", 1)
    monkeypatch.setattr(chat_service, "_MAX_SEARCH_PAGES", 1)
    assert not world.get("/v1/chats?query=heron&pinned=true").json["is_complete"]
    assert world.get("/v1/chats?query=heron").json["is_complete"]


def test_title_and_metadata_leave_the_file_with_the_chat(tmp_path: Path) -> None:
    with serving(ScriptedModel(), tmp_path / "a.db") as server:
        one = respond(server, "Hi.")["id"]
        path = f"/v1/chats/{one}"
        server.request("POST", path, {"title": "canary one", "metadata": {"a": "canary two"}})
        server.request("POST", path, {"title": "canary three"})
        server.request("DELETE", path)
    assert b"canary" not in all_bytes(tmp_path)
