"""Titles that a model writes, over a real server and upstream: in the background, once a chat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from antiphon.turn.chat_titler import ChatTitler, clean_title
from antiphon.turn.feed_protocols import ChangeReader
from support.misbehaving_upstream import Behaviour, Request
from support.scenario import Scenario, answer_hello, body_of, scenario, whole


def is_title_request(request: Request) -> bool:
    return "Write a title" in str(request.json["messages"])


def answer_titles(make: Callable[[], Behaviour]) -> Callable[[Request], Behaviour]:
    """An upstream that answers requests for titles so, and all others by "Hello"."""
    return lambda one: make() if is_title_request(one) else answer_hello(one)


def title(text: str) -> Behaviour:
    return whole({"role": "assistant", "content": text})


class TitledScenario:
    """A scenario whose server has titles written by its model."""

    def __init__(self, world: Scenario, titler: ChatTitler, changes: ChangeReader) -> None:
        self.world = world
        self.titler = titler
        self._changes = changes

    def read_update(self) -> None:
        """Wait until the feed says that a chat was changed."""

        async def read() -> None:
            async with asyncio.timeout(10):
                async for changes in self._changes:
                    if any(one.type == "chat.updated" for one in changes):
                        return

        self.world.server.run(read())

    def finish(self) -> None:
        """Wait for what runs in the background."""

        async def wait() -> None:
            async with asyncio.timeout(10):
                await self.titler.wait()

        self.world.server.run(wait())

    def title_requests(self) -> list[Request]:
        return [one for one in self.world.all_requests if one.body and is_title_request(one)]

    def chats(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.world.server.get("/v1/chats").json["data"]
        return listed


@contextmanager
def titled(answer: Callable[[Request], Behaviour]) -> Iterator[TitledScenario]:
    with scenario() as world:
        service = world.server.service
        assert service.stores is not None
        stores = service.stores

        async def attach() -> TitledScenario:
            titler = ChatTitler("m", service.models, service.reader, stores.chats)
            service.registry.add_observer(titler)
            service.on_close.append(titler.close)
            return TitledScenario(world, titler, await stores.changes.subscribe(""))

        world.upstream_answers(answer)
        yield world.server.run(attach())


def test_first_answered_turn_gets_a_title_which_is_no_turn_and_no_usage() -> None:
    with titled(answer_titles(lambda: title('"Fugues and canons"\n'))) as site:
        first = site.world.respond("What is a fugue?").expect("completed")
        site.read_update()
        (chat,) = site.chats()
        assert (chat["title"], chat["turns"]) == ("Fugues and canons", 1)
        assert "What is a fugue?" in str(site.title_requests()[0].json)
        assert site.title_requests()[0].json.get("stream") in (None, False)
        listed = site.world.server.get("/v1/responses").json["data"]
        assert [one["id"] for one in listed] == [first.body["id"]]
        usage = site.world.server.get("/v1/usage").json["data"]
        assert [one["turns"] for one in usage] == [1]
        site.world.respond("More.", previous_response_id=first.body["id"]).expect("completed")
        site.world.respond("Not kept", store=False).expect("completed")
        site.finish()
        assert len(site.title_requests()) == 1


def test_turn_behind_a_failed_one_is_the_first_that_is_answered() -> None:
    with titled(answer_titles(lambda: title("Later"))) as site:
        site.world.upstream_sends(body_of({"error": {"message": "no"}}, 400))
        failed = site.world.respond("What?", stream=False)
        names = [one["id"] for one in site.world.server.get("/v1/responses").json["data"]]
        assert (failed.body.get("status"), len(names)) != ("completed", 0)
        site.finish()
        assert not site.title_requests()
        site.world.respond("Again?", previous_response_id=names[0]).expect("completed")
        site.read_update()
        assert [one["title"] for one in site.chats()] == ["Later"]


def test_turn_behind_an_erased_one_is_the_first_that_is_answered() -> None:
    with titled(answer_titles(lambda: title("Later"))) as site:
        site.world.upstream_sends(body_of({"error": {"message": "no"}}, 400))
        site.world.respond("What?", stream=False)
        (failed,) = [one["id"] for one in site.world.server.get("/v1/responses").json["data"]]
        site.world.upstream_sends(body_of({"error": {"message": "no"}}, 400))
        site.world.respond("What now?", stream=False, previous_response_id=failed)
        names = [one["id"] for one in site.world.server.get("/v1/responses").json["data"]]
        (second,) = {*names} - {failed}
        site.world.server.request("DELETE", f"/v1/responses/{failed}")
        site.world.respond("Again?", previous_response_id=second).expect("completed")
        site.read_update()
        site.finish()
        assert [one["title"] for one in site.chats()] == ["Later"]


@pytest.mark.parametrize("event", ["renamed", "erased", "closed"])
def test_what_happens_while_the_title_is_written_comes_first(event: str) -> None:
    go = asyncio.Event()
    with titled(answer_titles(lambda: [go, *title("Of the model")])) as site:
        # The turn itself does not wait for its title.
        made = site.world.respond("A question").expect("completed").body["id"]
        if event == "renamed":
            site.world.server.post(f"/v1/chats/{made}", title="Mine")
        elif event == "erased":
            more = site.world.respond("More.", previous_response_id=made).body["id"]
            site.world.server.request("DELETE", f"/v1/responses/{more}")
        else:
            site.world.server.run(site.titler.close())
        site.world.set(go)
        site.finish()
        expected = "Mine" if event == "renamed" else "A question"
        assert [one["title"] for one in site.chats()] == [expected]


@pytest.mark.parametrize(
    "answer",
    [title(""), title(' "" '), body_of({"error": {"message": "no"}}, 400), body_of(b"nonsense")],
)
def test_title_that_cannot_be_had_leaves_the_first_words(answer: Behaviour) -> None:
    with titled(answer_titles(lambda: answer)) as site:
        site.world.respond("A question").expect("completed")
        site.finish()
        assert [one["title"] for one in site.chats()] == ["A question"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("  **Fugues**\nI chose this because", "Fugues"),
        ("# „Fugen“", "Fugen"),
        ("a\x1b[31mb", "a [31mb"),
        ("", ""),
        ("word " * 100, " ".join(["word"] * 16) + "…"),
    ],
)
def test_model_s_answer_becomes_one_line_without_marks(answer: str, expected: str) -> None:
    assert clean_title(answer) == expected
