"""What one call shows: counted by the model where it can count, and estimated where not."""

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
from antiphon.turn.message_rendering import RenderedTurn, render_turn
from antiphon.turn.protocols import ModelCall, ModelInfo
from antiphon.turn.trimming import base_tokens, estimate_tokens, required_turns, tokens_of
from support.chain_strategies import check_whole_turns, groups_of, histories
from support.conversation_scenarios import count_words as words_in
from support.turn_service import UncountedModel, contents, run, run_turn, service_with, turn_request

unhurried = settings(deadline=None)

HEADER = Header("scripted", "Be brief.", Options(tools=(FunctionTool("f", "Looks it up."),)))
PRIMER = b'{"role":"user","content":"Hi."},{"role":"assistant","content":"Hello there."}'
INFO = ModelInfo("scripted", few_shot=PRIMER)


class CountingModel(ScriptedModel):
    """Remembers what it was asked to count."""

    def __init__(self) -> None:
        super().__init__(info=INFO)
        self.counted: list[ModelCall] = []

    async def count_tokens(self, call: ModelCall) -> int | None:
        self.counted.append(call)
        return await super().count_tokens(call)


def turn_of(text: str, answer: str = "Yes.", *, tokens: int | None = None) -> RenderedTurn:
    segment = render_turn([Message("user", text), Message("assistant", answer)])
    return msgspec.structs.replace(segment, tokens=tokens)


def viewed(
    segments: Sequence[RenderedTurn], *context: ContextPolicy, model: ScriptedModel | None = None
) -> ModelContext:
    viewer = ContextBuilder(HEADER, model or CountingModel(), context)
    return run(viewer.build(segments, 1000))


def words(segments: Sequence[RenderedTurn]) -> int:
    """What the model counts when it is shown these turns."""
    question = ContextBuilder(HEADER, CountingModel(), ()).model_call(
        segments, HEADER, stream=False
    )
    return words_in(json.loads(question.messages))


BASE = base_tokens(HEADER, PRIMER)


# Without a policy, or without a budget.


def test_without_policies_all_is_shown_and_nobody_counts() -> None:
    model, history = CountingModel(), [turn_of("0"), turn_of("1")]
    assert viewed(history, model=model) == ModelContext(history, BASE + 1000)
    assert model.counted == []


def test_a_window_needs_no_counting() -> None:
    model = CountingModel()
    history = [turn_of("0", tokens=50), turn_of("1", tokens=7), turn_of("2", tokens=9)]
    view = viewed(history, Window(4), Summarize(max_tokens=1), model=model)
    assert view == ModelContext(history[1:], BASE + 7)
    assert model.counted == []


def test_a_call_shows_instructions_then_the_primer_then_the_turns() -> None:
    viewer = ContextBuilder(HEADER, CountingModel(), ())
    later = Header("other", "Changed.", Options(seed=1))
    question = viewer.model_call([turn_of("0")], later, stream=True)
    assert (question.model, question.options, question.stream) == ("other", Options(seed=1), True)
    said = [one["content"] for one in json.loads(question.messages)]
    assert said == ["Changed.", "Hi.", "Hello there.", "0", "Yes."]


# Budgets, with a model that counts.


@unhurried
@given(histories(), st.integers(1, 60), st.none() | st.integers(1, 12))
def test_a_model_that_counts_is_never_shown_more_than_the_budget(
    everything: list[RenderedTurn], budget: int, window: int | None
) -> None:
    """Whatever was reported of the turns before, and however wrong the estimates are."""
    context: list[ContextPolicy] = [TokenBudget(budget), *([Window(window)] if window else [])]
    smallest = words(required_turns(everything))
    if smallest > budget:
        with pytest.raises(ContextLengthExceededError) as caught:
            viewed(everything, *context)
        assert (caught.value.used, caught.value.limit) == (smallest, budget)
        return
    view = viewed(everything, *context)
    check_whole_turns(everything, view.turns)
    assert words(view.turns) <= budget
    assert view.other_tokens == BASE + sum(tokens_of(one) for one in view.turns[:-1])


@unhurried
@given(histories(), st.integers(0, 40))
def test_where_reports_are_true_the_budget_is_used(
    everything: list[RenderedTurn], room: int
) -> None:
    sizes = [words(everything[:end]) for end in range(len(everything) + 1)]
    # System messages would stay, at an estimate.
    told = [
        msgspec.structs.replace(one, system=b"", tokens=after - before)
        for one, before, after in zip(everything, sizes, sizes[1:], strict=False)
    ]
    budget = words(required_turns(told)) + room
    shown = list(viewed(told, TokenBudget(budget)).turns)
    older = groups_of(told)[: -len(groups_of(shown))]
    assert words(shown) <= budget
    assert not older or words([*older[-1], *shown]) > budget, "one more would have fitted"


def test_words_are_counted_with_all_that_surrounds_them() -> None:
    model, history = CountingModel(), [turn_of("0"), turn_of("one two three")]
    # Two instructions, three of the primer, four of the turn.
    assert words([history[-1]]) == 9
    with pytest.raises(ContextLengthExceededError):
        viewed(history, TokenBudget(8), model=model)
    assert viewed(history, TokenBudget(9)).turns == history[1:]
    assert viewed(history, TokenBudget(10)).turns == history[1:]
    small = turn_of("0", tokens=2)
    assert viewed([small, history[1]], TokenBudget(11)).turns == [small, history[1]]
    assert all(one.options == HEADER.options for one in model.counted), "tools count too"


def test_a_report_that_was_too_low_is_made_up_for() -> None:
    """Turns that would fit by what was reported go until the count says so."""
    history = [turn_of(f"{n} {'word ' * 20}", tokens=1) for n in range(5)]
    shown = viewed(history, TokenBudget(60)).turns
    assert words(shown) <= 60 < words(history)
    assert shown == history[-len(shown) :]


# Budgets, with a model that does not.


@unhurried
@given(histories(), st.integers(1, 600))
def test_without_a_count_an_estimate_stays_within_the_budget(
    everything: list[RenderedTurn], budget: int
) -> None:
    smallest = BASE + sum(map(tokens_of, required_turns(everything)))
    model = UncountedModel(info=INFO)
    if smallest > budget:
        with pytest.raises(ContextLengthExceededError) as caught:
            viewed(everything, TokenBudget(budget), model=model)
        assert (caught.value.used, caught.value.limit) == (smallest, budget)
        return
    view = viewed(everything, TokenBudget(budget), model=model)
    check_whole_turns(everything, view.turns)
    assert BASE + sum(map(tokens_of, view.turns)) <= budget


@unhurried
@given(histories(), st.lists(st.builds(Window, st.integers(1, 9)), max_size=2), st.integers(0, 40))
def test_a_view_of_a_view_is_the_same(
    everything: list[RenderedTurn], windows: list[Window], room: int
) -> None:
    counted = room % 2 == 0
    # Images are heavy.
    budget = words(required_turns(everything)) + room if counted else 30_000
    context: list[ContextPolicy] = [*windows, TokenBudget(budget)]
    model = ScriptedModel(info=INFO) if counted else UncountedModel(info=INFO)
    once = viewed(everything, *context, model=model)
    assert viewed(everything, *context, model=model) == once
    assert [one.messages for one in viewed(once.turns, *context, model=model).turns] == [
        one.messages for one in once.turns
    ]


# In a conversation.


@pytest.mark.parametrize("kind", [ScriptedModel, UncountedModel])
async def test_a_turn_is_counted_as_the_model_reported_it(kind: type[ScriptedModel]) -> None:
    reports = [(20, 4), (30, 6), (50, 5)]
    model = kind([say("Yes.") + report_usage(Usage(*one)) for one in reports])
    service = service_with(model)
    after = None
    for number in range(3):
        response = await run_turn(service, f"{number}", after=after)
        after = response.id
        took = response.end.tokens if response.end else None
        # All that was shown and said, less what surrounds the turn.
        assert took == (24, 12, 19)[number]


def messages(shown: list[dict[str, Any]]) -> list[Any]:
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
async def test_what_would_be_shown_next_is_what_is_shown_next(
    context: tuple[ContextPolicy, ...], kind: type[ScriptedModel]
) -> None:
    model = kind(["a b c"] * 9)
    service, after = service_with(model), None
    for number in range(5):
        after = (await run_turn(service, f"{number} is my question", after=after)).id
    more: dict[str, Any] = {"after": after, "instructions": "Be brief."}
    shown = await service.preview_context(turn_request(**more, context_policies=context))
    # Room for the next words: one message, and as many tokens as it is estimated to have.
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


async def test_a_turn_that_is_too_long_to_be_shown_again_is_no_error() -> None:
    """The next words need not be shown with it."""
    service = service_with(ScriptedModel(["word " * 30, "Yes."]))
    first = await run_turn(service, "Go on.", context_policies=(TokenBudget(20),))
    request = turn_request("Short.", after=first.id, context_policies=(TokenBudget(20),))
    assert await service.preview_context(request) == []
    response = await (await service.start(request)).result()
    assert response.status == "completed"


async def test_a_call_that_waits_is_shown_as_the_next_turn_will_show_it() -> None:
    """Its output comes next, so it stays, with nothing behind it."""
    model = ScriptedModel(["Yes.", calls(call("f", {}, call_id="c")), "Done."])
    service = service_with(model)
    first = await run_turn(service, "Hi.")
    second = await run_turn(service, "Weather?", after=first.id)
    request = turn_request(after=second.id, context_policies=(Window(1),))
    shown = await service.preview_context(request)
    assert messages(shown) == ["Weather?", ""]
    output = FunctionCallOutput("c", "Sunny.")
    await run_turn(service, output, after=second.id, context_policies=(Window(1),))
    assert contents(model) == ["Weather?", "", "Sunny."]
