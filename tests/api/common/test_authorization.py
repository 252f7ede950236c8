"""Who may come in: this machine, and no web page from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from antiphon.api.common.authorization import require_local_host
from antiphon.errors import ForbiddenError
from support.http_server import ThreadServer, serving


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "127.0.0.1",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:8080",
    ],
)
def test_this_machine_is_let_in(host: str) -> None:
    require_local_host([(b"host", host.encode())])
    for scheme in ("http", "https"):
        require_local_host([(b"host", host.encode()), (b"origin", f"{scheme}://{host}".encode())])


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8080", "http://localhost:3000"),
        ("localhost:8080", "http://localhost"),
        ("localhost:8080", "http://127.0.0.1:8080"),
        ("127.0.0.1:8080", "http://127.0.0.2:8080"),
        ("localhost", "http://app.localhost"),
    ],
)
def test_another_page_of_this_machine_is_let_in_where_it_is_listed(host: str, origin: str) -> None:
    headers = [(b"host", host.encode()), (b"origin", origin.encode())]
    with pytest.raises(ForbiddenError, match="cors_origins"):
        require_local_host(headers)
    with pytest.raises(ForbiddenError, match="cors_origins"):
        require_local_host(headers, ["https://localhost:3000", "https://app.example.com"])
    require_local_host(headers, [origin])
    require_local_host(headers, ["*"])


@pytest.mark.parametrize("origins", [["*"], ["https://evil.example"]])
def test_a_list_lets_in_no_page_of_another_machine(origins: list[str]) -> None:
    headers = [(b"host", b"localhost"), (b"origin", b"https://evil.example")]
    with pytest.raises(ForbiddenError):
        require_local_host(headers, origins)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "127.0.0.1:80@evil.example",
        "[::2]",
        "[::1",
        "0.0.0.0",
        "192.168.1.7:8080",
        "\xff\xfe",
    ],
)
def test_others_are_kept_out(host: str) -> None:
    with pytest.raises(ForbiddenError):
        require_local_host([(b"host", host.encode("latin-1"))])
    origin = f"https://{host}".encode("latin-1")
    with pytest.raises(ForbiddenError):
        require_local_host([(b"host", b"localhost"), (b"origin", origin)])


@pytest.mark.parametrize("origin", [b"null", b"", b"localhost", b"file://", b"about:blank"])
def test_an_origin_that_names_no_machine_is_kept_out(origin: bytes) -> None:
    with pytest.raises(ForbiddenError):
        require_local_host([(b"host", b"localhost"), (b"origin", origin)])


def test_a_second_host_does_not_hide_behind_the_first() -> None:
    with pytest.raises(ForbiddenError):
        require_local_host([(b"host", b"localhost"), (b"host", b"evil.example")])


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with serving() as started:
        yield started


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/responses"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("DELETE", "/v1/responses/resp_" + "0" * 32),
        ("OPTIONS", "/v1/responses"),
        ("GET", "/healthz"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
    ],
)
@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}]
)
def test_a_page_gets_nothing_done(
    server: ThreadServer, method: str, path: str, headers: dict[str, str]
) -> None:
    body = {"input": "Hi", "messages": [{"role": "user", "content": "Hi"}]}
    before = server.stored_count()
    answer = server.request(method, path, body, headers)
    assert answer.status == 403
    assert (answer.error["code"], answer.error["type"]) == ("forbidden", "invalid_request_error")
    assert not {name for name in answer.headers if name.startswith("access-control")}
    assert server.stored_count() == before
    # The same without the header is none of the guard's business.
    assert server.request(method, path, body).status != 403


def test_the_page_of_the_server_gets_things_done_and_no_other(server: ThreadServer) -> None:
    own, other = {"origin": server.url}, {"origin": "http://localhost:3000"}
    for headers, status in ((own, 200), (other, 403)):
        answer = server.request("POST", "/v1/responses", {"input": "Hi"}, headers)
        assert answer.status == status
