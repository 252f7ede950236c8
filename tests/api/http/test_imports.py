"""``/v1/import``: files of every format become chats, in the background, once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon.models.scripted import ScriptedModel, say
from support.chat_exports import (
    CURRENT,
    OTHER,
    PNG,
    chatgpt_chat,
    chatgpt_node,
    claude_chat,
    librechat_chat,
    llama_cpp_chat,
    llama_cpp_lines,
    message_list,
    open_webui_chat,
    zipped,
)
from support.http_server import Answer, ServerProcess, ThreadServer, serving
from support.keyed_server import serving_with_keys

Request = Callable[..., Answer]


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with serving(ScriptedModel(lambda _: say("Yes."))) as started:
        yield started


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def imported(request: Request, data: bytes, seconds: float = 60.0) -> dict[str, Any]:
    """A file's import, once it is over."""
    started = request("POST", "/v1/import", data)
    assert started.status == 202, started.body
    deadline = time.monotonic() + seconds
    while True:
        job: dict[str, Any] = request("GET", f"/v1/import/{started.json['id']}").json
        if job["status"] != "running":
            while job["has_more"]:
                path = f"/v1/import/{job['id']}?after={len(job['report'])}"
                page = request("GET", path).json
                job["report"] += page["report"]
                job["has_more"] = page["has_more"]
            return job
        assert time.monotonic() < deadline
        time.sleep(0.02)


def spoken(request: Request, response_id: str) -> list[str]:
    """What was said up to a response, its answer included."""
    messages = request("GET", f"/v1/responses/{response_id}/context").json["messages"]
    answer = request("GET", f"/v1/responses/{response_id}").json["output"]
    return [
        *(one["content"] for one in messages if one["role"] != "system"),
        *(part["text"] for item in answer for part in item["content"]),
    ]


@pytest.mark.parametrize(
    ("source", "data"),
    [
        ("chatgpt", zipped({"conversations-000.json": [chatgpt_chat()]})),
        ("claude", encoded([claude_chat()])),
        ("open_webui", encoded([open_webui_chat()])),
        ("librechat", encoded(librechat_chat())),
        ("llama_cpp", llama_cpp_lines(llama_cpp_chat())),
    ],
)
def test_a_file_becomes_chats_that_go_on(server: ThreadServer, source: str, data: bytes) -> None:
    job = imported(server.request, data)
    assert (job["object"], job["status"], job["source"]) == ("import", "completed", source)
    assert (job["chats"], job["progress"], job["error"]) == ({"done": 1, "total": 1}, 1.0, None)
    (report,) = job["report"]
    assert (report["status"], report["title"]) == ("imported", "Colours")
    assert (report["turns"], report["new_turns"], report["branches"]) == (3, 3, 2)
    last = report["response_id"]
    assert spoken(server.request, last) == CURRENT
    response = server.get(f"/v1/responses/{last}").json
    assert response["created_at"] == 1_700_000_020
    assert response["completed_at"] == 1_700_000_021
    found = {one["id"] for one in server.get("/v1/responses?limit=100").json["data"]}
    assert sorted(map(tuple, (spoken(server.request, one) for one in found))) == sorted(
        map(tuple, ([*OTHER], CURRENT[:2], CURRENT))
    )
    assert server.respond("Go on.", previous_response_id=last).json["status"] == "completed"


def test_importing_again_changes_nothing_and_a_grown_file_adds_what_is_new(
    server: ThreadServer,
) -> None:
    chat = claude_chat()
    first = imported(server.request, encoded([chat]))["report"][0]
    again = imported(server.request, encoded([chat]))["report"][0]
    assert (again["status"], again["new_turns"]) == ("unchanged", 0)
    assert again["chat_id"] == first["chat_id"]
    for name, parent, sender in (("q3", "a3", "human"), ("a4", "q3", "assistant")):
        chat["chat_messages"].append(
            {"uuid": name, "parent_message_uuid": parent, "sender": sender, "text": name}
        )
    grown = imported(server.request, encoded([chat]))["report"][0]
    assert (grown["status"], grown["turns"], grown["new_turns"]) == ("updated", 4, 1)
    assert spoken(server.request, grown["response_id"]) == [*CURRENT, "q3", "a4"]
    assert len(server.get("/v1/responses?limit=100").json["data"]) == 4


def test_images_of_a_zip_are_shown_to_the_model(server: ThreadServer) -> None:
    chat = chatgpt_chat()
    content = {
        "content_type": "multimodal_text",
        "parts": [
            {"content_type": "image_asset_pointer", "asset_pointer": "sediment://file_00aa"},
            "What is it?",
        ],
    }
    chat["mapping"] = dict([chatgpt_node("q", None, [], "user", content)])
    job = imported(server.request, zipped({"c.json": [chat], "x/file_00aa-y.dat": PNG}))
    (report,) = job["report"]
    assert (report["images"], report["skipped"]) == (1, [])
    item = server.get(f"/v1/responses/{report['response_id']}/input_items").json["data"][0]
    assert item["content"][0]["image_url"].startswith("data:image/png;base64,")


def test_nothing_is_skipped_silently(server: ThreadServer) -> None:
    chats = [chatgpt_chat(), {"mapping": {}, "title": "Empty"}, {"title": "Odd", "x": 1}, 5]
    data = zipped({"user.json": {"id": 1}, "c.json": chats})
    job = imported(server.request, data)
    assert [(one["title"], one["status"]) for one in job["report"]] == [
        ("Colours", "imported"),
        ("Empty", "failed"),
        ("Odd", "failed"),
        (None, "failed"),
    ]
    assert all(one["skipped"] for one in job["report"][1:])
    assert job["skipped_files"] == [{"name": "user.json", "reason": "there are no chats in it"}]


@pytest.mark.parametrize("data", [b"hello", b"PK\x03\x04", b"\x00\x01"])
def test_a_file_of_no_known_kind_fails_its_import(server: ThreadServer, data: bytes) -> None:
    job = imported(server.request, data)
    assert (job["status"], job["error"]["code"]) == ("failed", "unsupported_file")
    assert server.request("POST", "/v1/import", b"").status == 400
    missing = server.get("/v1/import/import_" + "0" * 32)
    assert (missing.status, missing.error["code"]) == (404, "import_not_found")


def test_tenants_have_imports_of_their_own() -> None:
    with serving_with_keys() as site:
        acme, other = site.client("acme"), site.client("other")
        data = encoded([message_list()])
        mine = imported(acme.request, data)
        assert other.get(f"/v1/import/{mine['id']}").status == 404
        assert other.get("/v1/import").json["data"] == []
        assert other.get("/v1/responses").json["data"] == []
        assert imported(other.request, data)["report"][0]["status"] == "imported"
        assert site.anonymous_client().request("POST", "/v1/import", data).status == 401
        name = mine["report"][0]["response_id"]
        assert other.get(f"/v1/responses/{name}").status == 404


def test_imports_of_the_last_day_are_listed_the_newest_first(server: ThreadServer) -> None:
    jobs = [imported(server.request, encoded([message_list()])) for _ in range(3)]
    listed = server.get("/v1/import").json
    without_report: dict[str, Any] = {"report": [], "skipped_files": []}
    assert listed["data"] == [{**job, **without_report} for job in reversed(jobs)]
    page = server.get("/v1/import?limit=1").json
    assert (page["data"][0]["id"], page["has_more"]) == (jobs[2]["id"], True)
    page = server.get(f"/v1/import?order=asc&after={jobs[0]['id']}").json
    assert [one["id"] for one in page["data"]] == [jobs[1]["id"], jobs[2]["id"]]
    assert server.get("/v1/import?after=import_0").status == 400


def test_turns_go_on_during_an_import(server: ThreadServer) -> None:
    chats = [chatgpt_chat(f"c{number}", suffix=f" {number}") for number in range(300)]
    started = server.request("POST", "/v1/import", encoded(chats)).json
    answered = 0
    while server.get(f"/v1/import/{started['id']}").json["status"] == "running":
        assert server.respond("Hi").status == 200
        answered += 1
    pages = [
        server.get(f"/v1/import/{started['id']}?after={after}").json
        for after in (0, 100, 200, 290, 300)
    ]
    assert [len(page["report"]) for page in pages] == [100, 100, 100, 10, 0]
    assert [page["has_more"] for page in pages] == [True, True, False, False, False]
    assert {one["status"] for page in pages for one in page["report"]} == {"imported"}
    assert server.get(f"/v1/import/{started['id']}?after=-1").status == 400


@pytest.mark.slow
def test_a_server_that_is_killed_in_the_middle_leaves_whole_chats(tmp_path: Path) -> None:
    chats = [chatgpt_chat(f"c{number}", suffix=f" {number}") for number in range(2000)]
    data = encoded(chats)
    with ServerProcess(tmp_path) as server:
        started = server.request("POST", "/v1/import", data).json
        while server.get(f"/v1/import/{started['id']}").json["chats"]["done"] < 200:
            time.sleep(0.01)
        server.kill()
    with ServerProcess(tmp_path) as server:
        job = imported(server.request, data)
        statuses = [one["status"] for one in job["report"]]
        assert set(statuses) == {"imported", "unchanged"}, "no chat was left half written"
        assert statuses.count("unchanged") >= 200
        again = imported(server.request, data)
        assert {one["status"] for one in again["report"]} == {"unchanged"}


@pytest.mark.slow
def test_a_thousand_chats_of_each_format(tmp_path: Path) -> None:
    makers = (chatgpt_chat, claude_chat, open_webui_chat, librechat_chat, llama_cpp_chat)
    with serving(ScriptedModel(), tmp_path / "a.db") as server:
        for make in makers:
            data = encoded([make(f"chat {number}") for number in range(1000)])
            job = imported(server.request, data, 300.0)
            assert [one["status"] for one in job["report"]] == ["imported"] * 1000
            assert {one["branches"] for one in job["report"]} == {2}
