"""Stories of whole conversations as plain data, and the model and the tools that play them.

A model that obeys what it is shown needs no script of its own: two services with such
models, one with warm caches and one with cold, have to ask the very same questions.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import msgspec
from hypothesis import strategies as st

from antiphon.core.context_policies import ContextPolicy, Summarize, TokenBudget, Window
from antiphon.core.items import FunctionCall, InputImage, InputText, Item, Message
from antiphon.core.turns import Usage
from antiphon.errors import ContextLengthExceededError, UpstreamRateLimitError
from antiphon.models.scripted import (
    Messages,
    ScriptedModel,
    ScriptedReply,
    call,
    calls,
    cut,
    fail,
    finish,
    hang,
    refuse,
    report_usage,
    say,
    think,
)
from antiphon.turn.protocols import ModelCall, ModelInfo

PNG = "data:image/png;base64,iVBORw0KGgo="
PRIMER = b'{"role":"system","content":"Primed."}'


class ModelInstructions(msgspec.Struct, frozen=True):
    """What the model does in one turn, call by call, for all to read in the user's words.

    ``limit``: it refuses more words than that, and reports how many if ``reports_size``. ``lie``:
    the tokens that it reports, None: its words.
    """

    turn: int
    do: tuple[str, ...] = ()
    limit: int | None = None
    reports_size: bool = True
    lie: int | None = None


class Step(msgspec.Struct, frozen=True):
    """One turn of a story; numbers that choose among what is there go round."""

    do: tuple[str, ...]
    #: Goes on from the response so many before the newest; None: begins anew.
    back: int | None
    padding: int
    limit: int | None
    reports_size: bool
    lie: int | None
    system: bool
    picture: bool
    instructions: str | None
    context: tuple[ContextPolicy, ...]
    truncation: str
    rounds: int
    parallel: bool
    stream: bool
    #: Bits that choose which of the waiting calls are answered, and which approved.
    answers: int
    #: Erases a response before this turn; the flag: its descendants too.
    erases: tuple[int, bool] | None


ACTIONS = [
    *("say", "say", "say", "calls", "calls", "both"),
    *("think", "refuse", "mute", "open", "fail", "cut", "hang", "length", "half", "talk"),
]
#: Some ask in a way that the model takes for a limit, or fails at.
PROMPTS = ["Sum up.", "Sum up.", "Sum up in 30.", "Fail."]


@st.composite
def policies(draw: st.DrawFn) -> tuple[ContextPolicy, ...]:
    summaries = st.builds(
        Summarize,
        max_tokens=st.integers(1, 400),
        max_messages=st.none() | st.integers(1, 12),
        keep_turns=st.integers(0, 3),
        prompt=st.sampled_from(PROMPTS),
    )
    kinds = st.one_of(
        st.builds(Window, st.integers(1, 12)),
        st.builds(TokenBudget, st.integers(5, 120) | st.integers(100, 4000)),
        summaries,
    )
    return tuple(draw(st.lists(kinds, max_size=3)))


STEPS = st.builds(
    Step,
    do=st.lists(st.sampled_from(ACTIONS), max_size=3).map(tuple),
    back=st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, 3, None]),
    padding=st.integers(0, 12),
    limit=st.sampled_from([*[None] * 6, 5, 30, 40, 50, 80, 120]),
    reports_size=st.booleans(),
    lie=st.sampled_from([None, None, None, 0, 1, 40, 300]),
    system=st.integers(0, 5).map(lambda one: one == 5),
    picture=st.integers(0, 7).map(lambda one: one == 7),
    instructions=st.none() | st.just("Be brief."),
    context=policies(),
    truncation=st.sampled_from(["auto", "disabled"]),
    rounds=st.integers(0, 3),
    parallel=st.booleans(),
    stream=st.booleans(),
    answers=st.integers(0, 255),
    erases=st.none() | st.none() | st.tuples(st.integers(0, 9), st.booleans()),
)


@st.composite
def scenarios(draw: st.DrawFn, *, max_steps: int = 9) -> list[Step]:
    """Turns of one conversation and its branches, many of them under the same policies."""
    habit = draw(policies())
    steps = draw(st.lists(STEPS, min_size=1, max_size=max_steps))
    same = draw(
        st.lists(st.sampled_from([True, True, False]), min_size=max_steps, max_size=max_steps)
    )
    return [
        msgspec.structs.replace(step, context=habit) if as_ever else step
        for step, as_ever in zip(steps, same, strict=False)
    ]


def user_items(step: Step, turn: int) -> list[Item]:
    """What the user says in a turn."""
    orders = ModelInstructions(turn, step.do, step.limit, step.reports_size, step.lie)
    text = f"[{turn}] {msgspec.json.encode(orders).decode()}{' word' * step.padding}"
    items: list[Item] = [Message("system", f"[{turn}] rule")] if step.system else []
    if step.picture:
        return [*items, Message("user", (InputText(text), InputImage(PNG)))]
    return [*items, Message("user", text)]


def message_text(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def turn_number(text: str) -> int | None:
    """The number of the turn that a text belongs to."""
    found = re.match(r"\[(\d+)\]", text)
    return int(found[1]) if found else None


def count_words(messages: Messages) -> int:
    return sum(len(message_text(message).split()) for message in messages)


class InstructedModel(ScriptedModel):
    """Obeys the newest of the user's words, and knows nothing but what it is shown.

    ``reached`` is set when it hangs. Without ``counts`` it cannot count tokens.
    """

    def __init__(self, *, counts: bool) -> None:
        super().__init__(self._reply_to, info=ModelInfo("scripted", few_shot=PRIMER))
        self.reached = asyncio.Event()
        self._counts = counts

    async def count_tokens(self, call: ModelCall) -> int | None:
        return await super().count_tokens(call) if self._counts else None

    def _reply_to(self, messages: Messages) -> ScriptedReply:
        place = max(at for at, one in enumerate(messages) if one["role"] == "user")
        text = message_text(messages[place])
        orders = parse_instructions(text) or _summary_instructions(text)
        size = count_words(messages)
        if orders.limit is not None and size > orders.limit:
            numbers = {"used": size, "limit": orders.limit} if orders.reports_size else {}
            return fail(ContextLengthExceededError("Too long.", **numbers))
        done = sum("tool_calls" in one for one in messages[place:])
        deed = orders.do[done] if done < len(orders.do) else "say"
        reply = self._reply_for_action(deed, f"[{orders.turn}] {done}", size)
        return reply if orders.lie is None else reply + report_usage(Usage(orders.lie, 7))

    def _reply_for_action(self, deed: str, mark: str, size: int) -> ScriptedReply:
        spoken = say(f"{mark} of ", f"{size} words")
        return {
            "say": spoken,
            "think": think("Hm, ", mark) + spoken,
            "refuse": refuse(f"{mark} no"),
            "mute": say(""),
            "calls": _work_calls(mark, "ok"),
            "both": spoken + _work_calls(mark, "ok", "ok"),
            "talk": spoken + _work_calls(mark, "ok") + say(f"{mark} behind"),
            "open": _work_calls(mark, "ok", "open"),
            "half": _work_calls(mark, "ok") + finish("length"),
            "length": spoken + finish("length"),
            "cut": spoken + cut(),
            "hang": spoken + hang(self.reached),
            "fail": spoken + fail(UpstreamRateLimitError("Slow down.")),
        }[deed]


def parse_instructions(text: str) -> ModelInstructions | None:
    number = turn_number(text)
    if number is None:
        return None
    fields, _ = json.JSONDecoder().raw_decode(text, text.index("{"))
    return msgspec.convert(fields, ModelInstructions)


def _summary_instructions(prompt: str) -> ModelInstructions:
    """What it does for a summary: its words begin with no turn's number."""
    found = re.search(r"\d+", prompt)
    limit = int(found[0]) if found else None
    return ModelInstructions(-1, ("fail",) if prompt == "Fail." else (), limit)


def _work_calls(mark: str, *ways: str) -> ScriptedReply:
    """Calls whose ids come again and again, as some models make them."""
    return calls(
        *(
            call("work", {"mark": f"{mark}.{at}", "way": way, "steps": at}, call_id=f"call_{at}")
            for at, way in enumerate(ways)
        )
    )


class WorkTools:
    """Answers a call with its own words, or leaves it to a person."""

    async def call_tool(self, call: FunctionCall, *, approved: bool = False) -> str | None:
        arguments = json.loads(call.arguments)
        # The later ones are done first.
        for _ in range(5 - int(arguments["steps"])):
            await asyncio.sleep(0)
        return None if arguments["way"] == "open" and not approved else expected_output(call)


def expected_output(call: FunctionCall) -> str:
    return f"{json.loads(call.arguments)['mark']} done"
