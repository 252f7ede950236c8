"""A long conversation with random faults: it always continues, and nothing is repeated."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import TypedDict

from antiphon import AntiphonError, ConflictError, ModelError, ToolContext, tool
from support.chat_harness import (
    VARIANTS,
    Call,
    ChatHarness,
    ModelAnswer,
    chat_harness,
    pairing_errors,
)
from support.misbehaving_upstream import (
    CUT,
    DONE,
    HANG,
    Behaviour,
    Request,
    answer,
    chunk,
    events,
    refuse,
    stream,
)

pytestmark = pytest.mark.slow

TURNS = 100
SEND_METHODS = ["send", "typed", "text", "events", "objects", "closed"]
#: A turn is tried again until it succeeds, but not for ever.
MAX_ATTEMPTS = 40
#: Seconds for a turn whose upstream hangs.
HANGING_TIMEOUT = 0.1


class Point(TypedDict):
    x: int
    y: int


class Shop:
    """Three tools that fail in different ways; records the ids of the calls they ran for."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self._lock = threading.Lock()

    def _fails(self, ctx: ToolContext[None]) -> bool:
        with self._lock:
            self.ran.append(ctx.call_id)
        return zlib.crc32(ctx.call_id.encode()) % 3 == 0

    def tools(self) -> list[Any]:
        @tool
        def price(key: str, ctx: ToolContext[None]) -> dict[str, Any]:
            """What something costs; the list is missing at times."""
            if self._fails(ctx):
                raise LookupError(f"no price for {key}")
            return {"key": key, "price": 5}

        @tool(timeout=0.01)
        async def stock(key: str, ctx: ToolContext[None]) -> int:
            """How many there are; the warehouse does not answer at times."""
            if self._fails(ctx):
                await asyncio.Event().wait()
            return 3

        @tool(needs_approval=True)
        def refund(key: str, ctx: ToolContext[None]) -> object:
            """Give money back; the till gives no JSON at times."""
            return object() if self._fails(ctx) else f"refunded {key}"

        return [price, stock, refund]


class FaultyUpstreamPlan:
    """Plans upstream answers, valid and invalid. Keys, ids and answers are unique, also the
    ones of odd chunks: an odd shape with one meaning becomes an answer."""

    def __init__(self, generator: random.Random) -> None:
        self.generator = generator
        self._number = 0

    def answers(self) -> list[Any]:
        """The answers for one turn: rounds of calls, a final answer, and perhaps a fault."""
        plan: list[Any] = [self._calls() for _ in range(self.generator.choice([0, 0, 1, 1, 2]))]
        plan.append(
            ModelAnswer(self._words(), finish=self.generator.choice(["", "", "", "length", "odd"]))
        )
        if self.generator.random() < 0.5:
            fault = self.generator.choice([self._busy, self._broken, self._cut])
            position = self.generator.randrange(len(plan) + 1)
            # After three faults there is no further retry.
            plan[position:position] = [fault() for _ in range(self.generator.choice([1, 1, 3]))]
        # Where a faulty answer was accepted, another answer may be requested.
        return plan + [ModelAnswer(f"Answer {self._next()}.") for _ in range(6)]

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _words(self) -> str:
        number = self._next()
        good = json.dumps({"x": number, "y": 0})
        return self.generator.choice([f"Answer {number}.", good, good, ""])

    def _calls(self) -> ModelAnswer:
        calls = [self._call() for _ in range(self.generator.choice([1, 1, 2, 3]))]
        if self.generator.random() < 0.1:
            calls.append(calls[0])
        return ModelAnswer(self.generator.choice(["", f"Look {self._next()}."]), tuple(calls))

    def _call(self) -> Call:
        key = f"k{self._next()}"
        name = self.generator.choice(["price", "stock", "refund"])
        arguments: dict[str, Any] | str = {"key": key}
        if self.generator.random() < 0.3:
            wrong: list[tuple[str, dict[str, Any] | str]] = [
                ("browse", {"key": key}),
                ("", {"key": key}),
                (name, '{"city" "Rome"}'),
                (name, ""),
                (name, "null"),
                (name, "[" * 2000),
                (name, {"kee": key}),
                (name, {"key": [key]}),
                (name, '{"key": "\\ud83d"}'),
            ]
            name, arguments = self.generator.choice(wrong)
        return Call(name, arguments, f"call_{self._next()}")

    def _busy(self) -> Behaviour:
        return refuse(
            self.generator.choice([408, 429, 500, 502, 503]),
            self.generator.choice([None, {}, [], {"error": "No."}]),
            self.generator.choice([None, {"Retry-After": "1"}, {"Retry-After": "soon"}]),
        )

    def _cut(self) -> Any:
        begun = events(chunk(role="assistant", content=""), chunk(content=f"Half {self._next()}"))
        call = Call("price", {"key": f"k{self._next()}"}, f"call_{self._next()}").wire(0)
        begun += self.generator.choice([[], events(chunk(tool_calls=[call]))])
        return self._by_mode(stream(*begun, end=CUT), [CUT])

    def _broken(self) -> Any:
        nameless = {"index": -1, "id": f"call_{self._next()}", "function": {"name": ""}}
        invalid_chunk: Any = self.generator.choice(
            [
                b"{nonsense",
                b"\xff\xfe",
                b"[]",
                b'{"error": {"message": "No."}}',
                {"choices": None},
                {"choices": [{"index": 0, "delta": "Hello."}]},
                {"choices": [{"index": 0, "delta": {"content": self._next()}}]},
                {"choices": [{"index": "a", "delta": {"content": f"Hi {self._next()}"}}]},
                chunk(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
                chunk(tool_calls=[{"index": 0, "id": 7, "function": {"name": 7}}]),
                chunk(tool_calls=[nameless]),
                DONE,
            ]
        )
        body = (
            invalid_chunk
            if isinstance(invalid_chunk, bytes)
            else json.dumps(invalid_chunk).encode()
        )
        half = events(chunk(content=f"Half {self._next()}"))
        end = self.generator.choice([[], events(DONE), events(chunk("stop"), DONE)])
        begun = self.generator.choice([[], half])
        return self._by_mode(stream(*begun, *events(body), *end), answer(body))

    def hanging(self) -> Any:
        half = stream(*events(chunk(content=f"Half {self._next()}")), end=HANG)
        return self._by_mode(self.generator.choice([[HANG], half]), [HANG])

    @staticmethod
    def _by_mode(streamed: Behaviour, whole: Behaviour) -> Callable[[Request], Behaviour]:
        return lambda request: list(streamed if request.json.get("stream") else whole)


class Soak:
    """Runs the conversation, and checks its invariants."""

    def __init__(self, harness: ChatHarness, seed: int) -> None:
        self.harness = harness
        self.generator = random.Random(seed)
        self.upstream_plan = FaultyUpstreamPlan(self.generator)
        self.shop = Shop()
        self.tools = self.shop.tools()
        #: The same file with another engine, which has cached no turns.
        self.other_settings = harness.make_settings(context=1_000_000)
        self.chat = harness.new(tools=self.tools, instructions="Be brief.")
        self.user_texts: list[str] = []
        self.outcomes: Counter[str] = Counter()
        #: Calls that were approved in a failed turn: they are decided again.
        self.retried_ids: set[str] = set()

    def turn(self, number: int) -> None:
        """Sends a message until a turn succeeds."""
        for _ in range(MAX_ATTEMPTS):
            if self.attempt(f"Turn {number}."):
                return
        pytest.fail(f"turn {number} never succeeded: {self.outcomes}")

    def attempt(self, text: str) -> bool:
        """Sends a message by a random method; returns whether the turn succeeded."""
        chat, plan = self.chat, self.upstream_plan.answers()
        if self.generator.random() < 0.08:
            plan.insert(self.generator.choice([0, 0, 1]), self.upstream_plan.hanging())
            chat = self.resumed(timeout=HANGING_TIMEOUT)
        method = self.generator.choice(SEND_METHODS)
        head, decisions = chat.response_id, self.decisions(chat)
        self.harness.upstream.planned_answers.clear()
        self.harness.upstream.plan_answers(*plan)
        failed: AntiphonError | None = None
        try:
            self.say(chat, method, text, decisions)
        except ConflictError as error:
            # Its answer did not fit, but the calls were decided on: it goes on from there.
            self.outcomes[error.code] += 1
            self.chat = self.harness.resume(str(error.response_id), tools=self.tools)
            self.user_texts.append(text)
            return True
        except AntiphonError as error:
            failed = error
        self.outcomes[failed.code if failed else method] += 1
        if failed is not None:
            assert isinstance(failed, ModelError)
            assert self.harness.response(failed.response_id).end is not None
        if chat.response_id == head:
            # A turn that failed before its stream was closed raises nothing.
            assert failed is not None or method == "closed"
            self.retried_ids.update(decisions)
            return False
        assert failed is None
        self.user_texts.append(text)
        self.chat = chat
        return True

    def decisions(self, chat: Any) -> dict[str, bool | str]:
        answers: list[bool | str] = [True, True, False, "too late"]
        return {call.call_id: self.generator.choice(answers) for call in chat.pending()}

    def say(self, chat: Any, method: str, text: str, decisions: dict[str, bool | str]) -> None:
        options: dict[str, Any] = {"decisions": decisions}
        if method in ("typed", "objects"):
            options["returns"] = Point
        if method in ("send", "typed"):
            chat.send(text, **options)
            return
        with chat.stream(text, **options) as talk:
            reader = {"text": lambda: talk, "objects": talk.objects}.get(method, talk.events)()
            limit = self.generator.randrange(1, 12) if method == "closed" else None
            for _ in itertools.islice(reader, limit):
                pass

    def resumed(self, **options: Any) -> Any:
        """The conversation as another program resumes it."""
        head = self.chat.response_id
        if head is None:
            return self.harness.new(tools=self.tools, instructions="Be brief.", **options)
        return self.harness.resume(head, tools=self.tools, **options)

    def check(self) -> None:
        chat, other = self.chat, self.resumed(settings=self.other_settings)
        history, items, pending = chat.messages(), chat.items(), chat.pending()
        assert (other.messages(), other.items(), other.pending()) == (history, items, pending)
        assert history == chat.context() == other.context()
        user_texts = [one["content"] for one in history if one["role"] == "user"]
        assert [text for text in user_texts if text.startswith("Turn ")] == self.user_texts
        if not pending:
            assert pairing_errors(history) == []
        check_unique(
            [one["content"] for one in history if one["role"] == "assistant" and one["content"]]
        )
        check_unique([call["id"] for one in history for call in one.get("tool_calls", ())])
        check_unique([call_id for call_id in self.shop.ran if call_id not in self.retried_ids])
        if self.generator.random() < 0.2:
            self.chat = other


def check_unique(values: list[str]) -> None:
    assert [value for value, times in Counter(values).items() if times > 1] == []


@pytest.mark.parametrize("twin", VARIANTS)
def test_long_conversation_survives_random_faults(twin: str, tmp_path: Path) -> None:
    with chat_harness(twin, tmp_path) as harness:
        soak = Soak(harness, seed=VARIANTS.index(twin))
        for number in range(TURNS):
            soak.turn(number)
            soak.check()
        # Each method was used, and not each attempt succeeded.
        assert set(SEND_METHODS) < set(soak.outcomes)
        assert sum(soak.outcomes.values()) > TURNS
        assert soak.shop.ran
