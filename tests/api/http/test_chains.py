"""Chains over HTTP: windows of any part, siblings, children, and turns beside others."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from antiphon.models.scripted import ScriptedModel
from support.http_server import ThreadServer, serving


@pytest.fixture(params=["memory", "sqlite"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ThreadServer]:
    store = tmp_path / "a.db" if request.param == "sqlite" else None
    with serving(ScriptedModel(), store) as started:
        yield started


def say(server: ThreadServer, text: str, **fields: Any) -> str:
    answer = server.respond(text, **fields)
    assert answer.status == 200, answer.body
    name: str = answer.json["id"]
    return name


def say_many(server: ThreadServer, count: int) -> list[str]:
    made = [say(server, "Question 0")]
    for number in range(1, count):
        made.append(say(server, f"Question {number}", previous_response_id=made[-1]))
    return made


def window(server: ThreadServer, head: str, query: str = "") -> dict[str, Any]:
    answer = server.get(f"/v1/responses/{head}/turns{query}")
    assert answer.status == 200, answer.body
    return answer.json


def ids(page: dict[str, Any]) -> list[str]:
    return [turn["response"]["id"] for turn in page["data"]]


def test_window_shows_any_part_of_a_chain(server: ThreadServer) -> None:
    made = say_many(server, 9)
    head = made[-1]
    cases = [
        ("", made, False, False),
        ("?limit=3", made[6:], True, False),
        (f"?limit=3&before={made[6]}", made[3:6], True, True),
        (f"?limit=3&after={made[2]}", made[3:6], True, True),
        (f"?limit=3&around={made[4]}", made[3:6], True, True),
        (f"?limit=4&around={made[0]}", made[:4], False, True),
        ("?limit=3&position=8", made[6:], True, False),
        ("?limit=1&position=5", made[5:6], True, True),
        ("?limit=2&position=500", made[7:], True, False),
    ]
    for query, expected, before, after in cases:
        page = window(server, head, query)
        assert ids(page) == expected, query
        assert (page["has_more_before"], page["has_more_after"]) == (before, after), query
        assert page["total"] == 9
        assert [made[turn["position"]] for turn in page["data"]] == expected
    (one,) = window(server, made[0])["data"]
    assert one["input"][0]["content"][0]["text"] == "Question 0"
    assert one["response"] == server.get(f"/v1/responses/{made[0]}").json


def test_window_across_branches_keeps_to_its_chain(server: ThreadServer) -> None:
    made = say_many(server, 3)
    other = say(server, "Else", previous_response_id=made[1])
    last = say(server, "More", previous_response_id=other)
    page = window(server, last)
    assert ids(page) == [made[0], made[1], other, last]
    assert [turn["siblings"] for turn in page["data"]] == [
        {"index": 0, "count": 1},
        {"index": 0, "count": 1},
        {"index": 1, "count": 2},
        {"index": 0, "count": 1},
    ]
    assert [turn["children"] for turn in page["data"]] == [1, 2, 1, 0]
    assert ids(window(server, last, f"?limit=2&after={made[1]}")) == [other, last]
    for name in ("before", "after", "around"):
        wrong = server.get(f"/v1/responses/{last}/turns?{name}={made[2]}")
        assert (wrong.status, wrong.error["code"], wrong.error["param"]) == (
            400,
            "cursor_not_found",
            name,
        )


def test_siblings_and_children_lead_to_the_newest_leaf_of_each(server: ThreadServer) -> None:
    made = say_many(server, 3)
    other = say(server, "Else", previous_response_id=made[0])
    leaf = say(server, "More", previous_response_id=other)
    for path in (f"{made[1]}/siblings", f"{other}/siblings", f"{made[0]}/children"):
        listed = server.get(f"/v1/responses/{path}").json
        assert [(one["response_id"], one["index"]) for one in listed["data"]] == [
            (made[1], 0),
            (other, 1),
        ]
        assert [one["leaf"] for one in listed["data"]] == [made[2], leaf]
        assert [one["opening"] for one in listed["data"]] == ["Question 1", "Else"]
        assert [one["turns"] for one in listed["data"]] == [3, 3]
        assert listed["total"] == 2
    page = server.get(f"/v1/responses/{made[0]}/children?limit=1").json
    assert page["has_more"]
    rest = server.get(f"/v1/responses/{made[0]}/children?after={page['last_id']}").json
    assert [one["response_id"] for one in rest["data"]] == [other]
    assert server.get(f"/v1/responses/{leaf}/children").json["data"] == []


def test_a_chat_is_read_with_its_last_turns(server: ThreadServer) -> None:
    made = say_many(server, 4)
    path = f"/v1/chats/{made[0]}"
    read = server.get(f"{path}?window=3&feed_cursor=true").json
    assert read.pop("feed_cursor")
    assert read.pop("window") == window(server, made[-1], "?limit=3")
    assert read == server.get(path).json
    assert read["head"] == made[-1]
    assert server.get(f"{path}?window=0").error["param"] == "window"


def test_a_long_window_is_compressed_for_whoever_takes_that(server: ThreadServer) -> None:
    path = f"/v1/responses/{say_many(server, 20)[-1]}/turns"
    plain = server.get(path)
    packed = server.request("GET", path, headers={"Accept-Encoding": "br, gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 5
    assert json.loads(gzip.decompress(packed.body)) == plain.json


@pytest.mark.parametrize(
    ("number", "limit", "shown"),
    [(0, 3, [0, 1, 2]), (1, 3, [0, 1, 2]), (3, 3, [2, 3, 4]), (4, 2, [3, 4]), (2, 20, range(5))],
)
def test_siblings_around_a_turn_have_it_in_their_middle(
    server: ThreadServer, number: int, limit: int, shown: Sequence[int]
) -> None:
    root = say(server, "Root")
    made = [say(server, f"Way {at}", previous_response_id=root) for at in range(5)]
    path = f"/v1/responses/{made[number]}/siblings?around=true&limit={limit}"
    listed = server.get(path).json
    assert [(one["response_id"], one["index"]) for one in listed["data"]] == [
        (made[at], at) for at in shown
    ]
    assert (listed["total"], listed["has_more"]) == (5, shown[-1] < 4)


def test_sibling_of_continues_what_that_turn_continues(server: ThreadServer) -> None:
    made = say_many(server, 2)
    beside = say(server, "Question 1, better", sibling_of=made[1])
    assert server.get(f"/v1/responses/{beside}").json["previous_response_id"] == made[0]
    assert ids(window(server, beside)) == [made[0], beside]


def test_sibling_of_a_first_turn_begins_in_the_same_chat(server: ThreadServer) -> None:
    first = say(server, "Question 0")
    beside = say(server, "Question 0, better", sibling_of=first)
    below = say(server, "And?", previous_response_id=beside)
    (chat,) = server.get("/v1/chats").json["data"]
    assert (chat["id"], chat["branches"], chat["head"]) == (f"chat_{first[5:]}", 2, below)
    assert chat["title"] == "Question 0"
    listed = server.get(f"/v1/responses/{first}/siblings").json["data"]
    assert [one["response_id"] for one in listed] == [first, beside]
    assert window(server, below)["data"][0]["siblings"] == {"index": 1, "count": 2}
    server.request("DELETE", f"/v1/responses/{first}")
    (chat,) = server.get("/v1/chats").json["data"]
    assert (chat["id"], chat["title"]) == (f"chat_{first[5:]}", "Question 0, better")


def test_sibling_whose_parent_was_erased_continues_what_is_left(server: ThreadServer) -> None:
    made = say_many(server, 3)
    server.request("DELETE", f"/v1/responses/{made[1]}")
    beside = say(server, "Better", sibling_of=made[2])
    assert ids(window(server, beside)) == [made[0], beside]
    assert ids(window(server, made[2])) == [made[0], made[2]]
    assert window(server, made[2])["total"] == 3


@pytest.mark.parametrize(
    "query",
    ["before=a&after=b", "position=-1", "position=x", "limit=101", "images=none", "around=x"],
)
def test_invalid_window_is_refused(server: ThreadServer, query: str) -> None:
    made = say(server, "Hi.")
    assert server.get(f"/v1/responses/{made}/turns?{query}").status == 400


def test_sibling_of_excludes_other_ways_to_continue(server: ThreadServer) -> None:
    made = say(server, "Hi.")
    both = server.respond("Hi.", sibling_of=made, previous_response_id=made)
    assert (both.status, both.json["error"]["param"]) == (400, "sibling_of")
    missing = server.respond("Hi.", sibling_of=f"resp_{'0' * 32}")
    assert (missing.status, missing.json["error"]["param"]) == (400, "sibling_of")
