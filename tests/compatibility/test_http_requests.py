"""Requests as clients of all kinds write them: encodings, paths, methods, versions, hosts."""

from __future__ import annotations

import gzip
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest

from support.http_server import Answer, read_answer
from support.keyed_server import serving_with_keys
from support.raw_http import read_raw
from support.scenario import (
    DONE,
    Scenario,
    completion_outcome,
    end,
    response_outcome,
    scenario,
    stream_of,
    text,
    whole,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RESPONSES, CHAT = "/v1/responses", "/v1/chat/completions"
HELLO = stream_of(text("Hello"), text(" there."), end(), DONE)


@pytest.fixture(scope="module")
def world() -> Iterator[Scenario]:
    with scenario() as started:
        started.upstream_answers(
            lambda request: HELLO if request.json.get("stream") else whole({"content": "Hi."})
        )
        yield started


def body_for(path: str, words: str = "Hi", **fields: Any) -> dict[str, Any]:
    if path == CHAT:
        return {"model": "m", "messages": [{"role": "user", "content": words}], **fields}
    return {"input": words, **fields}


def encoded(path: str, words: str = "Hi", **fields: Any) -> bytes:
    return json.dumps(body_for(path, words, **fields)).encode()


def bare_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


def halves(body: bytes) -> tuple[bytes, bytes]:
    return body[: len(body) // 2], body[len(body) // 2 :]


# ---- compressed bodies

ENCODED: dict[str, tuple[str, str, Callable[[bytes], bytes]]] = {
    "body-gzip": (RESPONSES, "gzip", gzip.compress),
    "body-gzip-chat": (CHAT, "gzip", gzip.compress),
    "body-deflate": (RESPONSES, "deflate", zlib.compress),
    "body-zstd": (RESPONSES, "zstd", zstd.compress),
    "body-identity": (RESPONSES, "identity", bytes),
    "deflate-chat": (CHAT, "deflate", zlib.compress),
    "deflate-bare": (RESPONSES, "deflate", bare_deflate),
    "deflate-bare-chat": (CHAT, "deflate", bare_deflate),
    "zstd-chat": (CHAT, "zstd", zstd.compress),
    "identity-chat": (CHAT, "identity", bytes),
    "gzip-upper": (RESPONSES, "GZIP", gzip.compress),
    "gzip-old-name": (RESPONSES, "x-gzip", gzip.compress),
    "gzip-and-identity": (CHAT, "identity, gzip", gzip.compress),
    "gzip-twice": (CHAT, "gzip, gzip", lambda body: gzip.compress(gzip.compress(body))),
    "gzip-within-gzip": (RESPONSES, "gzip", lambda body: gzip.compress(gzip.compress(body))),
    "gzip-three-times": (
        CHAT,
        "gzip, gzip",
        lambda b: gzip.compress(gzip.compress(gzip.compress(b))),
    ),
    "deflate-then-gzip": (RESPONSES, "deflate, gzip", lambda b: gzip.compress(zlib.compress(b))),
    "gzip-two-members": (RESPONSES, "gzip", lambda b: b"".join(map(gzip.compress, halves(b)))),
    "zstd-two-frames": (CHAT, "zstd", lambda b: b"".join(map(zstd.compress, halves(b)))),
    "gzip-padded": (RESPONSES, "gzip", lambda b: gzip.compress(b) + b"\0" * 64),
    "gzip-is-plain": (RESPONSES, "gzip", bytes),
    "zstd-is-gzip": (RESPONSES, "zstd", gzip.compress),
    "gzip-is-zstd": (CHAT, "gzip", zstd.compress),
    "gzip-and-more": (CHAT, "gzip", lambda b: gzip.compress(b) + b"more"),
    "no-encoding-in-header": (RESPONSES, "", bytes),
}


@pytest.mark.parametrize("name", ENCODED)
def test_a_compressed_body_is_read(world: Scenario, name: str) -> None:
    path, encoding, encode = ENCODED[name]
    words = f"{name} wörter \u2028"
    # Too long to be decompressed on the event loop.
    for given in (words, words + "x\u00e9y" * 20_000):
        answered = world.server.request(
            "POST", path, encode(encoded(path, given)), {"content-encoding": encoding}
        )
        assert answered.status == 200, answered.body
        assert world.requests[-1]["messages"][-1] == {"role": "user", "content": given}


def test_other_endpoints_read_compressed_bodies_too(world: Scenario) -> None:
    body = gzip.compress(json.dumps({"metadata": {"a": "b"}}).encode())
    made = world.server.request("POST", "/v1/conversations", body, {"content-encoding": "gzip"})
    assert made.json["metadata"] == {"a": "b"}
    counted = world.server.request(
        "POST",
        "/v1/responses/input_tokens",
        zstd.compress(encoded(RESPONSES)),
        {"content-encoding": "zstd"},
    )
    assert counted.json["input_tokens"] > 0
    # Without a body there is nothing to decompress.
    empty = world.server.request("POST", "/v1/conversations", b"", {"content-encoding": "gzip"})
    assert empty.status == 200
    assert world.server.request("GET", "/v1/models", None, {"content-encoding": "br"}).json["data"]


REFUSED = {
    "body-unknown-encoding": ("br", b"\x8b\x03\x80{}\x03", 415, "'br'"),
    "unknown-among-known": ("gzip, compress", gzip.compress(b"{}"), 415, "'compress'"),
    "unknown-name": ("aws-chunked", b"{}", 415, "'aws-chunked'"),
    "gzip-cut": ("gzip", gzip.compress(encoded(RESPONSES))[:-9], 400, "gzip"),
    "zstd-cut": ("zstd", zstd.compress(encoded(RESPONSES))[:-3], 400, "zstd"),
    "deflate-is-noise": ("deflate", b"\xff\xfe\xfd", 400, "deflate"),
    "zstd-broken": ("zstd", b"\x28\xb5\x2f\xfd" + bytes(range(255, 200, -1)), 400, "zstd"),
    "gzip-broken": ("gzip", b"\x1f\x8b" + bytes(range(255, 200, -1)), 400, "gzip"),
    "gzip-of-latin-1": ("gzip", gzip.compress(b'{"model":"caf\xe9"}'), 400, "UTF-8"),
    "gzip-of-no-json": ("gzip", gzip.compress(b"hello"), 400, "JSON"),
}


@pytest.mark.parametrize("path", [RESPONSES, CHAT])
@pytest.mark.parametrize("name", REFUSED)
def test_a_body_that_cannot_be_decompressed_is_refused(
    world: Scenario, name: str, path: str
) -> None:
    encoding, body, status, words = REFUSED[name]
    before = world.server.stored_count()
    refused = world.server.request("POST", path, body, {"content-encoding": encoding})
    assert (refused.status, refused.error["type"]) == (status, "invalid_request_error")
    assert words in refused.error["message"]
    assert world.server.stored_count() == before


BOMBS = ["body-gzip-bomb", "bomb-deflate", "bomb-zstd", "bomb-twice", "bomb-within"]


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_body_that_grows_huge_is_refused(world: Scenario, name: str) -> None:
    size = 100 * 2**20
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | (0 if name == "bomb-deflate" else 16))
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(100)) + packer.flush()
    encoding = {"bomb-deflate": "deflate", "bomb-zstd": "zstd"}.get(name, "gzip")
    if name == "bomb-zstd":
        bomb = zstd.compress(bytes(size))
    elif name == "bomb-twice":
        bomb, encoding = gzip.compress(bomb), "gzip, gzip"
    elif name == "bomb-within":
        bomb = gzip.compress(bomb)
    assert len(bomb) < 200_000
    for path in (RESPONSES, CHAT):
        refused = world.server.request("POST", path, bomb, {"content-encoding": encoding})
        assert (refused.status, refused.error["code"]) == (413, "body_too_large")


# ---- text


NOT_UTF8 = {
    "body-not-utf8": "caf\xe9".encode("latin-1"),
    "not-utf8-at-the-end-of-words": b"caf\xc3",
    "not-utf8-windows": "\u201cquoted\u201d".encode("cp1252"),
    "not-utf8-shift-jis": "\u65e5\u672c".encode("shift-jis"),
    "not-utf8-surrogate": b"\xed\xa0\xbd",
}


@pytest.mark.parametrize("name", NOT_UTF8)
def test_bodies_in_other_charsets_are_refused(world: Scenario, name: str) -> None:
    bodies = {path: encoded(path, "WORDS") for path in (RESPONSES, CHAT)}
    bodies["/v1/conversations"] = b'{"metadata":{"a":"WORDS"}}'
    for path, body in bodies.items():
        refused = world.server.request("POST", path, body.replace(b"WORDS", NOT_UTF8[name]))
        assert (refused.status, refused.error["code"]) == (400, "invalid_json")
        assert "UTF-8" in refused.error["message"]


@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_bodies_in_utf_16_are_read(world: Scenario, charset: str) -> None:
    kind = {"content-type": f"application/json; charset={charset}"}
    for path in (RESPONSES, CHAT):
        for headers in ({}, kind):
            body = encoded(path, "WORDS").decode().replace("WORDS", "caf\xe9 \u65e5 \U0001f600")
            got = world.server.request("POST", path, body.encode(charset), headers)
            assert got.status == 200, got.body
            assert world.requests[-1]["messages"][-1]["content"] == "caf\xe9 \u65e5 \U0001f600"
    made = '{"metadata":{"a":"\u65e5"}}'.encode(charset)
    assert world.server.request("POST", "/v1/conversations", made).json["metadata"] == {
        "a": "\u65e5"
    }


@pytest.mark.parametrize("body", [b"\xff\xfe{", b"\0", b"\0\0\0{\xd8", b"{\0\x00\xd8"])
def test_what_only_begins_like_utf_16_is_refused(world: Scenario, body: bytes) -> None:
    refused = world.server.request("POST", RESPONSES, body)
    assert (refused.status, refused.error["code"]) == (400, "invalid_json")


HALVES = {
    "unicode-half-in-input": (r"a \ud83d b", "a \ufffd b"),
    "half-second": (r"a \ude00 b", "a \ufffd b"),
    "half-last": r"a \ud83d",
    "half-first": r"\ude00 b",
    "halves-turned": (r"\ude00\ud83d", "\ufffd\ufffd"),
    "half-twice": (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
    "half-before-escape": (r"\ud83d\n\"", '\ufffd\n"'),
    "half-upper": (r"\uD83D!", "\ufffd!"),
    "half-in-letters": (r"\\ud83d \ud83d", "\\ud83d \ufffd"),
    "half-behind-backslash": (r"\\\ud83d", "\\\ufffd"),
    "half-whole": (r"\ud83d\ude00", "\U0001f600"),
}


@pytest.mark.parametrize("name", HALVES)
def test_half_a_surrogate_pair_is_replaced(world: Scenario, name: str) -> None:
    given = HALVES[name]
    escape, words = given if isinstance(given, tuple) else (given, json.loads(f'"{given}"'))
    if not isinstance(given, tuple):
        words = re.sub("[\ud800-\udfff]", "\ufffd", words)
    for path in (RESPONSES, CHAT):
        body = encoded(path, "WORDS").replace(b"WORDS", escape.encode())
        answered = world.server.request("POST", path, body)
        assert answered.status == 200, answered.body
        assert world.requests[-1]["messages"][-1]["content"] == words


def test_half_a_surrogate_pair_elsewhere_harms_nothing(world: Scenario) -> None:
    raw = rb'{"input":"Hi","metadata":{"k\ud83d":"v\ud83d"},"foreign":"\ud83d","user":"\ude00"}'
    answered = world.server.request("POST", RESPONSES, raw)
    assert answered.json["metadata"] == {"k\ufffd": "v\ufffd"}
    made = world.server.request("POST", "/v1/conversations", rb'{"metadata":{"a":"\ud83d"}}')
    assert made.json["metadata"] == {"a": "\ufffd"}


def test_a_byte_order_mark_is_skipped(world: Scenario) -> None:
    for path in (RESPONSES, CHAT):
        body = b"\xef\xbb\xbf" + encoded(path, "marked")
        assert world.server.request("POST", path, body).status == 200
        assert world.requests[-1]["messages"][-1]["content"] == "marked"


def test_nul_is_stored_found_and_read_back(world: Scenario) -> None:
    """unicode-nul-is-kept"""
    words = "nulword\0 with \0 inside"
    first = world.respond(words, stream=False, metadata={"a": "b\0c"}).expect("completed")
    assert world.requests[-1]["messages"][-1]["content"] == words
    items = world.server.get(f"/v1/responses/{first.body['id']}/input_items").json
    assert items["data"][0]["content"][0]["text"] == words
    assert first.body["metadata"] == {"a": "b\0c"}
    found = world.server.get("/v1/conversations?query=nulword").json["data"]
    assert [one["response_id"] for one in found] == [first.body["id"]]
    second = world.respond("On.", previous_response_id=first.body["id"])
    second.expect("completed")
    assert world.requests[-1]["messages"][0]["content"] == words
    talk = world.server.post("/v1/conversations", metadata={"n": "\0"}).json
    assert world.server.get(f"/v1/conversations/{talk['id']}").json["metadata"] == {"n": "\0"}


# ---- HTTP


def raw_request(world: Scenario, head: str, body: bytes = b"") -> Answer:
    """A request as these lines, and its answer to the end of the connection."""
    with closing(world.server.socket()) as connection:
        lines = "".join(f"{line}\r\n" for line in head.splitlines())
        connection.sendall(lines.encode() + b"\r\n" + body)
        return read_raw(connection)


def posted(path: str, *headers: str, version: str = "1.1", **fields: Any) -> tuple[str, bytes]:
    body = encoded(path, **fields)
    lines = (f"POST {path} HTTP/{version}", "Host: localhost", "Connection: close", *headers)
    return "\n".join((*lines, f"Content-Length: {len(body)}")), body


HEADERS: dict[str, list[str]] = {
    "http-expect": ["Content-Type: application/json", "Expect: 100-continue"],
    "http-expect-upper": ["Expect: 100-Continue"],
    "http-no-content-type": [],
    "http-content-type-text": ["Content-Type: text/plain"],
    "http-content-type-form": ["Content-Type: application/x-www-form-urlencoded"],
    "http-content-type-charset": ["Content-Type: application/json; charset=utf-8"],
    "http-content-type-empty": ["Content-Type:"],
    "http-header-case": ["cOnTeNt-TyPe: APPLICATION/JSON", "ACCEPT: text/event-stream"],
    "http-accept-html": ["Accept: text/html"],
    "http-accept-encoding": ["Accept-Encoding: gzip, deflate, br, zstd"],
    "http-upgrade-to-2": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings:"],
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [RESPONSES, CHAT])
@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_clients_send_are_taken(
    world: Scenario, name: str, path: str, stream: bool
) -> None:
    head, body = posted(path, *HEADERS[name], stream=stream)
    answered = raw_request(world, head, body)
    assert answered.status == 200, answered
    assert "content-encoding" not in answered.headers
    outcome = completion_outcome(answered) if path == CHAT else response_outcome(answered)
    outcome.expect("stop" if path == CHAT else "completed", "Hello there." if stream else "Hi.")


def test_a_body_in_chunks_is_read(world: Scenario) -> None:
    for path in (RESPONSES, CHAT):
        body = encoded(path)
        for size in (1, 7, len(body)):
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
            chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(one), one) for one in pieces)
            head = (
                f"POST {path} HTTP/1.1\nHost: localhost\nConnection: close\n"
                "Transfer-Encoding: CHUNKED"
            )
            answered = raw_request(world, head, chunks + b"0\r\nTrailer: x\r\n\r\n")
            assert answered.status == 200


def test_an_offer_of_http_2_leaves_the_connection_usable(world: Scenario) -> None:
    offer = ["Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"]
    body = encoded(RESPONSES)
    with closing(world.server.connect()) as connection:
        for _ in range(3):
            headers = dict(one.split(": ") for one in offer)
            connection.request(
                "POST", RESPONSES, body, {"Connection": "Upgrade, HTTP2-Settings", **headers}
            )
            assert read_answer(connection).status == 200


@pytest.mark.parametrize("path", [RESPONSES, CHAT])
@pytest.mark.parametrize("stream", [True, False])
def test_http_1_0_gets_no_chunks(world: Scenario, path: str, stream: bool) -> None:
    """http-version-1.0-stream"""
    head, body = posted(path, version="1.0", stream=stream)
    answered = raw_request(world, head, body)
    assert "transfer-encoding" not in answered.headers
    assert answered.headers["connection"] == "close"
    outcome = completion_outcome(answered) if path == CHAT else response_outcome(answered)
    outcome.expect("stop" if path == CHAT else "completed", "Hello there." if stream else "Hi.")
    assert answered.body.endswith(b"data: [DONE]\n\n") == stream


def test_http_1_0_reads_the_rest_as_well(world: Scenario) -> None:
    made = world.respond()
    path = f"/v1/responses/{made.body['id']}?stream=true"
    events = raw_request(world, f"GET {path} HTTP/1.0").events
    assert events == made.events
    assert raw_request(world, "GET /v1/models HTTP/1.0\nConnection: keep-alive").json["data"]
    head = raw_request(world, "HEAD /v1/models HTTP/1.0")
    assert (head.status, head.body) == (200, b"")
    assert raw_request(world, "GET /nowhere HTTP/1.0").error["code"] == "unknown_url"


PATHS = {
    "http-path-slash": "/v1/responses/",
    "http-path-double": "//v1/responses",
    "http-path-query": "/v1/responses?api-version=2026-01-01&x=",
    "slashes-behind": "/v1/responses///",
    "slashes-inside": "/v1//responses",
    "slashes-and-query": "//v1//responses/?a=/b//c/",
    "path-absolute": "http://localhost/v1/responses",
}


@pytest.mark.parametrize("name", PATHS)
def test_paths_with_more_slashes_are_served(world: Scenario, name: str) -> None:
    for path, reads in ((RESPONSES, response_outcome), (CHAT, completion_outcome)):
        at = PATHS[name].replace("responses", path.removeprefix("/v1/"))
        body = encoded(path)
        head = f"POST {at} HTTP/1.1\nHost: localhost\nConnection: close"
        answered = raw_request(world, f"{head}\nContent-Length: {len(body)}", body)
        assert answered.status == 200, answered
        assert reads(answered).text == "Hi."


def test_other_paths_take_more_slashes_too(world: Scenario) -> None:
    made = world.respond().body
    for path in (f"/v1/responses/{made['id']}/", f"//v1/responses//{made['id']}"):
        assert world.server.get(path).json == made
    assert world.server.get("/v1/models/").json == world.server.get("/v1/models").json
    assert world.server.get("/v1/models/m/").json["id"] == "m"
    assert world.server.get("/healthz/").status == 200
    assert world.server.get("/openapi.json/").status == 200
    assert world.server.get("//").body == world.server.get("/").body


def test_a_wrong_base_url_is_told_the_right_one(world: Scenario) -> None:
    for prefix in ("", "/v1/v1", "/api/v1", "/openai", "/openai/deployments/m", "/V1"):
        for path in ("/chat/completions", "/responses"):
            error = world.server.request("POST", prefix + path, {"input": "Hi"}).error
            assert error["code"] == "unknown_url"
            assert error["message"].endswith(f"so that it asks for /v1{path}.")
    for path in ("/api/tags", "/v1/messages", "/v1", "/health"):
        error = world.server.get(path).error
        assert error["message"] == f"There is nothing at {path}: /docs lists what there is."


def test_more_slashes_do_not_go_round_the_keys() -> None:
    with serving_with_keys() as site:
        site.client()
        for path in ("/v1/models/", "//v1/models", "/metrics/", "//metrics"):
            assert site.server.get(path).status == 401
        assert site.server.get("//healthz/").status == 200


def test_head_is_a_get_without_a_body(world: Scenario) -> None:
    """http-head-…"""
    made = world.respond().body
    paths = ["/v1/models", "/v1/models/", "/v1/models/m", "/healthz", "/v1/responses", "/docs"]
    paths += [f"/v1/responses/{made['id']}", f"/v1/responses/{made['id']}?stream=true", "/nowhere"]
    for path in paths:
        got = world.server.request("GET", path)
        head = world.server.request("HEAD", path)
        assert head.body == b""
        assert head.status == (got.status if path != "/nowhere" else 404)
        for one in ("content-type", "content-length"):
            assert head.headers.get(one) == got.headers.get(one)
    assert world.server.request("HEAD", "/mcp").status == 405


# ---- hosts

LOCAL_HOSTS = [
    "localhost",
    "app.localhost",
    "a.b.LOCALHOST:8080",
    "localhost.",
    "app.localhost.:80",
    "127.0.0.1:8080",
    "127.9.9.9",
    "[::1]:8080",
]
FOREIGN_HOSTS = [
    "antiphon:8080",
    "host.docker.internal",
    "notlocalhost",
    "localhost.evil.example",
    "app.localhost.evil.example",
    ".localhost",
    "a..localhost",
    "localhost..",
    "localhost@evil.example",
    "app.localhost@evil.example",
    "127.0.0.1.nip.io",
    "0.0.0.0:8080",
    "10.0.0.7",
]


@pytest.mark.parametrize("host", LOCAL_HOSTS)
def test_names_of_this_machine_are_served(world: Scenario, host: str) -> None:
    head = "GET /v1/models HTTP/1.1\nConnection: close"
    assert raw_request(world, f"{head}\nHost: {host}").status == 200
    assert raw_request(world, f"{head}\nHost: {host}\nOrigin: http://{host}").status == 200


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_other_names_are_refused_with_what_to_do(world: Scenario, host: str) -> None:
    """http-host-of-container, http-host-…"""
    head = "GET /v1/models HTTP/1.1\nConnection: close"
    for headers in (f"Host: {host}", f"Host: localhost\nOrigin: http://{host}"):
        refused = raw_request(world, f"{head}\n{headers}")
        assert (refused.status, refused.error["code"]) == (403, "forbidden")
        assert host in refused.error["message"]
        assert "antiphon key create" in refused.error["message"]


def test_a_key_makes_other_names_work() -> None:
    with serving_with_keys() as site:
        headers: Mapping[str, str] = {
            "host": "antiphon:8080",
            **site.client().headers,
        }
        assert site.server.request("GET", "/v1/models", None, headers).status == 200
