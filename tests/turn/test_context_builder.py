"""Context of one model call: counted by the model if it can count, estimated otherwise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.context_policies import ContextPolicy, Summarize, TokenBudget, Window
from antiphon.core.items import FunctionCallOutput, Message
from antiphon.core.turns import FunctionTool, Header, Options, Usage
from antiphon.errors import ContextLengthExceededError
from antiphon.models.scripted import ScriptedModel, call, calls, report_usage, say
from antiphon.turn.context_builder import ContextBuilder, ModelContext
from antiphon.turn.history_cache import History
from antiphon.turn.message_rendering import RenderedTurn, render_turn
from antiphon.turn.protocols import ModelCall, ModelInfo
from antiphon.turn.trimming import base_tokens, estimate_tokens, required_turns, tokens_of
from support.chain_strategies import check_whole_turns, groups_of, histories
from support.conversation_scenarios import count_words as words_in
from support.turn_service import UncountedModel, contents, run, run_turn, service_with, turn_request

no_deadline = settings(deadline=None)

HEADER = Header("scripted", "Be brief.", Options(tools=(FunctionTool("f", "Looks it up."),)))
PRIMER = b'{"role":"user","content":"Hi."},{"role":"assistant","content":"Hello there."}'
INFO = ModelInfo("scripted", few_shot=PRIMER)


class CountingModel(ScriptedModel):
    """A model that records each call whose tokens it counts."""

    def __init__(self) -> None:
        super().__init__(info=INFO)
        self.counted: list[ModelCall] = []

    async def count_tokens(self, call: ModelCall) -> int | None:
        self.counted.append(call)
        return await super().count_tokens(call)


def rendered_turn(text: str, answer: str = "Yes.", *, tokens: int | None = None) -> RenderedTurn:
    segment = render_turn([Message("user", text), Message("assistant", answer)])
    return msgspec.structs.replace(segment, tokens=tokens)


def build_context(
    segments: Sequence[RenderedTurn], *context: ContextPolicy, model: ScriptedModel | None = None
) -> ModelContext:
    builder = ContextBuilder(HEADER, model or CountingModel(), context)
    shown = run(builder.build(History(tuple(segments[:-1]), 1000), segments[-1]))
    return msgspec.structs.replace(shown, turns=list(shown.turns))


def counted_tokens(segments: Sequence[RenderedTurn]) -> int:
    """The tokens that the model counts for a call with these turns."""
    question = ContextBuilder(HEADER, CountingModel(), ()).model_call(
        segments, HEADER, stream=False
    )
    return words_in(json.loads(question.messages))


BASE = base_tokens(HEADER, PRIMER)


# Without a policy, or without a budget.


def test_without_policies_the_whole_history_is_sent_uncounted() -> None:
    model, history = CountingModel(), [rendered_turn("0"), rendered_turn("1")]
    assert build_context(history, model=model) == ModelContext(history, BASE + 1000)
    assert model.counted == []


def test_window_does_not_count_tokens() -> None:
    model = CountingModel()
    history = [
        rendered_turn("0", tokens=50),
        rendered_turn("1", tokens=7),
        rendered_turn("2", tokens=9),
    ]
    view = build_context(history, Window(4), Summarize(max_tokens=1), model=model)
    assert view == ModelContext(history[1:], BASE + 7)
    assert model.counted == []


def test_model_call_has_instructions_then_few_shot_then_turns() -> None:
    builder = ContextBuilder(HEADER, CountingModel(), ())
    later = Header("other", "Changed.", Options(seed=1))
    question = builder.model_call([rendered_turn("0")], later, stream=True)
    assert (question.model, question.options, question.stream) == ("other", Options(seed=1), True)
    message_texts = [one["content"] for one in json.loads(question.messages)]
    assert message_texts == ["Changed.", "Hi.", "Hello there.", "0", "Yes."]


# Budgets, with a model that counts.


@no_deadline
@given(histories(), st.integers(1, 60), st.none() | st.integers(1, 12))
def test_counted_context_never_exceeds_token_budget(
    everything: list[RenderedTurn], budget: int, window: int | None
) -> None:
    """Whatever usage was reported for earlier turns, and however wrong the estimates are."""
    context: list[ContextPolicy] = [TokenBudget(budget), *([Window(window)] if window else [])]
    smallest = counted_tokens(required_turns(everything))
    if smallest > budget:
        with pytest.raises(ContextLengthExceededError) as caught:
            build_context(everything, *context)
        assert (caught.value.used, caught.value.limit) == (smallest, budget)
        return
    view = build_context(everything, *context)
    check_whole_turns(everything, view.turns)
    assert counted_tokens(view.turns) <= budget
    assert view.other_tokens == BASE + sum(tokens_of(one) for one in view.turns[:-1])


@no_deadline
@given(histories(), st.integers(0, 40))
def test_accurate_usage_reports_fill_the_token_budget(
    everything: list[RenderedTurn], room: int
) -> None:
    sizes = [counted_tokens(everything[:end]) for end in range(len(everything) + 1)]
    # System messages would stay, at an estimate.
    reported = [
        msgspec.structs.replace(one, system=b"", tokens=after - before)
        for one, before, after in zip(everything, sizes, sizes[1:], strict=False)
    ]
    budget = counted_tokens(required_turns(reported)) + room
    shown = list(build_context(reported, TokenBudget(budget)).turns)
    older = groups_of(reported)[: -len(groups_of(shown))]
    assert counted_tokens(shown) <= budget
    assert not older or counted_tokens([*older[-1], *shown]) > budget, "one more would have fitted"


def test_count_includes_instructions_few_shot_and_tools() -> None:
    model, history = CountingModel(), [rendered_turn("0"), rendered_turn("one two three")]
    # Two instructions, three of the primer, four of the turn.
    assert counted_tokens([history[-1]]) == 9
    with pytest.raises(ContextLengthExceededError):
        build_context(history, TokenBudget(8), model=model)
    assert build_context(history, TokenBudget(9)).turns == history[1:]
    assert build_context(history, TokenBudget(10)).turns == history[1:]
    small = rendered_turn("0", tokens=2)
    assert build_context([small, history[1]], TokenBudget(11)).turns == [small, history[1]]
    assert all(one.options == HEADER.options for one in model.counted), "tools count too"


def test_too_low_usage_report_is_corrected_by_counting() -> None:
    """Turns that fit by their reported usage are dropped until the count fits."""
    history = [rendered_turn(f"{n} {'word ' * 20}", tokens=1) for n in range(5)]
    shown = build_context(history, TokenBudget(60)).turns
    assert counted_tokens(shown) <= 60 < counted_tokens(history)
    assert shown == history[-len(shown) :]


# Budgets, with a model that does not.


@no_deadline
@given(histories(), st.integers(1, 600))
def test_estimated_context_stays_within_token_budget(
    everything: list[RenderedTurn], budget: int
) -> None:
    smallest = BASE + sum(map(tokens_of, required_turns(everything)))
    model = UncountedModel(info=INFO)
    if smallest > budget:
        with pytest.raises(ContextLengthExceededError) as caught:
            build_context(everything, TokenBudget(budget), model=model)
        assert (caught.value.used, caught.value.limit) == (smallest, budget)
        return
    view = build_context(everything, TokenBudget(budget), model=model)
    check_whole_turns(everything, view.turns)
    assert BASE + sum(map(tokens_of, view.turns)) <= budget


@no_deadline
@given(histories(), st.lists(st.builds(Window, st.integers(1, 9)), max_size=2), st.integers(0, 40))
def test_building_a_context_is_idempotent(
    everything: list[RenderedTurn], windows: list[Window], room: int
) -> None:
    counted = room % 2 == 0
    # Images are heavy.
    budget = counted_tokens(required_turns(everything)) + room if counted else 30_000
    context: list[ContextPolicy] = [*windows, TokenBudget(budget)]
    model = ScriptedModel(info=INFO) if counted else UncountedModel(info=INFO)
    once = build_context(everything, *context, model=model)
    assert build_context(everything, *context, model=model) == once
    assert [one.messages for one in build_context(once.turns, *context, model=model).turns] == [
        one.messages for one in once.turns
    ]


# In a conversation.


@pytest.mark.parametrize("kind", [ScriptedModel, UncountedModel])
async def test_turn_tokens_come_from_reported_usage(kind: type[ScriptedModel]) -> None:
    reports = [(20, 4), (30, 6), (50, 5)]
    model = kind([say("Yes.") + report_usage(Usage(*one)) for one in reports])
    service = service_with(model)
    after = None
    for number in range(3):
        response = await run_turn(service, f"{number}", after=after)
        after = response.id
        took = response.end.tokens if response.end else None
        # Input and output tokens, less those of the earlier turns.
        assert took == (24, 12, 19)[number]


def message_contents(shown: list[dict[str, Any]]) -> list[Any]:
    return [one["content"] for one in shown]


@pytest.mark.parametrize("kind", [ScriptedModel, UncountedModel])
@pytest.mark.parametrize(
    "context",
    [
        (),
        (Window(3),),
        (Window(1),),
        (TokenBudget(16),),
        (TokenBudget(7),),
        (TokenBudget(70),),
        (TokenBudget(25), Window(6)),
        (Window(4), TokenBudget(400)),
    ],
)
async def test_preview_context_matches_the_next_model_call(
    context: tuple[ContextPolicy, ...], kind: type[ScriptedModel]
) -> None:
    model = kind(["a b c"] * 9)
    service, after = service_with(model), None
    for number in range(5):
        after = (await run_turn(service, f"{number} is my question", after=after)).id
    more: dict[str, Any] = {"after": after, "instructions": "Be brief."}
    shown = await service.preview_context(turn_request(**more, context_policies=context))
    # Room for the next input: one message, and as many tokens as it is estimated to have.
    room = (
        estimate_tokens(render_turn([Message("user", "?")]).weight) if kind is UncountedModel else 1
    )
    roomy = [
        Window(one.max_messages + 1)
        if isinstance(one, Window)
        else TokenBudget(one.max_tokens + room)
        for one in context
        if isinstance(one, Window | TokenBudget)
    ]
    await run_turn(service, "?", **more, context_policies=tuple(roomy))
    assert model.context() == [*shown, {"role": "user", "content": "?"}]


async def test_preview_omits_a_turn_larger_than_the_budget() -> None:
    """The next input need not be sent together with it."""
    service = service_with(ScriptedModel(["word " * 30, "Yes."]))
    first = await run_turn(service, "Go on.", context_policies=(TokenBudget(20),))
    request = turn_request("Short.", after=first.id, context_policies=(TokenBudget(20),))
    assert await service.preview_context(request) == []
    response = await (await service.start(request)).result()
    assert response.status == "completed"


async def test_preview_keeps_an_open_call_and_its_turn() -> None:
    """The call's output comes next, so the call stays, without an interrupted output."""
    model = ScriptedModel(["Yes.", calls(call("f", {}, call_id="c")), "Done."])
    service = service_with(model)
    first = await run_turn(service, "Hi.")
    second = await run_turn(service, "Weather?", after=first.id)
    request = turn_request(after=second.id, context_policies=(Window(1),))
    shown = await service.preview_context(request)
    assert message_contents(shown) == ["Weather?", ""]
    output = FunctionCallOutput("c", "Sunny.")
    await run_turn(service, output, after=second.id, context_policies=(Window(1),))
    assert contents(model) == ["Weather?", "", "Sunny."]
