"""A long conversation on bad days: whatever fails, it can go on, and nothing is said twice."""

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

from antiphon import AntiphonError, ModelError, ToolContext, tool
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
WAYS = ["send", "typed", "text", "events", "objects", "closed"]
#: A turn is tried again until it succeeds, but not for ever.
TRIES = 40
#: Seconds for a turn whose upstream hangs.
PATIENCE = 0.1


class Point(TypedDict):
    x: int
    y: int


class Shop:
    """Three tools that fail in their own ways, and the ids of the calls they were run for."""

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


class Day:
    """Plans what the upstream answers, from good to absurd. Keys, ids and answers are unique."""

    def __init__(self, luck: random.Random) -> None:
        self.luck = luck
        self._number = 0

    def answers(self) -> list[Any]:
        """For one turn: rounds of calls, an answer, and perhaps a fault somewhere."""
        plan: list[Any] = [self._calls() for _ in range(self.luck.choice([0, 0, 1, 1, 2]))]
        plan.append(
            ModelAnswer(self._words(), finish=self.luck.choice(["", "", "", "length", "odd"]))
        )
        if self.luck.random() < 0.5:
            fault = self.luck.choice([self._busy, self._broken, self._cut])
            place = self.luck.randrange(len(plan) + 1)
            # The third of three is not tried again.
            plan[place:place] = [fault() for _ in range(self.luck.choice([1, 1, 3]))]
        # Where a fault ended no answer but was taken for one, another may be asked for.
        return plan + [ModelAnswer(f"Answer {self._next()}.") for _ in range(6)]

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _words(self) -> str:
        number = self._next()
        good = json.dumps({"x": number, "y": 0})
        return self.luck.choice([f"Answer {number}.", good, good, ""])

    def _calls(self) -> ModelAnswer:
        calls = [self._call() for _ in range(self.luck.choice([1, 1, 2, 3]))]
        if self.luck.random() < 0.1:
            calls.append(calls[0])
        return ModelAnswer(self.luck.choice(["", f"Look {self._next()}."]), tuple(calls))

    def _call(self) -> Call:
        key = f"k{self._next()}"
        name = self.luck.choice(["price", "stock", "refund"])
        arguments: dict[str, Any] | str = {"key": key}
        if self.luck.random() < 0.3:
            wrong: list[tuple[str, dict[str, Any] | str]] = [
                ("browse", {"key": key}),
                ("", {"key": key}),
                (name, "{"),
                (name, ""),
                (name, "null"),
                (name, "[" * 2000),
                (name, {"kee": key}),
                (name, {"key": [key]}),
                (name, '{"key": "\\ud83d"}'),
            ]
            name, arguments = self.luck.choice(wrong)
        return Call(name, arguments, f"call_{self._next()}")

    def _busy(self) -> Behaviour:
        return refuse(
            self.luck.choice([408, 429, 500, 502, 503]),
            self.luck.choice([None, {}, [], {"error": "No."}]),
            self.luck.choice([None, {"Retry-After": "1"}, {"Retry-After": "soon"}]),
        )

    def _cut(self) -> Any:
        begun = events(chunk(role="assistant", content=""), chunk(content=f"Half {self._next()}"))
        call = Call("price", {"key": f"k{self._next()}"}, f"call_{self._next()}").wire(0)
        begun += self.luck.choice([[], events(chunk(tool_calls=[call]))])
        return self._by_mode(stream(*begun, end=CUT), [CUT])

    def _broken(self) -> Any:
        nameless = {"index": -1, "id": f"call_{self._next()}", "function": {"name": ""}}
        odd: Any = self.luck.choice(
            [
                b"{nonsense",
                b"\xff\xfe",
                b"[]",
                b'{"error": {"message": "No."}}',
                {"choices": None},
                {"choices": [{"index": 0, "delta": "Hello."}]},
                {"choices": [{"index": 0, "delta": {"content": 5}}]},
                {"choices": [{"index": "a", "delta": {"content": "Hi"}}]},
                chunk(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
                chunk(tool_calls=[{"index": 0, "id": 7, "function": {"name": 7}}]),
                chunk(tool_calls=[nameless]),
                DONE,
            ]
        )
        body = odd if isinstance(odd, bytes) else json.dumps(odd).encode()
        half = events(chunk(content=f"Half {self._next()}"))
        end = self.luck.choice([[], events(DONE), events(chunk("stop"), DONE)])
        begun = self.luck.choice([[], half])
        return self._by_mode(stream(*begun, *events(body), *end), answer(body))

    def hanging(self) -> Any:
        half = stream(*events(chunk(content=f"Half {self._next()}")), end=HANG)
        return self._by_mode(self.luck.choice([[HANG], half]), [HANG])

    @staticmethod
    def _by_mode(streamed: Behaviour, whole: Behaviour) -> Callable[[Request], Behaviour]:
        return lambda request: list(streamed if request.json.get("stream") else whole)


class Soak:
    """The conversation, and what must be true of it."""

    def __init__(self, stage: ChatHarness, seed: int) -> None:
        self.stage = stage
        self.luck = random.Random(seed)
        self.day = Day(self.luck)
        self.shop = Shop()
        self.tools = self.shop.tools()
        #: The same file by another engine, which remembers nothing of the turns of the first.
        self.elsewhere = stage.make_settings(context=1_000_000)
        self.chat = stage.new(tools=self.tools, instructions="Be brief.")
        self.said: list[str] = []
        self.outcomes: Counter[str] = Counter()
        #: Calls that were agreed to in a turn that failed: they are decided again.
        self.decided: set[str] = set()

    def turn(self, number: int) -> None:
        """Say something until the conversation has gone on."""
        for _ in range(TRIES):
            if self.attempt(f"Turn {number}."):
                return
        pytest.fail(f"turn {number} never succeeded: {self.outcomes}")

    def attempt(self, text: str) -> bool:
        """Say it in one of the ways there are, and see whether the conversation has gone on."""
        chat, plan = self.chat, self.day.answers()
        if self.luck.random() < 0.08:
            plan.insert(self.luck.choice([0, 0, 1]), self.day.hanging())
            chat = self.resumed(timeout=PATIENCE)
        way = self.luck.choice(WAYS)
        head, decisions = chat.response_id, self.decisions(chat)
        self.stage.upstream.planned_answers.clear()
        self.stage.upstream.plan_answers(*plan)
        failed: AntiphonError | None = None
        try:
            self.say(chat, way, text, decisions)
        except AntiphonError as error:
            failed = error
        self.outcomes[failed.code if failed else way] += 1
        if failed is not None:
            assert isinstance(failed, ModelError)
            assert self.stage.response(failed.response_id).end is not None
        if chat.response_id == head:
            # One that failed before it was closed has nobody to tell.
            assert failed is not None or way == "closed"
            self.decided.update(decisions)
            return False
        assert failed is None
        self.said.append(text)
        self.chat = chat
        return True

    def decisions(self, chat: Any) -> dict[str, bool | str]:
        answers: list[bool | str] = [True, True, False, "too late"]
        return {call.call_id: self.luck.choice(answers) for call in chat.pending()}

    def say(self, chat: Any, way: str, text: str, decisions: dict[str, bool | str]) -> None:
        options: dict[str, Any] = {"decisions": decisions}
        if way in ("typed", "objects"):
            options["returns"] = Point
        if way in ("send", "typed"):
            chat.send(text, **options)
            return
        with chat.stream(text, **options) as talk:
            reader = {"text": lambda: talk, "objects": talk.objects}.get(way, talk.events)()
            enough = self.luck.randrange(1, 12) if way == "closed" else None
            for _ in itertools.islice(reader, enough):
                pass

    def resumed(self, **options: Any) -> Any:
        """As another program would find it."""
        head = self.chat.response_id
        if head is None:
            return self.stage.new(tools=self.tools, instructions="Be brief.", **options)
        return self.stage.resume(head, tools=self.tools, **options)

    def check(self) -> None:
        chat, other = self.chat, self.resumed(settings=self.elsewhere)
        history, items, pending = chat.messages(), chat.items(), chat.pending()
        assert (other.messages(), other.items(), other.pending()) == (history, items, pending)
        assert history == chat.context() == other.context()
        said = [one["content"] for one in history if one["role"] == "user"]
        assert [text for text in said if text.startswith("Turn ")] == self.said
        if not pending:
            assert pairing_errors(history) == []
        once([one["content"] for one in history if one["role"] == "assistant" and one["content"]])
        once([call["id"] for one in history for call in one.get("tool_calls", ())])
        once([call_id for call_id in self.shop.ran if call_id not in self.decided])
        if self.luck.random() < 0.2:
            self.chat = other


def once(things: list[str]) -> None:
    print([x for x, n in Counter(things).items() if n > 1]) if len(set(things)) < len(things) else 0
    assert [thing for thing, times in Counter(things).items() if times > 1] == []


@pytest.mark.parametrize("twin", VARIANTS)
def test_a_long_conversation_on_bad_days(twin: str, tmp_path: Path) -> None:
    with chat_harness(twin, tmp_path) as stage:
        soak = Soak(stage, seed=VARIANTS.index(twin))
        for number in range(TURNS):
            soak.turn(number)
            soak.check()
        # It was a bad day: each way was taken, and not each led on.
        assert set(WAYS) < set(soak.outcomes)
        assert sum(soak.outcomes.values()) > TURNS
        assert soak.shop.ran
