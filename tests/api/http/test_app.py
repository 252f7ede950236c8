"""The application as a whole: paths, methods, and everything a client can do wrong."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.models.scripted import ScriptedModel, hang
from support.chat_exports import PNG_URL
from support.example_counts import examples
from support.http_server import Answer, ThreadServer, read_answer, serving
from support.routes import METHODS_BY_PATH

UNKNOWN = "resp_" + "0" * 32
POSTS = ["/v1/responses", "/v1/chat/completions"]
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with serving() as started:
        yield started


@pytest.fixture
def unharmed(server: ThreadServer) -> Iterator[ThreadServer]:
    """The server, which at the end must hold what it held, and still answer."""
    before = server.stored_count()
    yield server
    assert server.stored_count() == before
    assert server.respond(store=False).status == 200


def check(answer: Answer, status: int, code: str, param: str | None = None) -> None:
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    error = answer.error
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error",
        code,
        param,
    )


def test_it_is_healthy(server: ThreadServer) -> None:
    answer = server.get("/healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/responses", "POST, GET, HEAD"),
        ("DELETE", "/v1/responses", "POST, GET, HEAD"),
        ("OPTIONS", "/v1/responses", "POST, GET, HEAD"),
        ("PATCH", "/v1/chat/completions", "POST, GET, HEAD"),
        ("GET", "/v1/tokenize-text", "POST"),
        ("HEAD", f"/v1/responses/{UNKNOWN}/cancel", "POST"),
        ("POST", f"/v1/responses/{UNKNOWN}", "GET, DELETE, HEAD"),
        ("PATCH", f"/v1/responses/{UNKNOWN}", "GET, DELETE, HEAD"),
        ("POST", f"/v1/responses/{UNKNOWN}/input_items", "GET, HEAD"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/models/scripted", "GET, HEAD"),
    ],
)
def test_wrong_methods(unharmed: ThreadServer, method: str, path: str, allowed: str) -> None:
    answer = unharmed.request(method, path, {"input": "Hi"})
    assert answer.headers["allow"] == allowed
    if method == "HEAD":
        assert (answer.status, answer.body) == (405, b"")
    else:
        check(answer, 405, "method_not_allowed")


def _store_image(server: ThreadServer) -> str:
    """The hash of an image that a stored turn has."""
    part = {"type": "input_image", "image_url": PNG_URL}
    server.post("/v1/responses", input=[{"role": "user", "content": [part]}])
    return sha256(base64.b64decode(PNG_URL.partition(",")[2])).hexdigest()


def test_head_answers_as_get_does_without_the_body(server: ThreadServer) -> None:
    name = server.respond().json["id"]
    talk = server.post("/v1/conversations", items=[{"role": "user", "content": "Hi"}]).json["id"]
    (item,) = server.get(f"/v1/conversations/{talk}/items").json["data"]
    completion = name.replace("resp_", "chatcmpl-")
    ids = {
        "models": "scripted",
        "conversations": talk,
        "responses": name,
        "chats": name,
        "chat/": completion,
        "import": server.request("POST", "/v1/import", b"[]").json["id"],
        "blobs": _store_image(server),
    }
    share = server.post("/v1/shares", response_id=name).json["url"]
    # A feed has no end.
    for template in sorted(METHODS_BY_PATH.keys() - {"/v1/feed"}):
        if "GET" not in METHODS_BY_PATH[template]:
            continue
        kind = next((kind for kind in ids if kind in template), "")
        path = template.replace(":path}", "}").replace("{sha256}", "{id}")
        path = path.replace("{id}", ids.get(kind, ""))
        path = share if path.startswith("/s/") else path.replace("{item}", item["id"])
        head, got = server.request("HEAD", path), server.get(path)
        assert (path, head.status, head.body) == (path, 200, b"")
        # How a body of unknown length is framed is not a matter of HEAD.
        got.headers.pop("transfer-encoding", None)
        # The metrics have grown by the first request.
        varying = {"date", "x-request-id"} | ({"content-length"} if path == "/metrics" else set())
        assert head.headers.keys() == got.headers.keys()
        assert {**head.headers, **dict.fromkeys(varying)} == {
            **got.headers,
            **dict.fromkeys(varying),
        }


@pytest.mark.parametrize("path", ["/nothing", f"/v1/responses/{UNKNOWN}", "/v1/models/none"])
def test_head_of_nothing(server: ThreadServer, path: str) -> None:
    head, got = server.request("HEAD", path), server.get(path)
    assert (head.status, head.body) == (404, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


def test_head_follows_no_stream() -> None:
    with serving(ScriptedModel([hang(reached := asyncio.Event())])) as server:
        name = server.respond(background=True).json["id"]
        server.wait(reached)
        head = server.request("HEAD", f"/v1/responses/{name}?stream=true")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert server.get(f"/v1/responses/{name}").json["status"] == "in_progress"


@pytest.mark.parametrize(
    "path",
    [
        "/web",
        "/v1",
        "/v1/",
        "/V1/responses",
        "/v1/responses/a/b",
        f"/v1/responses/{UNKNOWN}/stop",
        "/v1/embeddings",
        "/v1/%72esponses%00",
        "/v1/../v1/nothing",
        "/" + "a" * 10_000,
        "/%ff%fe",
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_unknown_paths(unharmed: ThreadServer, method: str, path: str) -> None:
    check(unharmed.request(method, path), 404, "unknown_url")


@pytest.mark.parametrize(
    "response_id",
    [
        UNKNOWN,
        "resp_",
        "resp_" + "0" * 31,
        "resp_" + "0" * 33,
        "resp_" + "G" * 32,
        "RESP_" + "0" * 32,
        "resp_" + "0" * 32 + "%0A",
        "chatcmpl-" + "0" * 32,
        "%00",
        "%ff",
        "'%20OR%201=1--",
        "..",
        "x" * 5000,
    ],
)
@pytest.mark.parametrize(
    ("method", "suffix"), [("GET", ""), ("DELETE", ""), ("GET", "/input_items")]
)
def test_unknown_and_malformed_ids(
    unharmed: ThreadServer, response_id: str, method: str, suffix: str
) -> None:
    answer = unharmed.request(method, f"/v1/responses/{response_id}{suffix}")
    check(answer, 404, "response_not_found")


@pytest.mark.parametrize("previous", [UNKNOWN, "resp_1", "\x00", "msg_" + "0" * 32, "é" * 37])
def test_continuing_what_is_not_there(unharmed: ThreadServer, previous: str) -> None:
    answer = unharmed.respond(previous_response_id=previous)
    check(answer, 400, "previous_response_not_found", "previous_response_id")


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("model", ["nobody", "\x00", "x" * 10_000])
def test_unknown_models(unharmed: ThreadServer, path: str, model: str) -> None:
    check(
        unharmed.post(path, input="Hi", messages=HI, model=model), 404, "model_not_found", "model"
    )


@pytest.mark.parametrize(
    "given",
    [
        "",
        [],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "input_text", "text": ""}]}],
        [{"role": "user", "content": [{"type": "input_text", "text": ""}] * 2}],
        [{"role": "system", "content": ""}, {"role": "user", "content": ""}],
    ],
)
def test_empty_input(unharmed: ThreadServer, given: Any) -> None:
    check(unharmed.respond(input=given), 400, "empty_input", "input")


def test_an_output_without_its_call(unharmed: ThreadServer) -> None:
    output = {"type": "function_call_output", "call_id": "c1", "output": "3"}
    check(unharmed.respond(input=[output]), 400, "tool_call_not_found", "input")


def deep(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


BODIES = {
    "nothing": (b"", "invalid_json"),
    "half": (b'{"input":"Hi', "invalid_json"),
    "words": (b"Hi there", "invalid_json"),
    "a form": (b"input=Hi&model=scripted", "invalid_json"),
    "two": (b'{"input":"Hi","messages":[]}{}', "invalid_json"),
    "half of utf-16": ('{"input":"Hi'.encode("utf-16"), "invalid_json"),
    "not utf-8": (
        b'{"input":"\xff","messages":[{"role":"user","content":"\xff"}]}',
        "invalid_json",
    ),
    "NaN": (b'{"temperature":NaN}', "invalid_json"),
    "Infinity": (b'{"temperature":-Infinity}', "invalid_json"),
    "too deep": (b'{"x":' + deep(100_000) + b"}", "invalid_json"),
    "raw control": (b'{"input":"\n","messages":"\n"}', "invalid_json"),
    "a list": (b"[]", "invalid_type"),
    "null": (b"null", "invalid_type"),
    "a number": (b"1e5", "invalid_type"),
    "no fields": (b"{}", "invalid_value"),
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_are_not_requests(unharmed: ThreadServer, path: str, name: str) -> None:
    body, code = BODIES[name]
    answer = unharmed.request("POST", path, body)
    param = None
    if name == "no fields":
        param = "input" if path == POSTS[0] else "messages"
        code = "empty_input" if path == POSTS[0] else code
    check(answer, 400, code, param)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("levels", [99, 150, 900, 950, 960, 970, 980, 990, 1000])
def test_deep_schemas_are_kept_or_refused(server: ThreadServer, path: str, levels: int) -> None:
    function = b'"name":"f","parameters":' + deep(levels)
    tool = b'{"type":"function",%b,"function":{%b}}' % (function, function)
    body = b'{"input":"Hi","messages":%b,"tools":[%b]}' % (json.dumps(HI).encode(), tool)
    answer = server.request("POST", path, body)
    if levels == 99:
        assert answer.status == 200
        if path == POSTS[0]:
            assert server.get(f"/v1/responses/{answer.json['id']}").json == answer.json
    else:
        assert answer.status == 400
        assert answer.error["code"] == "invalid_json"


@pytest.mark.parametrize("text", ["a\x00b", "\x00", "\U0010ffff", "\ufeff", "\u202e", "'; DROP--"])
def test_odd_but_fine_texts(server: ThreadServer, text: str) -> None:
    kept = server.respond(text).json
    assert kept["output"][0]["content"][0]["text"].startswith(f"You said: {text}\n")
    item = server.get(f"/v1/responses/{kept['id']}/input_items").json["data"][0]
    assert item["content"][0]["text"] == text


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"]
)
def test_a_form_is_not_a_request_whatever_it_says(unharmed: ThreadServer, kind: str) -> None:
    body = b"--x\r\ncontent-disposition: form-data; name=input\r\n\r\nHi\r\n--x--\r\n"
    answer = unharmed.request("POST", "/v1/responses", body, {"content-type": kind})
    check(answer, 400, "invalid_json")


@pytest.mark.parametrize("path", POSTS)
def test_fifty_megabytes(unharmed: ThreadServer, path: str) -> None:
    body = b'{"input":"' + b"x" * 50_000_000 + b'"}'
    check(unharmed.request("POST", path, body), 413, "body_too_large")


def test_fifty_megabytes_in_pieces_on_a_line_that_is_used_again(unharmed: ThreadServer) -> None:
    with closing(unharmed.connect()) as client:
        pieces = (b"x" * 1_000_000 for _ in range(50))
        client.request("POST", "/v1/responses", pieces, encode_chunked=True)
        check(read_answer(client), 413, "body_too_large")
        body = json.dumps({"input": "Hi", "store": False})
        client.request("POST", "/v1/responses", body)
        assert read_answer(client).status == 200


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=x", "limit=" + "9" * 5000, "limit=%C2%B2", "order=up", "after=msg_9"],
)
def test_bad_pages(server: ThreadServer, query: str) -> None:
    response_id = server.respond().json["id"]
    answer = server.get(f"/v1/responses/{response_id}/input_items?{query}")
    name = query.partition("=")[0]
    code = "cursor_not_found" if name == "after" else "invalid_value"
    check(answer, 400, code, name)


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"\x00" * 1000,
    ],
)
def test_noise_on_the_line(unharmed: ThreadServer, noise: bytes) -> None:
    with unharmed.socket() as client:
        client.sendall(noise)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert not answer or answer.startswith(b"HTTP/1.1 4")


def test_many_requests_on_one_line(server: ThreadServer) -> None:
    body = b'{"input":"Hi","store":false}'
    request = b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    last = request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)
    with server.socket() as client, client.makefile("rb") as reader:
        client.sendall(request * 9 + last)
        assert reader.read().count(b"HTTP/1.1 200 OK\r\n") == 10


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
text_parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text", "text", "refusal", "input_image"])},
    optional={"text": st.text(max_size=4) | anything, "annotations": anything},
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["message", "function_call", "function_call_output", "reasoning"])
        | anything,
        "role": st.sampled_from(["user", "assistant", "system", "developer", "tool"]) | anything,
        "content": st.text(max_size=8) | st.lists(text_parts, max_size=2) | anything,
        "call_id": st.sampled_from(["c1", "c2"]) | anything,
        "tool_call_id": st.sampled_from(["c1", "c2"]) | anything,
        "name": st.text(max_size=4) | anything,
        "arguments": st.text(max_size=4) | anything,
        "output": st.text(max_size=4) | anything,
        "summary": anything,
        "status": st.sampled_from(["completed", "in_progress"]) | anything,
        "tool_calls": anything,
    },
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "input": st.text(max_size=8) | st.lists(entries, max_size=3) | anything,
        "messages": st.lists(entries, max_size=3) | anything,
        "model": st.sampled_from(["scripted", "other", None]) | anything,
        "previous_response_id": st.just(UNKNOWN) | anything,
        "store": st.booleans() | anything,
        "stream": st.booleans() | anything,
        "metadata": st.dictionaries(st.text(max_size=4), st.text(max_size=4)) | anything,
        "tools": st.lists(
            st.fixed_dictionaries(
                {"type": st.just("function"), "name": st.text(max_size=4), "parameters": anything}
            )
        )
        | anything,
        **dict.fromkeys(
            [
                "instructions",
                "temperature",
                "top_p",
                "max_output_tokens",
                "max_tokens",
                "tool_choice",
                "text",
                "response_format",
                "reasoning",
                "stop",
                "seed",
                "n",
                "user",
                "truncation",
                "stream_options",
            ],
            anything,
        ),
    },
)


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(path=st.sampled_from(POSTS), body=bodies, damage=st.none() | st.integers(0, 100))
def test_no_body_is_the_servers_fault(
    server: ThreadServer, path: str, body: dict[str, Any], damage: int | None
) -> None:
    data = json.dumps(body).encode()
    if damage is not None:
        data = data[: damage % (len(data) + 1)] + b"\xff" + data[damage % (len(data) + 1) :]
    before = server.stored_count()
    answer = server.request("POST", path, data)
    if answer.status == 200:
        assert answer.body
        return
    assert answer.status in {400, 404}
    assert answer.error["type"] == "invalid_request_error"
    assert server.stored_count() == before


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/v1/chat/completions", {"messages": HI}, 200),
        ("/v1/chat/completions", {"messages": HI, "store": True}, 200),
        ("/v1/responses", {"input": "Hi", "store": False}, 200),
        ("/v1/responses", {"input": "Hi"}, 200),
        ("/v1/responses", {"input": 5}, 400),
        ("/v1/responses", {"input": "Hi", "previous_response_id": UNKNOWN}, 400),
        ("/v1/nothing", {}, 404),
    ],
)
def test_an_answer_leaves_nothing_to_the_garbage_collector(
    tmp_path: Path, path: str, fields: dict[str, Any], status: int, stream: bool
) -> None:
    """What is left to it stays in memory for hundreds of requests, each of which uses more."""
    body = json.dumps({**fields, "stream": stream})

    def ask(connection: HTTPConnection, times: int) -> None:
        for _ in range(times):
            connection.request("POST", path, body, {"content-type": "application/json"})
            assert read_answer(connection).status == status

    with serving(store=tmp_path / "turns.db") as server, closing(server.connect()) as connection:
        ask(connection, 1)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            ask(connection, 3)
            server.run(asyncio.sleep(0))
            gc.collect()
            left = [one for one in gc.garbage if type(one).__module__.startswith("antiphon.")]
        finally:
            gc.set_debug(0)
            gc.enable()
            gc.garbage.clear()
    assert left == []
