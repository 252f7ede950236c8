"""Web pages elsewhere: which may talk to the server, and how they ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.http_server import Answer
from support.keyed_server import KeyedServer, serving_with_keys

APP = "https://app.example.com"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
}


@pytest.fixture(scope="module")
def site() -> Iterator[KeyedServer]:
    with serving_with_keys(origins=[APP, "http://localhost:3000"]) as started:
        started.client()
        yield started


def allowed(answer: Answer) -> dict[str, str]:
    return {
        name.removeprefix("access-control-"): value
        for name, value in answer.headers.items()
        if name.startswith("access-control-")
    }


def test_a_listed_page_reads_answers_and_refusals(site: KeyedServer) -> None:
    acme, nobody = site.client(), site.anonymous_client()
    for answer, status in (
        (acme.request("GET", "/v1/models", None, {"origin": APP}), 200),
        (acme.request("GET", "/nowhere", None, {"origin": APP}), 404),
        (nobody.request("GET", "/v1/models", None, {"origin": APP}), 401),
    ):
        assert answer.status == status
        assert allowed(answer)["allow-origin"] == APP
        assert "x-request-id" in allowed(answer)["expose-headers"]
        assert answer.headers["vary"] == "origin"


def test_a_listed_page_may_ask_before_it_sends(site: KeyedServer) -> None:
    answer = site.anonymous_client().request(
        "OPTIONS", "/v1/responses", None, {"origin": APP, **PREFLIGHT}
    )
    assert (answer.status, answer.body) == (204, b"")
    assert allowed(answer)["allow-origin"] == APP
    assert "POST" in allowed(answer)["allow-methods"]
    assert allowed(answer)["allow-headers"] == PREFLIGHT["access-control-request-headers"]
    assert int(allowed(answer)["max-age"]) > 0


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.example",
        "https://evil.app.example.com",
        "null",
        "*",
        "",
    ],
)
def test_other_pages_get_no_answer_that_they_could_read(site: KeyedServer, origin: str) -> None:
    answer = site.client().request("GET", "/v1/models", None, {"origin": origin})
    assert (answer.status, allowed(answer)) == (200, {})
    assert answer.headers["vary"] == "origin", "a cache must not mix them up"
    before = site.anonymous_client().request(
        "OPTIONS", "/v1/models", None, {"origin": origin, **PREFLIGHT}
    )
    assert (before.status, allowed(before)) == (401, {})


def test_all_pages() -> None:
    with serving_with_keys(origins=["*"]) as site:
        answer = site.client().request("GET", "/v1/models", None, {"origin": "https://any.example"})
        assert allowed(answer)["allow-origin"] == "*"
        assert "vary" not in answer.headers
        assert "access-control-allow-origin" not in site.client().get("/v1/models").headers


def test_credentials_are_never_allowed() -> None:
    with serving_with_keys(origins=["*", APP]) as site:
        for method in ("OPTIONS", "GET", "POST"):
            answer = site.client().request(
                method, "/v1/responses", None, {"origin": APP, **PREFLIGHT}
            )
            assert "allow-credentials" not in allowed(answer)


def test_off_unless_set() -> None:
    with serving_with_keys() as site:
        answer = site.client().request("GET", "/v1/models", None, {"origin": APP})
        assert (answer.status, allowed(answer)) == (200, {})
        asked = site.client().request("OPTIONS", "/v1/models", None, {"origin": APP, **PREFLIGHT})
        assert (asked.status, allowed(asked)) == (405, {})


def test_without_keys_a_list_lets_in_pages_of_this_machine_only() -> None:
    with serving_with_keys(origins=["*", APP, "http://localhost:3000"]) as site:
        before = site.server.stored_count()
        answer = site.anonymous_client().request(
            "POST", "/v1/responses", {"input": "Hi"}, {"origin": APP}
        )
        assert answer.status == 403
        assert site.server.stored_count() == before
        local = {"origin": "http://localhost:3000"}
        answer = site.anonymous_client().request("POST", "/v1/responses", {"input": "Hi"}, local)
        assert (answer.status, allowed(answer)["allow-origin"]) == (200, "*")
