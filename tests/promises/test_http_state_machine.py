"""Model-based test of the HTTP API: a random sequence of requests against ``ReferenceModel``.

Two tenants take turns, stream, disconnect, cancel, branch, delete, use conversations, and let
turns expire. After each step the server and the reference model must agree.
"""

from __future__ import annotations

import asyncio
import functools
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from antiphon.api.http.app import create_app
from antiphon.core.api_keys import hash_api_key, new_api_key, new_api_key_id
from antiphon.core.ids import new_response_id
from antiphon.errors import ModelError
from antiphon.models.scripted import Messages, ScriptedModel, ScriptedReply, cut, fail, say, wait
from antiphon.stores.memory.store import MemoryApiKeyStore
from antiphon.turn.store_protocols import ApiKey
from support.dated_stores import in_database, in_file, in_memory
from support.example_counts import examples
from support.http_server import Answer, serving
from support.reference_model import (
    RETENTION_SECONDS,
    ReferenceConversation,
    ReferenceModel,
    ReferenceTurn,
)
from support.store_turns import ManualClock

#: What is tried each time the tests run; look for more with more.
EXAMPLES = examples(6)
STEPS = 50


class NumberedScript:
    """The model's script, chosen by the number in the newest message."""

    def __init__(self) -> None:
        self.shown: dict[int, list[str]] = {}
        self.gates: dict[int, asyncio.Event] = {}
        self.kinds: dict[int, str] = {}

    def __call__(self, messages: Messages) -> ScriptedReply:
        texts = [message["content"] for message in messages]
        number = int(texts[-1].removeprefix("ask "))
        self.shown[number] = texts
        match self.kinds[number]:
            case "held":
                self.gates[number] = asyncio.Event()
                return say(f"begun {number}") + wait(self.gates[number]) + say(" done")
            case "fail":
                return fail(ModelError("It broke."))
            case "cut":
                return say(f"half {number}") + cut()
        return say(f"answer {number}")


T = TypeVar("T", ReferenceTurn, ReferenceConversation)
SOME_TURN = precondition(lambda self: any(map(self.book.exists, self.book.turns)))
SOME_TALK = precondition(lambda self: any(map(self.book.is_open, self.book.conversations)))
SOME_HELD = precondition(lambda self: self.running)

#: Kind of turn -> how it ends, and what is left of its answer if it was streamed.
ENDS = {"good": ("completed", "answer"), "fail": ("failed", ""), "cut": ("failed", "half")}
KINDS = st.sampled_from(["good", "good", "good", "fail", "cut"])
TENANTS = st.sampled_from(["a", "a", "a", "b"])
FLAG = st.booleans()
#: Most steps are ones that a client would take: all that is refused teaches little.
MOSTLY = st.sampled_from([True] * 9 + [False])
CHOICE = st.data()


class WaitingTurn(msgspec.Struct, eq=False):
    """A turn that waits in the model, and its client unless that disconnected."""

    turn: ReferenceTurn
    stored: bool
    connection: HTTPConnection
    reading: HTTPResponse


class Server(RuleBasedStateMachine):
    """The machine; ``opener`` makes the store."""

    opener: ClassVar[Callable[[ManualClock, Path], Any]]

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock(time.time())
        self.book = ReferenceModel(self.clock)
        self.director = NumberedScript()
        self.model = ScriptedModel(self.director)
        self.running: list[WaitingTurn] = []
        self.folder = Path(tempfile.mkdtemp())
        keys = MemoryApiKeyStore(time.time)
        store = functools.partial(type(self).opener, self.clock, self.folder)
        self.stack = ExitStack()
        self.server = self.stack.enter_context(
            serving(self.model, store, lambda service: create_app(service, keys))
        )
        self.headers = {}
        for tenant in ("a", "b"):
            text = new_api_key()
            digest = hash_api_key(text.encode()) or b""
            self.server.run(keys.add(ApiKey(new_api_key_id(), tenant, 0.0), digest))
            self.headers[tenant] = {"authorization": f"Bearer {text}"}

    def _turn(self, choice: Any) -> tuple[str, ReferenceTurn]:
        """A turn there was, and who asks for it: mostly its owner, for one that is there."""
        there = [turn for turn in self.book.turns if self.book.exists(turn)]
        return self._chosen(choice, there, self.book.turns)

    def _talk(self, choice: Any) -> tuple[str, ReferenceConversation]:
        """The same for a conversation."""
        there = [talk for talk in self.book.conversations if self.book.is_open(talk)]
        return self._chosen(choice, there, self.book.conversations)

    def _chosen(self, choice: Any, there: list[T], every: list[T]) -> tuple[str, T]:
        usual = bool(there) and choice.draw(MOSTLY)
        found = choice.draw(st.sampled_from(there if usual else every))
        other = "b" if found.tenant == "a" else "a"
        return (found.tenant if choice.draw(MOSTLY) else other), found

    def ask(
        self, tenant: str, method: str, path: str, body: dict[str, Any] | None = None
    ) -> Answer:
        return self.server.request(method, path, body, self.headers[tenant])

    # Turns.

    def _new(
        self,
        tenant: str,
        parent: ReferenceTurn | None,
        kind: str,
        talk: ReferenceConversation | None = None,
    ) -> ReferenceTurn:
        number = len(self.director.kinds)
        self.director.kinds[number] = kind
        stamp = max(self.clock.now, parent.created_at if parent else 0.0)
        return ReferenceTurn(tenant, number, parent, stamp, conversation=talk)

    def _keep(self, turn: ReferenceTurn, stored: bool) -> None:
        if stored:
            self.book.turns.append(turn)
            if turn.conversation is not None:
                turn.conversation.latest_turn, turn.conversation.base_turn = turn, turn.parent

    def _check_shown(self, turn: ReferenceTurn) -> None:
        expected = [*self.book.context_texts(turn.parent), f"ask {turn.number}"]
        assert self.director.shown[turn.number] == expected

    def _take(
        self, turn: ReferenceTurn, kind: str, fields: dict[str, Any], *, stream: bool, store: bool
    ) -> None:
        """A turn from its start to its end."""
        body = {"input": f"ask {turn.number}", "stream": stream, "store": store, **fields}
        answer = self.ask(turn.tenant, "POST", "/v1/responses", body)
        status, left = ENDS[kind]
        if stream:
            assert answer.status == 200
            turn.id = answer.events[-1]["response"]["id"]
            assert answer.events[-1]["response"]["status"] == status
        elif status == "completed":
            assert (answer.status, answer.json["status"]) == (200, status)
            turn.id = answer.json["id"]
        else:
            assert answer.status == 502
            turn.id = answer.error.get("response_id", "")
        self._check_shown(turn)
        turn.status = status
        # An answer that comes whole, or not at all.
        turn.answer = f"{left} {turn.number}" if left and (stream or left == "answer") else ""
        if kind == "cut" and not stream:
            turn.answer = f"{left} {turn.number}"
        self._keep(turn, store)

    @rule(
        choice=CHOICE,
        where=st.sampled_from(["alone", "response", "response", "conversation", "conversation"]),
        kind=KINDS,
        stream=FLAG,
        store=MOSTLY,
    )
    def turn(self, choice: Any, where: str, kind: str, stream: bool, store: bool) -> None:
        how: dict[str, Any] = {"kind": kind, "stream": stream, "store": store}
        if where == "response" and any(map(self.book.exists, self.book.turns)):
            self._go_on(*self._turn(choice), **how)
        elif where == "conversation" and any(map(self.book.is_open, self.book.conversations)):
            self._talk_on(*self._talk(choice), **how)
        else:
            self._start(choice.draw(TENANTS), **how)

    def _start(self, tenant: str, *, kind: str, stream: bool, store: bool) -> None:
        turn = self._new(tenant, None, kind)
        self._take(turn, kind, {}, stream=stream, store=store)

    def _go_on(
        self, tenant: str, parent: ReferenceTurn, *, kind: str, stream: bool, store: bool
    ) -> None:
        """A branch, where it has been gone on from before."""
        fields = {"previous_response_id": parent.id}
        if tenant != parent.tenant or not self.book.exists(parent):
            self._refused(tenant, fields, 400, "previous_response_not_found")
            return
        if parent.status == "in_progress":
            self._refused(tenant, fields, 409, "response_in_progress")
            return
        turn = self._new(tenant, parent, kind)
        self._take(turn, kind, fields, stream=stream, store=store)

    def _refused(self, tenant: str, fields: dict[str, Any], status: int, code: str) -> None:
        answer = self.ask(tenant, "POST", "/v1/responses", {"input": "ask 0", **fields})
        assert (answer.status, answer.error["code"]) == (status, code)

    # Turns that take their time.

    @SOME_TURN
    @rule(choice=CHOICE, store=MOSTLY)
    def hold(self, choice: Any, store: bool) -> None:
        tenant, parent = self._turn(choice)
        if tenant == parent.tenant and self.book.exists(parent) and parent.status != "in_progress":
            self._hold(tenant, parent, None, {"previous_response_id": parent.id}, store=store)

    @SOME_TALK
    @rule(choice=CHOICE, store=MOSTLY)
    def hold_talk(self, choice: Any, store: bool) -> None:
        tenant, talk = self._talk(choice)
        if self._may_talk(tenant, talk) and not (store and self.book.is_busy(talk)):
            fields = {"conversation": talk.id}
            self._hold(tenant, self.book.head(talk), talk, fields, store=store)

    def _hold(
        self,
        tenant: str,
        parent: ReferenceTurn | None,
        talk: ReferenceConversation | None,
        fields: dict[str, str],
        *,
        store: bool,
    ) -> None:
        """A turn that waits in the model, read as far as it goes."""
        turn = self._new(tenant, parent, "held", talk if store else None)
        body = {"input": f"ask {turn.number}", "stream": True, "store": store, **fields}
        connection = self.server.connect()
        connection.request("POST", "/v1/responses", json.dumps(body), self.headers[tenant])
        reading = connection.getresponse()
        line = b""
        while b'"delta":"begun' not in line:
            line = reading.readline()
            assert line, "the stream ended early"
            if line.startswith(b'data: {"type":"response.created"'):
                turn.id = json.loads(line[6:])["response"]["id"]
        self._check_shown(turn)
        turn.answer = f"begun {turn.number}"
        self._keep(turn, store)
        self.running.append(WaitingTurn(turn, store, connection, reading))

    def _over(self, one: WaitingTurn, status: str) -> None:
        one.turn.status = status
        self.running.remove(one)
        one.connection.close()

    @SOME_HELD
    @rule(choice=CHOICE, how=st.sampled_from(["release", "leave", "cancel"]))
    def end(self, choice: Any, how: str) -> None:
        """It ends well, whoever reads along, or is stopped."""
        one = choice.draw(st.sampled_from(self.running))
        if how == "cancel":
            self._cancel(one)
        else:
            self._release(one, listen=how == "release")

    def _release(self, one: WaitingTurn, *, listen: bool) -> None:
        turn = one.turn
        if one.stored and not listen:
            one.reading.close()
            one.connection.close()
        self.server.set(self.director.gates[turn.number])
        if one.stored and not listen:
            path = f"/v1/responses/{turn.id}?stream=true"
            assert self.ask(turn.tenant, "GET", path).events[-1]["type"] == "response.completed"
        else:
            assert one.reading.read().endswith(b"data: [DONE]\n\n")
        turn.answer += " done"
        self._over(one, "completed")

    def _cancel(self, one: WaitingTurn) -> None:
        turn = one.turn
        path = f"/v1/responses/{turn.id}/cancel"
        other = "b" if turn.tenant == "a" else "a"
        assert self.ask(other, "POST", path).status == 404
        answer = self.ask(turn.tenant, "POST", path)
        if not one.stored:
            # Nobody can find it; its client leaves instead.
            assert answer.status == 404
            self._hang_up(one)
            return
        assert (answer.status, answer.json["status"]) == (200, "cancelled")
        assert b"[DONE]" in one.reading.read()
        self._over(one, "cancelled")

    def _hang_up(self, one: WaitingTurn) -> None:
        self.model.cancelled.clear()
        one.reading.close()
        self._over(one, "cancelled")
        self.server.wait(self.model.cancelled)

    # Looking, erasing, waiting.

    @SOME_TURN
    @rule(choice=CHOICE)
    def look(self, choice: Any) -> None:
        self._look(*self._turn(choice))

    def _look(self, tenant: str, turn: ReferenceTurn) -> None:
        path = f"/v1/responses/{turn.id}"
        answer = self.ask(tenant, "GET", path)
        if tenant != turn.tenant or not self.book.exists(turn):
            missing = new_response_id()
            known = self.ask(tenant, "GET", f"/v1/responses/{missing}")
            assert answer.body.replace(turn.id.encode(), b"") == known.body.replace(
                missing.encode(), b""
            )
            assert answer.status == known.status == 404
            return
        body = answer.json
        assert (body["status"], body["id"]) == (turn.status, turn.id)
        assert body["previous_response_id"] == (turn.parent.id if turn.parent else None)
        assert body["conversation"] == ({"id": turn.conversation.id} if turn.conversation else None)
        said = "".join(part["text"] for item in body["output"] for part in item["content"])
        assert said == ("" if turn.status == "in_progress" else turn.answer)
        context = self.ask(tenant, "GET", f"{path}/context").json["messages"]
        assert [one["content"] for one in context] == [
            *self.book.context_texts(turn.parent),
            f"ask {turn.number}",
        ]

    @SOME_TURN
    @rule(choice=CHOICE, what=st.sampled_from(["turn", "family", "conversation", "conversation"]))
    def erase(self, choice: Any, what: str) -> None:
        """Seldom enough for something to grow."""
        if what in ("turn", "family"):
            self._delete(*self._turn(choice), cascade=what == "family")
        elif what == "conversation" and self.book.conversations:
            self._close(*self._talk(choice))

    def _delete(self, tenant: str, turn: ReferenceTurn, *, cascade: bool) -> None:
        path = f"/v1/responses/{turn.id}" + ("?cascade=true" if cascade else "")
        answer = self.ask(tenant, "DELETE", path)
        if tenant != turn.tenant or not self.book.exists(turn):
            assert answer.status == 404
            return
        assert answer.status == 200
        self.book.delete(turn, cascade=cascade)
        self._settle_deleted()

    def _settle_deleted(self) -> None:
        """Whoever reads a turn that was erased is told that it is over."""
        for one in list(self.running):
            if one.turn.deleted:
                assert b"[DONE]" in one.reading.read()
                self._over(one, "cancelled")

    @rule(
        seconds=st.sampled_from(
            [1.0, 0.6 * RETENTION_SECONDS, 0.6 * RETENTION_SECONDS, RETENTION_SECONDS]
        ),
        sweep=FLAG,
    )
    def grow_older(self, seconds: float, sweep: bool) -> None:
        # What runs does not grow old before it has ended.
        for one in list(self.running):
            self._release(one, listen=True)
        self.clock.now += seconds
        if sweep:
            ledgers = self.server.service.stores
            assert ledgers is not None
            self.server.run(ledgers.response_index.delete_expired())

    # Conversations.

    def _may_talk(self, tenant: str, talk: ReferenceConversation) -> bool:
        return tenant == talk.tenant and self.book.is_open(talk)

    @precondition(lambda self: sum(map(self.book.is_open, self.book.conversations)) < 3)
    @rule(tenant=TENANTS)
    def open(self, tenant: str) -> None:
        made = self.ask(tenant, "POST", "/v1/conversations").json["id"]
        self.book.conversations.append(ReferenceConversation(tenant, made, self.clock.now))

    def _talk_on(
        self, tenant: str, talk: ReferenceConversation, *, kind: str, stream: bool, store: bool
    ) -> None:
        fields = {"conversation": talk.id}
        if not self._may_talk(tenant, talk):
            self._refused(tenant, fields, 404, "conversation_not_found")
            return
        if store and self.book.is_busy(talk):
            self._refused(tenant, fields, 409, "conversation_locked")
            return
        turn = self._new(tenant, self.book.head(talk), kind, talk if store else None)
        self._take(turn, kind, fields, stream=stream, store=store)

    @SOME_TALK
    @rule(choice=CHOICE)
    def list_items(self, choice: Any) -> None:
        tenant, talk = self._talk(choice)
        answer = self.ask(tenant, "GET", f"/v1/conversations/{talk.id}/items?limit=100&order=asc")
        if not self._may_talk(tenant, talk):
            assert answer.status == 404
            return
        shown = [part["text"] for item in answer.json["data"] for part in item["content"]]
        assert shown == self.book.context_texts(self.book.head(talk))[:100]

    def _close(self, tenant: str, talk: ReferenceConversation) -> None:
        answer = self.ask(tenant, "DELETE", f"/v1/conversations/{talk.id}")
        if not self._may_talk(tenant, talk):
            assert answer.status == 404
            return
        assert answer.status == 200
        self.book.delete_conversation(talk)
        self._settle_deleted()

    @invariant()
    def nothing_failed_unseen(self) -> None:
        if hasattr(self, "server"):
            assert self.server.logged_errors == []

    def teardown(self) -> None:
        if not hasattr(self, "server"):
            return
        try:
            for tenant in ("a", "b"):
                there = {
                    turn.id
                    for turn in self.book.turns
                    if turn.tenant == tenant and self.book.exists(turn)
                }
                listed = self.ask(tenant, "GET", "/v1/responses?limit=100").json["data"]
                assert {one["id"] for one in listed} == there
                talks = self.ask(tenant, "GET", "/v1/conversations?limit=100").json["data"]
                assert {one["id"] for one in talks} == {
                    talk.id for talk in self.book.conversations if self._may_talk(tenant, talk)
                }
            for turn in self.book.turns:
                self._look(turn.tenant, turn)
        finally:
            for one in self.running:
                one.connection.close()
            self.stack.close()
            shutil.rmtree(self.folder)


@pytest.mark.hypothesis
@pytest.mark.parametrize("opener", [in_memory, in_file, in_database])
def test_api_agrees_with_the_reference_model(opener: Callable[[ManualClock, Path], Any]) -> None:
    machine = type("Machine", (Server,), {"opener": staticmethod(opener)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
