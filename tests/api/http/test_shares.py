"""Shared links: pages without script that show what the store has now, and nothing to others."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from antiphon.models.scripted import ScriptedModel, say
from support.http_server import Answer, ThreadServer, serving
from support.keyed_server import serving_with_keys


@pytest.fixture
def server() -> Iterator[ThreadServer]:
    with serving(ScriptedModel(lambda call: say("Yes."))) as started:
        yield started


def ask(server: ThreadServer, text: str, **fields: Any) -> str:
    response: str = server.respond(text, **fields).json["id"]
    return response


def shared(server: ThreadServer, response_id: str, **fields: Any) -> dict[str, Any]:
    answer = server.post("/v1/shares", response_id=response_id, **fields)
    assert answer.status == 200
    body: dict[str, Any] = answer.json
    return body


def page(answer: Answer) -> str:
    return answer.body.decode()


def test_a_link_shows_the_chain_up_to_its_response(server: ThreadServer) -> None:
    first = ask(server, "What is a *plum*?")
    second = ask(server, "And a damson?", previous_response_id=first)
    ask(server, "Not this one.", previous_response_id=second)
    share = shared(server, second)
    assert re.fullmatch("/s/[A-Za-z0-9_-]{43}", share["url"])
    assert (share["object"], share["response_id"], share["expires_at"]) == ("share", second, None)
    html = page(server.get(share["url"]))
    assert "<em>plum</em>" in html
    assert "And a damson?" in html
    assert "Not this one." not in html
    assert html.count('<article class="turn"') == 2
    assert share["id"] not in html


def test_columns_are_aligned_without_inline_styles(server: ThreadServer) -> None:
    table = "| Step | Time | Done |\n|:--|--:|:-:|\n| add | 2 ms | yes |"
    html = page(server.get(shared(server, ask(server, table))["url"]))
    assert '<td>add</td>\n<td class="right">2 ms</td>\n<td class="center">yes</td>' in html
    assert "style=" not in html


def test_a_page_has_no_script_and_is_stored_by_nobody(server: ThreadServer) -> None:
    answer = server.get(shared(server, ask(server, "Hi"))["url"])
    headers = answer.headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy.endswith("frame-ancestors 'none'")
    assert "script" not in policy
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert "noindex" in headers["x-robots-tag"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "<script" not in page(answer)
    head = server.request("HEAD", shared(server, ask(server, "Hi"))["url"])
    assert (head.status, head.body) == (200, b"")


def test_long_chains_are_shown_whole(server: ThreadServer) -> None:
    response = ask(server, "Turn 0")
    for number in range(1, 45):
        response = ask(server, f"Turn {number}", previous_response_id=response)
    html = page(server.get(shared(server, response)["url"]))
    turns = re.findall(r"<p>Turn (\d+)</p>", html)
    assert [int(one) for one in turns] == list(range(45))


def test_erased_words_vanish_at_once_and_an_erased_chain_is_missing(server: ThreadServer) -> None:
    first = ask(server, "My secret word.")
    second = ask(server, "Go on.", previous_response_id=first)
    url = shared(server, second)["url"]
    assert "My secret word." in page(server.get(url))
    server.request("DELETE", f"/v1/responses/{first}")
    html = page(server.get(url))
    assert "My secret word." not in html
    assert "Go on." in html
    server.request("DELETE", f"/v1/responses/{second}")
    assert server.get(url).status == 404


def test_all_that_is_missing_looks_the_same(server: ThreadServer) -> None:
    revoked, erased = shared(server, ask(server, "A")), shared(server, ask(server, "B"))
    assert server.request("DELETE", f"/v1/shares/{revoked['id']}").json["deleted"] is True
    server.request("DELETE", f"/v1/responses/{erased['response_id']}")
    never = "/s/" + "A" * 43
    answers = [
        server.get(path) for path in (revoked["url"], erased["url"], never, "/s/x", "/s/%00%ff")
    ]
    assert {(one.status, one.body) for one in answers} == {(404, answers[0].body)}
    assert "There is nothing here" in page(answers[0])
    headers = [
        {k: v for k, v in one.headers.items() if k not in {"x-request-id", "date"}}
        for one in answers
    ]
    assert all(one == headers[0] for one in headers)


def test_links_are_listed_and_revoked_without_their_secrets(server: ThreadServer) -> None:
    made = [shared(server, ask(server, "Hi"), expires_in=60) for _ in range(3)]
    listed = server.get("/v1/shares?limit=2").json
    assert [one["id"] for one in listed["data"]] == [made[2]["id"], made[1]["id"]]
    assert listed["has_more"]
    assert all("url" not in one and one["title"] == "Hi" for one in listed["data"])
    assert made[0]["expires_at"] - made[0]["created_at"] == 60
    assert server.request("DELETE", f"/v1/shares/{made[0]['id']}").status == 200
    again = server.request("DELETE", f"/v1/shares/{made[0]['id']}")
    assert (again.status, again.error["code"]) == (404, "share_not_found")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "response_id"),
        ({"response_id": "resp_" + "0" * 32}, 404, None),
        ({"response_id": "resp_" + "0" * 32, "expires_in": 0}, 400, "expires_in"),
        ({"response_id": "resp_" + "0" * 32, "expires_in": 10**12}, 400, "expires_in"),
    ],
)
def test_what_cannot_be_shared(
    server: ThreadServer, body: dict[str, Any], status: int, param: str | None
) -> None:
    answer = server.request("POST", "/v1/shares", body)
    assert (answer.status, answer.error["param"]) == (status, param)


def test_a_link_needs_no_key_and_keeps_its_tenant_apart() -> None:
    with serving_with_keys() as site:
        acme, other, nobody = site.client("acme"), site.client("other"), site.anonymous_client()
        response = acme.respond("Our words.").json["id"]
        foreign = other.request("POST", "/v1/shares", {"response_id": response})
        missing = other.request("POST", "/v1/shares", {"response_id": "resp_" + "1" * 32})
        assert foreign.status == missing.status == 404
        assert foreign.body.replace(response.encode(), b"") == missing.body.replace(
            b"resp_" + b"1" * 32, b""
        )
        share = acme.request("POST", "/v1/shares", {"response_id": response}).json
        assert "Our words." in page(nobody.get(share["url"]))
        assert nobody.request("POST", "/v1/shares", {"response_id": response}).status == 401
        assert nobody.get("/v1/shares").status == 401
        assert other.get("/v1/shares").json["data"] == []
        assert other.request("DELETE", f"/v1/shares/{share['id']}").status == 404
        assert nobody.get(share["url"]).status == 200


def test_a_link_is_in_no_log(server: ThreadServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="antiphon"):
        url = shared(server, ask(server, "Hi"))["url"]
        for path in (url, f"//s/{url[3:]}", f"/s/{url[3:]}/", url + "x"):
            server.get(path)
    ours = "\n".join(one.getMessage() for one in caplog.records if one.name.startswith("antiphon"))
    assert "/s/..." in ours
    assert url[3:] not in ours


class _Elements(HTMLParser):
    """The elements of a page and the attributes that they have."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "![x](javascript:alert(1))",
    "![x](https://evil.example/pixel.png)",
    "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "<a href='javascript:x'>",
    '<https://evil.example/"onmouseover=alert(1)>',
    "`</code></pre><script>`",
    "```html\n</pre><script>alert(1)</script>\n```",
    '```"><script>\nx\n```',
    '| <svg onload=x> | b |\n|---|---|\n| <iframe> | " onclick=x |',
    "\x1b[31mred\x1b[0m \x00 \x9b31m",
    "</style></title></main><form action=x>",
    "> " * 500 + "deep",
    "[" * 5000 + "x" + "]" * 5000,
    "*_" * 5000,
    "&lt;script&gt; &#60;script&#62;",
]
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "p", "time", "main",
    "article", "section", "div", "footer", "a", "code", "pre", "span", "table", "thead", "tbody",
    "tr", "th", "td", "blockquote", "em", "strong", "br", "ul", "li",
}  # fmt: skip


def test_hostile_words_are_words(server: ThreadServer) -> None:
    for text in HOSTILE:
        html = page(server.get(shared(server, ask(server, text))["url"]))
        elements = _Elements()
        elements.feed(html)
        assert elements.tags <= ALLOWED, text
        for name, value in elements.attributes:
            assert not name.startswith("on"), text
            if name == "href":
                assert value.startswith(("https://", "http://", "mailto:")), text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", html), text
