"""Conversations over HTTP: made, filled, continued, listed, searched, and erased."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.ids import item_id, new_conversation_id, new_response_id
from antiphon.models.scripted import ScriptedModel, hang, say, wait
from support.http_server import Answer, ThreadServer, serving
from support.side_stores import all_bytes

NOWHERE = f"/v1/conversations/{new_conversation_id()}"


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.fixture(params=["memory", "sqlite"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ThreadServer]:
    store = tmp_path / "a.db" if request.param == "sqlite" else None
    with serving(ScriptedModel(), store) as started:
        yield started


class Talk:
    """One conversation on a server."""

    def __init__(self, server: ThreadServer, **fields: Any) -> None:
        self.server = server
        self.body = server.post("/v1/conversations", **fields).json
        self.id = self.body["id"]
        self.path = f"/v1/conversations/{self.id}"

    def say(self, text: str = "Hi", /, **fields: Any) -> dict[str, Any]:
        answer = self.server.respond(text, **{"conversation": self.id, **fields})
        assert answer.status == 200, answer.body
        return answer.json

    def items(self, query: str = "?order=asc&limit=100") -> list[dict[str, Any]]:
        data: list[dict[str, Any]] = self.server.get(f"{self.path}/items{query}").json["data"]
        return data

    def words(self) -> list[str]:
        """The first line of each item."""
        return [item["content"][0]["text"].splitlines()[0] for item in self.items()]

    def delete(self, path: str = "") -> Answer:
        return self.server.request("DELETE", self.path + path)


def test_a_conversation_is_made_shown_described_and_deleted(server: ThreadServer) -> None:
    talk = Talk(server, metadata={"topic": "tea"})
    assert set(talk.body) == {"id", "object", "created_at", "metadata"}
    assert re.fullmatch(r"conv_[0-9a-f]{32}", talk.id)
    assert (talk.body["object"], talk.body["metadata"]) == ("conversation", {"topic": "tea"})
    assert server.get(talk.path).json == talk.body
    changed = server.post(talk.path, metadata={"topic": "rain", "a": "b"}).json
    assert changed == talk.body | {"metadata": {"topic": "rain", "a": "b"}}
    assert server.get(talk.path).json == changed
    assert talk.delete().json == {
        "id": talk.id,
        "object": "conversation.deleted",
        "deleted": True,
    }
    assert server.get(talk.path).status == 404
    assert talk.delete().status == 404


@pytest.mark.parametrize("body", [None, b"", b"{}", b'{"items": null, "metadata": null}'])
def test_nothing_needs_to_be_said_of_a_new_one(server: ThreadServer, body: bytes | None) -> None:
    made = server.request("POST", "/v1/conversations", body)
    assert (made.status, made.json["metadata"]) == (200, {})


def test_it_begins_with_items_and_goes_on_with_turns(server: ThreadServer) -> None:
    talk = Talk(server, items=[{"role": "system", "content": "Be brief."}, user("I am Alice.")])
    first = talk.say("Who am I?")
    assert first["conversation"] == {"id": talk.id}
    assert "Before that you said: I am Alice." in first["output"][0]["content"][0]["text"]
    assert "shown 3 messages" in first["output"][0]["content"][0]["text"]
    added = server.post(f"{talk.path}/items", items=[user("More."), user("And more.")]).json
    assert [item["content"][0]["text"] for item in added["data"]] == ["More.", "And more."]
    assert (added["first_id"], added["last_id"]) == (added["data"][0]["id"], added["data"][1]["id"])
    talk.say("Last.", conversation={"id": talk.id})
    assert talk.words() == [
        "Be brief.",
        "I am Alice.",
        "Who am I?",
        "You said: Who am I?",
        "More.",
        "And more.",
        "Last.",
        "You said: Last.",
    ]


def test_items_come_in_pages_newest_first(server: ThreadServer) -> None:
    talk = Talk(server, items=[user(f"{number}") for number in range(5)])
    whole = talk.items()
    assert talk.items("") == whole[::-1]
    page = server.get(f"{talk.path}/items?limit=2").json
    assert (page["data"], page["has_more"]) == (whole[:2:-1], True)
    rest = server.get(f"{talk.path}/items?after={page['last_id']}").json
    assert (rest["data"], rest["has_more"]) == (whole[2::-1], False)
    assert server.get(f"{talk.path}/items/{whole[1]['id']}").json == whole[1]
    for query in ("limit=0", "limit=101", "limit=x", "order=up", "after=msg_1"):
        answer = server.get(f"{talk.path}/items?{query}")
        assert (answer.status, answer.error["param"]) == (400, query.split("=")[0])


def test_a_response_in_a_conversation_is_one_like_any_other(server: ThreadServer) -> None:
    talk = Talk(server)
    first, second = talk.say("one"), talk.say("two")
    assert second["previous_response_id"] == first["id"]
    branch = server.respond("aside", previous_response_id=first["id"]).json
    assert branch["conversation"] is None
    assert talk.words() == ["one", "You said: one", "two", "You said: two"]


def test_a_conversation_goes_on_from_one_place_only(server: ThreadServer) -> None:
    talk = Talk(server)
    answer = server.respond(conversation=talk.id, previous_response_id=talk.say()["id"])
    assert (answer.status, answer.error["code"]) == (400, "mutually_exclusive_parameters")
    assert answer.error["message"].startswith("Mutually exclusive parameters: ")


def test_one_turn_at_a_time_or_in_a_queue() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()
    with serving(ScriptedModel([say("One") + wait(opened, reached), "Two."])) as server:
        talk = Talk(server)
        running = talk.say("first", background=True)["id"]
        server.wait(reached)
        answers = [
            server.respond(conversation=talk.id),
            server.respond(conversation=talk.id, stream=True),
            server.respond(conversation=talk.id, on_busy="refuse"),
            server.post(f"{talk.path}/items", items=[user("Hi")]),
        ]
        for answer in answers:
            assert (answer.status, answer.error["code"]) == (409, "conversation_locked")
            assert answer.error["param"] == "conversation"
        assert talk.words() == []
        server.set(opened)
        second = talk.say("second", on_busy="queue")
        assert second["previous_response_id"] == running
        assert talk.words() == ["first", "One", "second", "Two."]


@pytest.mark.parametrize("value", ["wait", 1, "", ["queue"]])
def test_what_to_do_when_busy_is_one_of_two(server: ThreadServer, value: object) -> None:
    answer = server.respond(conversation=Talk(server).id, on_busy=value)
    assert (answer.status, answer.error["param"]) == (400, "on_busy")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("", {"items": 5}, "items"),
        ("", {"items": [1]}, "items[0]"),
        ("", {"items": [{"type": "nonsense"}]}, "items[0].type"),
        ("", {"items": [{"role": "king", "content": "x"}]}, "items[0].role"),
        ("", {"items": [{"type": "item_reference", "id": "msg_1"}]}, "items[0]"),
        ("", {"items": [user("x")] * 101}, "items"),
        ("", {"metadata": {"a": "x" * 513}}, "metadata[...]"),
        ("", {"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ("", {"items": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "items"),
        ("/ID", {}, "metadata"),
        ("/ID", {"metadata": None}, "metadata"),
        ("/ID/items", {}, "items"),
        ("/ID/items", {"items": []}, "items"),
        ("/ID/items", {"items": [user("")]}, "items"),
        ("/ID/items", {"items": [{"role": "user"}]}, "items[0].content"),
    ],
)
def test_invalid_input_is_explained_and_nothing_is_stored(
    server: ThreadServer, path: str, body: dict[str, Any], param: str | None
) -> None:
    talk = Talk(server)
    answer = server.request("POST", "/v1/conversations" + path.replace("ID", talk.id), body)
    assert (answer.status, answer.error["param"]) == (400, param)
    listed = server.get("/v1/conversations").json["data"]
    assert ([one["id"] for one in listed], talk.items(), server.stored_count()) == (
        [talk.id],
        [],
        0,
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("DELETE", ""),
        ("GET", "/items"),
        ("POST", "/items"),
        ("GET", "/items/msg_1"),
        ("DELETE", "/items/msg_1"),
    ],
)
def test_what_is_not_there_is_not_found(server: ThreadServer, method: str, path: str) -> None:
    body = {"metadata": {}, "items": [user("Hi")]} if method == "POST" else None
    for name in (NOWHERE, "/v1/conversations/conv_1", f"/v1/conversations/{new_response_id()}"):
        answer = server.request(method, name + path, body)
        assert (answer.status, answer.error["code"]) == (404, "conversation_not_found")


def test_conversations_are_listed_newest_first(server: ThreadServer) -> None:
    ids = [Talk(server).id for _ in range(5)]
    assert [one["id"] for one in server.get("/v1/conversations").json["data"]] == ids[::-1]
    page = server.get("/v1/conversations?limit=2&order=asc").json
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (ids[:2], True)
    rest = server.get(f"/v1/conversations?order=asc&after={page['last_id']}").json
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == (ids[2:], False)
    missing = server.get(f"/v1/conversations?after={new_conversation_id()}")
    assert (missing.status, missing.error["param"]) == (400, "after")


def test_what_was_said_is_found(server: ThreadServer) -> None:
    talk = Talk(server)
    found = talk.say("The teapot is blue.")["id"]
    alone = server.respond("My teapot is green.").json["id"]
    server.respond("Nothing here.")
    hits = server.get("/v1/conversations?query=teapot").json
    assert hits["has_more"] is False
    assert {(one["conversation"], one["response_id"]) for one in hits["data"]} == {
        (talk.id, found),
        (None, alone),
    }
    assert all("«teapot»" in one["excerpt"] for one in hits["data"])
    (only,) = server.get("/v1/conversations?query=teapot+blue").json["data"]
    assert only["response_id"] == found
    assert server.get("/v1/conversations?query=teapot&limit=1").json["data"][0]["id"]
    for query in ("%22", "*", "a+AND", "%00", "NEAR(", "%ED%A0%80", "'; --", "x" * 5000):
        assert server.get(f"/v1/conversations?query={query.replace(' ', '+')}").status == 200
    talk.delete()
    left = server.get("/v1/conversations?query=teapot").json["data"]
    assert [one["response_id"] for one in left] == [alone]


def test_what_was_said_is_found_page_by_page(server: ThreadServer) -> None:
    talk = Talk(server)
    said = [talk.say("A teapot.")["id"] for _ in range(5)]
    find = "/v1/conversations?query=teapot"
    whole = server.get(find).json
    assert sorted(one["id"] for one in whole["data"]) == sorted(said)
    assert {one["conversation"] for one in whole["data"]} == {talk.id}
    assert [server.get(f"{find}&limit={n}").json["has_more"] for n in (4, 5)] == [True, False]
    shown: list[str] = []
    more, after = True, ""
    while more:
        part = server.get(f"{find}&limit=2{after}").json
        shown += [one["id"] for one in part["data"]]
        # The next one is better, or as good and newer: it shifts nothing.
        talk.say("Teapot! Teapot!")
        more, after = part["has_more"], f"&after={part['last_id']}"
    assert shown == [one["id"] for one in whole["data"]]
    assert len(shown) == 5


@pytest.mark.parametrize(
    "after", ["conv_1", NOWHERE, new_response_id()], ids=["another kind", "a path", "unknown"]
)
def test_a_search_goes_on_behind_what_it_found(server: ThreadServer, after: str) -> None:
    server.respond("A teapot.")
    answer = server.get(f"/v1/conversations?query=teapot&after={after}")
    assert (answer.status, answer.error["param"]) == (400, "after")


@pytest.mark.parametrize("order", ["asc", "desc", "rank"])
def test_a_search_has_its_own_order(server: ThreadServer, order: str) -> None:
    answer = server.get(f"/v1/conversations?query=teapot&order={order}")
    assert (answer.status, answer.error["param"]) == (400, "order")


# Responses as a list.


def test_responses_are_listed_by_what_they_are(server: ThreadServer) -> None:
    ids = [server.respond(f"{number}").json["id"] for number in range(3)]
    marked = server.respond("x", metadata={"team": "a", "n": "1"}, model="scripted").json["id"]
    assert [one["id"] for one in server.get("/v1/responses").json["data"]] == [marked, *ids[::-1]]
    for query, expected in (
        ("metadata[team]=a", [marked]),
        ("metadata%5Bteam%5D=a&metadata[n]=1", [marked]),
        ("metadata[team]=b", []),
        ("status=completed&order=asc&limit=2", ids[:2]),
        ("status=failed", []),
        ("model=scripted&limit=1", [marked]),
        ("model=other", []),
        (f"after={ids[1]}", [ids[0]]),
    ):
        page = server.get(f"/v1/responses?{query}").json
        assert [one["id"] for one in page["data"]] == expected, query
    assert server.get("/v1/responses?limit=1").json["has_more"] is True
    assert server.get(f"/v1/responses/{marked}").json in server.get("/v1/responses").json["data"]
    assert server.get("/v1/responses?status=odd").error["param"] == "status"
    assert server.get(f"/v1/responses?after={new_response_id()}").status == 400


# Erasing.


def test_a_deleted_conversation_leaves_what_a_branch_outside_needs(server: ThreadServer) -> None:
    talk = Talk(server)
    first, second, third = (talk.say(text) for text in ("one", "two", "three"))
    branch = server.respond("aside", previous_response_id=second["id"]).json
    assert talk.delete().status == 200
    left = {
        one["id"]: server.get(f"/v1/responses/{one['id']}").status
        for one in (first, second, third, branch)
    }
    assert list(left.values()) == [200, 200, 404, 200]
    again = server.respond("more", previous_response_id=branch["id"]).json
    assert "shown 7 messages" in again["output"][0]["content"][0]["text"]
    for path in ("", "/items"):
        assert server.get(talk.path + path).status == 404
    assert server.respond(conversation=talk.id).status == 404


def test_a_deleted_conversation_is_in_no_file(tmp_path: Path) -> None:
    with serving(ScriptedModel(), tmp_path / "a.db") as server:
        talk = Talk(server, items=[user("canary one")], metadata={"note": "canary two"})
        talk.say("canary three", metadata={"note": "canary four"}, instructions="canary five")
        assert talk.delete().status == 200
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    assert b"canary" not in all_bytes(tmp_path)


def test_deleting_a_conversation_stops_what_runs_on_it() -> None:
    reached = asyncio.Event()
    model = ScriptedModel(["Hello.", say("Long") + hang(reached)])
    with serving(model) as server:
        talk = Talk(server)
        first = talk.say()["id"]
        running = talk.say(background=True)["id"]
        server.wait(reached)
        assert talk.delete().status == 200
        assert model.cancelled.is_set()
        for name in (first, running):
            assert server.get(f"/v1/responses/{name}").status == 404


def test_what_runs_below_a_deleted_response_is_stopped() -> None:
    reached = asyncio.Event()
    model = ScriptedModel(["Hello.", "Else.", say("Long") + hang(reached)])
    with serving(model) as server:
        root, other = server.respond().json["id"], server.respond().json["id"]
        doomed = server.respond(previous_response_id=root, background=True).json["id"]
        server.wait(reached)
        for name, stopped in ((other, False), (root, True)):
            server.request("DELETE", f"/v1/responses/{name}?cascade=true")
            assert model.cancelled.is_set() == stopped
        assert server.get(f"/v1/responses/{doomed}").status == 404


def test_a_deleted_response_moves_the_conversation_to_what_was_before(server: ThreadServer) -> None:
    talk = Talk(server)
    first, second = talk.say("one"), talk.say("two")
    assert server.request("DELETE", f"/v1/responses/{second['id']}").status == 200
    assert talk.words() == ["one", "You said: one"]
    third = talk.say("three")
    assert third["previous_response_id"] == first["id"]
    server.request("DELETE", f"/v1/responses/{first['id']}?cascade=true")
    assert (talk.words(), server.get(talk.path).status) == ([], 200)
    assert talk.say("four")["previous_response_id"] is None


def test_a_deleted_item_is_shown_nowhere_and_the_others_stay_as_they_were(
    tmp_path: Path,
) -> None:
    model = ScriptedModel()
    with serving(model, tmp_path / "a.db") as server:
        talk = Talk(server, items=[user("canary"), user("stays")])
        turn = talk.say("Hi.")
        before = talk.items()
        doomed = before[0]["id"]
        left = talk.delete(f"/items/{doomed}")
        assert (left.status, left.json) == (200, talk.body)
        assert talk.items() == before[1:]
        for answer in (
            server.get(f"{talk.path}/items/{doomed}"),
            talk.delete(f"/items/{doomed}"),
        ):
            assert (answer.status, answer.error["code"]) == (404, "item_not_found")
        talk.delete(f"/items/{before[2]['id']}")
        assert talk.items() == [before[1], before[3]]
        # In every other place too: the response, its input, what a model is shown, the search.
        assert server.get(f"/v1/responses/{turn['id']}/input_items").json["data"] == []
        talk.say("And now?")
        shown = [one["content"] for one in model.context()]
        assert shown == ["stays", turn["output"][0]["content"][0]["text"], "And now?"]
        answers = [before[3]["id"]]
        talk.delete(f"/items/{answers[0]}")
        assert server.get(f"/v1/responses/{turn['id']}").json["output"] == []
        assert server.get("/v1/conversations?query=canary").json["data"] == []
    assert b"canary" not in all_bytes(tmp_path).replace(b"You said: canary", b"")


def test_an_item_is_deleted_in_its_own_conversation_only(server: ThreadServer) -> None:
    talk, other = Talk(server, items=[user("mine")]), Talk(server, items=[user("theirs")])
    theirs = other.items()[0]["id"]
    loose = server.respond("alone").json["id"]
    wrong = [
        theirs,
        item_id(loose, "message", 0),
        talk.items()[0]["id"].replace("msg_", "rs_"),
        "msg_1",
        "x",
    ]
    for name in wrong:
        for method in ("GET", "DELETE"):
            answer = server.request(method, f"{talk.path}/items/{name}")
            assert (answer.status, answer.error["code"]) == (404, "item_not_found")
    assert (talk.words(), other.words()) == (["mine"], ["theirs"])


def test_a_call_and_its_output_are_deleted_one_by_one(server: ThreadServer) -> None:
    talk = Talk(
        server,
        items=[
            user("What is the weather?"),
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "Sunny."},
        ],
    )
    _, call, output = talk.items()
    assert talk.delete(f"/items/{call['id']}").status == 200
    assert [item["type"] for item in talk.items()] == ["message", "function_call_output"]
    # What is left is still a context that any model takes.
    talk.say("And now?")
    assert talk.delete(f"/items/{output['id']}").status == 200
    talk.say("And then?")


def test_a_cursor_that_is_unknown_is_the_same_everywhere(server: ThreadServer) -> None:
    talk, name = Talk(server), server.respond().json["id"]
    answers = [
        server.get(f"{path}after=resp_9")
        for path in (
            "/v1/responses?",
            f"/v1/responses/{name}/input_items?",
            "/v1/conversations?",
            "/v1/conversations?query=teapot&",
            f"{talk.path}/items?",
        )
    ]
    assert {(answer.status, answer.body) for answer in answers} == {(400, answers[0].body)}
    assert (answers[0].error["code"], answers[0].error["param"]) == ("cursor_not_found", "after")


def test_a_head_that_was_moved_is_what_the_next_turn_continues(server: ThreadServer) -> None:
    talk = Talk(server, metadata={"topic": "tea"})
    first, _ = talk.say("One."), talk.say("Two.")
    moved = server.post(talk.path, head=first["id"])
    assert (moved.status, moved.json) == (200, talk.body)
    assert talk.say("Three.")["previous_response_id"] == first["id"]
    assert talk.words() == ["One.", "You said: One.", "Three.", "You said: Three."]
    both = server.post(talk.path, head=first["id"], metadata={"topic": "rain"})
    assert both.json == talk.body | {"metadata": {"topic": "rain"}}
    assert talk.say("Four.")["previous_response_id"] == first["id"]


def test_a_head_is_a_turn_of_the_same_chat(server: ThreadServer) -> None:
    talk, other, empty = Talk(server), Talk(server), Talk(server)
    mine, foreign = talk.say("One."), other.say("Else.")
    for conversation, head, status in (
        (talk, foreign["id"], 400),
        (empty, foreign["id"], 400),
        (talk, new_response_id(), 400),
        (talk, "x", 400),
    ):
        refused = server.post(conversation.path, head=head, metadata={"a": "b"})
        assert (refused.status, refused.error["param"]) == (status, "head")
        assert server.get(conversation.path).json == conversation.body
    assert server.post(NOWHERE, head=mine["id"]).status == 404
    assert talk.say("Two.")["previous_response_id"] == mine["id"]


def test_a_head_stays_while_a_turn_runs(tmp_path: Path) -> None:
    model = ScriptedModel(["One.", say("Long") + hang(), "Three."])
    with serving(model, tmp_path / "a.db") as server:
        talk = Talk(server)
        first = talk.say("One.")
        running = server.respond("Two.", conversation=talk.id, background=True).json
        refused = server.post(talk.path, head=first["id"])
        assert (refused.status, refused.error["code"]) == (409, "conversation_locked")
        assert server.post(f"/v1/responses/{running['id']}/cancel").status == 200
        assert server.post(talk.path, head=running["id"]).status == 200
        assert talk.say("Three.")["previous_response_id"] == running["id"]
