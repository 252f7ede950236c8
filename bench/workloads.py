"""What is asked: scripts for ``bench.load``, and the checks of what they were told."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from bench.history import History, reply_text, streamed_text, user_text
from bench.load import BenchError, Script, get, post
from bench.replies import Dialect, items, response, response_id, streamed, text_of

_PATHS = {"completions": "/v1/chat/completions", "responses": "/v1/responses"}
_encode = msgspec.json.Encoder().encode


def expect(what: str, got: object, wanted: object) -> None:
    """Void the run unless both are the same."""
    if got != wanted:
        raise BenchError(f"{what}: got {got!r}, not {wanted!r}")


class Repeated:
    """One single-message request, asked again and again; ``chunks`` 0: not streamed."""

    def __init__(
        self, dialect: Dialect, *, store: bool = False, chunks: int = 0, pause_ms: int = 0
    ) -> None:
        self.dialect = dialect
        self.chunks = chunks
        self._bodies: list[bytes] = []
        text = user_text(0, 0)
        name = "fake" if not chunks else f"fake-{chunks}" + (f"@{pause_ms}" if pause_ms else "")
        body: dict[str, object] = {"model": name}
        if dialect == "completions":
            body["messages"] = [{"role": "user", "content": text}]
        else:
            body |= {"input": text, "store": store}
        if chunks:
            body["stream"] = True
        self._request = post(_PATHS[dialect], _encode(body))
        history = History()
        history.add("user", text)
        proof = history.proof()
        self._answer = streamed_text(proof, chunks) if chunks else reply_text(proof)

    def scripts(self, connections: int) -> list[Script]:
        return [self._script() for _ in range(connections)]

    def _script(self) -> Script:
        while True:
            self._bodies.append((yield self._request))

    def check(self) -> float:
        """Hold every reply to its text, forget them; events per stream, or 1."""
        events = 0
        asked = len(self._bodies)
        for body in self._bodies:
            if self.chunks:
                text, count = streamed(self.dialect, body)
            else:
                text, count = text_of(self.dialect, body), 1
            expect("a reply", text, self._answer)
            events += count
        self._bodies.clear()
        return events / asked if asked else 0.0


class Conversations:
    """Stored conversations: each turn continues the one before it.

    A connection holds one conversation at a time, ``turns`` long, and then begins the
    next; with ``endless`` False it has only one.
    """

    def __init__(self, turns: int, *, endless: bool = False) -> None:
        self._turns = turns
        self._endless = endless
        self._numbers = itertools.count()
        #: By conversation, the bodies of its replies.
        self.replies: dict[int, list[bytes]] = {}

    def scripts(self, connections: int) -> list[Script]:
        return [self._script() for _ in range(connections)]

    def _script(self) -> Script:
        while True:
            number = next(self._numbers)
            kept = self.replies.setdefault(number, [])
            previous = None
            for turn in range(self._turns):
                asked: dict[str, object] = {"model": "fake", "input": user_text(number, turn)}
                if previous is not None:
                    asked["previous_response_id"] = previous
                body = yield post("/v1/responses", _encode(asked))
                previous = response_id(body)
                kept.append(body)
            if not self._endless:
                return

    def check(self) -> float:
        """Prove by each reply that the model was shown that conversation's exact history."""
        for number, bodies in self.replies.items():
            history = History()
            previous = None
            for turn, body in enumerate(bodies):
                told = response(body)
                history.add("user", user_text(number, turn))
                expect("the chain", told.previous_response_id, previous)
                expect(f"reply {turn}", told.text, reply_text(history.proof()))
                history.add("assistant", told.text)
                previous = told.id
        self.replies.clear()
        return 1.0

    def walks(self, connections: int) -> list[Script]:
        """Scripts that read every finished turn back and compare it with what was said."""
        dealt: list[list[int]] = [[] for _ in range(connections)]
        for place, number in enumerate(self.replies):
            dealt[place % connections].append(number)
        return [self._walk(mine) for mine in dealt if mine]

    def _walk(self, numbers: Sequence[int]) -> Script:
        for number in numbers:
            bodies = self.replies[number]
            at: str | None = response_id(bodies[-1])
            for turn in reversed(range(len(bodies))):
                if at is None:
                    raise BenchError(f"the chain of conversation {number} ends at turn {turn}")
                read = response((yield get(f"/v1/responses/{at}")))
                expect("a stored reply", read.text, response(bodies[turn]).text)
                path = f"/v1/responses/{at}/input_items?order=asc&limit=100"
                listed = items((yield get(path)))
                said = [(item.role, item.text) for item in listed.data]
                expect("the stored input", said, [("user", user_text(number, turn))])
                at = read.previous_response_id
            expect("the root's parent", at, None)


def chat_request(messages: Sequence[tuple[str, str]]) -> bytes:
    """The chat completions request of a whole history of (role, text)."""
    body = {
        "model": "fake",
        "messages": [{"role": role, "content": text} for role, text in messages],
    }
    return post("/v1/chat/completions", _encode(body))
