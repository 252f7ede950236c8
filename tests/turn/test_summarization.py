"""Summaries: what the model is asked, what is stored, and that erased content does not return."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from antiphon.core.context_policies import Summarize, TokenBudget
from antiphon.core.items import Compaction, FunctionCall, FunctionCallOutput, Message
from antiphon.core.tool_rules import INTERRUPTED_OUTPUT
from antiphon.core.turns import DEFAULT_TENANT, FunctionTool, Header, Options, TurnRequest, Usage
from antiphon.errors import (
    ConflictError,
    ContextLengthExceededError,
    InvalidRequestError,
    ModelError,
    ModelTimeoutError,
    UpstreamRateLimitError,
)
from antiphon.models.scripted import (
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
    wait,
)
from antiphon.stores.memory.store import MemoryStore
from antiphon.turn.message_rendering import (
    SUMMARY_PREFIX,
    RenderedTurn,
    render_turn,
)
from antiphon.turn.service import TurnService
from antiphon.turn.summarization import Summary, summarize_turns
from support.turn_service import (
    STORES,
    UncountedModel,
    assistant,
    contents,
    run,
    run_turn,
    run_with_store,
    service_with,
    turn_request,
    user,
)
from support.turn_service import texts as response_texts

POLICY = Summarize(max_messages=4, keep_turns=1)
HEADER = Header("scripted", "Be brief.")


def rendered_turn(text: str, answer: str = "Yes.") -> RenderedTurn:
    return render_turn([Message("user", text), Message("assistant", answer)])


def summarize(
    reply: ScriptedReply | str,
    covered: Sequence[RenderedTurn] = (rendered_turn("One?"),),
    retained: Sequence[RenderedTurn] = (),
    header: Header = HEADER,
) -> tuple[Summary, ScriptedModel]:
    model = ScriptedModel([reply])
    return run(summarize_turns(covered, retained, POLICY, header, model)), model


# The model call.


def test_model_gets_the_summarized_turns_and_the_policy_prompt() -> None:
    result, model = summarize(
        " They said one. ", [rendered_turn("One?"), rendered_turn("Two?")], [rendered_turn("3?")]
    )
    assert result.item == Compaction("They said one.", retained_turns=1, replaced_turns=2)
    assert model.context() == [
        {"role": "system", "content": "Be brief."},
        *(user("One?"), assistant("Yes."), user("Two?"), assistant("Yes.")),
        user(POLICY.prompt),
    ]
    assert result.usage == Usage(16, 3), "words sent and answered"


def test_summary_call_drops_tools_and_output_options() -> None:
    options = Options(
        temperature=0.5,
        tools=(FunctionTool("f"),),
        tool_choice="required",
        text_format={"type": "json_object"},
        max_output_tokens=1,
    )
    _, model = summarize("Fine.", header=Header("scripted", None, options))
    assert model.calls[0].options == Options(temperature=0.5)
    assert not model.calls[0].stream


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (think("Hm.") + say("All ", "of it."), "All of it."),
        (say("Begun") + finish("length"), "Begun"),
        (say("One. ") + think("And?") + say("Two."), "One. Two."),
    ],
)
def test_summary_is_the_text_of_the_answer(reply: ScriptedReply, text: str) -> None:
    assert summarize(reply)[0].item.summary == text


@pytest.mark.parametrize(
    "reply",
    [
        say(""),
        say(" \n"),
        think("Hm."),
        refuse("I will not."),
        calls(call("f", {})),
        say("Half of") + cut(),
    ],
)
def test_answer_without_text_is_an_error(reply: ScriptedReply) -> None:
    with pytest.raises(ModelError) as caught:
        summarize(reply)
    assert caught.value.code == "upstream_error"


def test_model_error_is_raised() -> None:
    with pytest.raises(UpstreamRateLimitError):
        summarize(say("Half") + fail(UpstreamRateLimitError("Slow down.")))


async def test_summary_that_times_out_is_cancelled() -> None:
    model = ScriptedModel([hang()])
    with pytest.raises(ModelTimeoutError) as caught:
        await summarize_turns([rendered_turn("One?")], [], POLICY, HEADER, model, time_limit=0.01)
    assert caught.value.code == "turn_timeout"
    assert "0.01 seconds" in caught.value.message
    assert model.cancelled.is_set()


def test_unanswered_calls_get_an_interrupted_output() -> None:
    failed = render_turn([Message("user", "One?"), FunctionCall("c", "f", "{}")], completed=False)
    _, model = summarize("Fine.", [failed])
    assert contents(model)[-2:] == [INTERRUPTED_OUTPUT, POLICY.prompt]


def limited_model(limit: int) -> ScriptedModel:
    """A model that takes at most ``limit`` messages."""

    def script(messages: list[dict[str, Any]]) -> ScriptedReply:
        if len(messages) > limit:
            return fail(ContextLengthExceededError("Too long.", used=len(messages), limit=limit))
        return say("The newer part.")

    return ScriptedModel(script)


def test_too_long_history_is_summarized_in_part() -> None:
    model = limited_model(5)
    covered = [rendered_turn(f"Question {number}?") for number in range(9)]
    result = run(summarize_turns(covered, [], POLICY, HEADER, model))
    assert result.item == Compaction("The newer part.", retained_turns=0, replaced_turns=9)
    assert contents(model)[-3:] == ["Question 8?", "Yes.", POLICY.prompt]
    assert len(model.context()) <= 5


def test_history_that_cannot_be_shortened_is_an_error() -> None:
    model = limited_model(1)
    with pytest.raises(ContextLengthExceededError):
        run(summarize_turns([rendered_turn("One?")], [], POLICY, HEADER, model))
    assert len(model.calls) == 2


def test_summary_includes_the_previous_summary() -> None:
    before = render_turn([Compaction("They began.", 1, 3)])
    leftover = RenderedTurn(b'{"role":"system","content":"Be kind."}', turns=0)
    result, model = summarize(
        "All.", [leftover, before, rendered_turn("One?")], [leftover, rendered_turn("2?")]
    )
    assert result.item == Compaction("All.", retained_turns=1, replaced_turns=4)
    assert contents(model)[1:4] == ["Be kind.", SUMMARY_PREFIX + "They began.", "One?"]


# In a conversation.


def summarizing_model(kind: type[ScriptedModel] = ScriptedModel) -> ScriptedModel:
    """A model that answers, and whose summary is the user's messages."""

    def script(messages: list[dict[str, Any]]) -> ScriptedReply:
        own = [one["content"] for one in messages if one["role"] == "user"]
        if own[-1] == POLICY.prompt:
            before = [one["content"] for one in messages if one["role"] == "system"]
            return say(" ".join([*before, *own[:-1]])) + report_usage(Usage(70, 7))
        return say(f"Re: {own[-1]}")

    return kind(script)


async def run_conversation(
    service: TurnService, *texts: str, after: str | None = None
) -> list[str]:
    """Runs a conversation with ``POLICY``; returns the ids of its responses."""
    ids: list[str] = []
    for text in texts:
        after = (await run_turn(service, text, after=after, context_policies=(POLICY,))).id
        ids.append(after)
    return ids


@pytest.mark.parametrize("kind", STORES)
def test_due_summary_is_stored_as_a_turn(kind: str, tmp_path: Path) -> None:
    async def scenario(store: Any) -> None:
        model = summarizing_model()
        service = service_with(model, store)
        ids = await run_conversation(service, "One.", "Two.")
        assert len(model.calls) == 2
        response = await run_turn(service, "Three.", after=ids[-1], context_policies=(POLICY,))
        assert len(model.calls) == 4
        expected = [f"{SUMMARY_PREFIX}One.", "Two.", "Re: Two.", "Three."]
        assert contents(model) == expected
        chain = await service.reader.chain(DEFAULT_TENANT, response.id)
        assert [one.id for one in chain if one.input] == [*ids, response.id]
        (summary,) = [one for one in chain if not one.input]
        assert summary.previous_response_id == ids[-1]
        assert response.previous_response_id == summary.id
        assert summary.output == (Compaction("One.", retained_turns=1, replaced_turns=1),)
        assert summary.end is not None
        assert (summary.end.status, summary.end.usage) == ("completed", Usage(70, 7))
        # The whole history can be read, and a new process sends the same context.
        whole = await service.reader.messages(DEFAULT_TENANT, response.id)
        assert [one["content"] for one in whole][::2] == ["One.", "Two.", "Three."]
        fresh = summarizing_model()
        await run_turn(service_with(fresh, store), "Four.", after=response.id)
        assert contents(fresh) == [*expected, "Re: Three.", "Four."]
        await run_turn(service, "Four.", after=response.id)
        assert fresh.calls[-1].messages == model.calls[-1].messages

    run_with_store(kind, tmp_path, scenario)


async def test_unstored_turn_uses_a_summary_without_storing_it() -> None:
    store, model = MemoryStore(), summarizing_model()
    service = service_with(model, store)
    ids = await run_conversation(service, "One.", "Two.")
    await run_turn(service, "Three.", after=ids[-1], context_policies=(POLICY,), store=False)
    assert contents(model) == [f"{SUMMARY_PREFIX}One.", "Two.", "Re: Two.", "Three."]
    assert len(store._turns.records) == 2
    await run_turn(service, "Three.", after=ids[-1])
    assert contents(model)[0] == "One."


async def test_failed_summary_stores_nothing() -> None:
    store = MemoryStore()
    model = ScriptedModel(["1", "2", fail(UpstreamRateLimitError("Slow down.")), "Sum.", "3"])
    service = service_with(model, store)
    ids = await run_conversation(service, "One.", "Two.")
    with pytest.raises(UpstreamRateLimitError):
        await run_turn(service, "Three.", after=ids[-1], context_policies=(POLICY,))
    assert len(store._turns.records) == 2
    response = await run_turn(service, "Three.", after=ids[-1], context_policies=(POLICY,))
    assert response_texts(response) == ["3"]


@pytest.mark.parametrize("kind", [ScriptedModel, UncountedModel])
async def test_refused_turn_makes_no_summary(kind: type[ScriptedModel]) -> None:
    """A request is checked before anything is stored or paid for."""
    store, model = MemoryStore(), summarizing_model(kind)
    service = service_with(model, store)
    ids = await run_conversation(service, "One.", "Two.")
    with pytest.raises(ContextLengthExceededError):
        await service.start(
            turn_request("word " * 400, after=ids[-1], context_policies=(POLICY, TokenBudget(100)))
        )
    assert len(model.calls) == 2
    assert len(store._turns.records) == 2


async def test_open_calls_can_be_answered_after_a_summary() -> None:
    wanted = calls(call("f", {}, call_id="c"))
    model = ScriptedModel(["1", wanted, "Sum.", "Done."])
    service = service_with(model)
    first = await run_turn(service, "One.")
    second = await run_turn(service, "Two.", after=first.id)
    policy = Summarize(max_messages=1, keep_turns=0)
    await run_turn(
        service, FunctionCallOutput("c", "42"), after=second.id, context_policies=(policy,)
    )
    assert contents(model) == [f"{SUMMARY_PREFIX}Sum.", "Two.", "", "42"]


# Erasure.


@pytest.mark.parametrize("kind", STORES)
def test_summary_of_a_deleted_turn_is_not_sent(kind: str, tmp_path: Path) -> None:
    async def scenario(store: Any) -> None:
        model = summarizing_model()
        service = service_with(model, store)
        ids = await run_conversation(service, "Secret.", "Two.", "Three.", "Four.")
        assert "Secret." in contents(model)[0]
        await service.delete(DEFAULT_TENANT, ids[0])
        await run_turn(service, "Five.", after=ids[-1])
        words = ["Two.", "Re: Two.", "Three.", "Re: Three.", "Four.", "Re: Four.", "Five."]
        assert contents(model) == words

    run_with_store(kind, tmp_path, scenario)


@pytest.mark.parametrize("kind", STORES)
def test_summary_of_an_erased_item_is_not_sent(kind: str, tmp_path: Path) -> None:
    async def scenario(store: Any) -> None:
        model = summarizing_model()
        service = service_with(model, store)
        ids = await run_conversation(service, "Secret.", "Two.", "Three.")
        assert "Secret." in contents(model)[0]
        assert await store.stores.conversations.erase_item(DEFAULT_TENANT, ids[0], 0)
        after = await run_turn(service, "Four.", after=ids[-1])
        words = ["Re: Secret.", "Two.", "Re: Two.", "Three.", "Re: Three.", "Four."]
        assert contents(model) == words
        # The next summary covers the remaining items.
        await run_turn(service, "Five.", after=after.id, context_policies=(POLICY,))
        assert contents(model)[0].startswith(SUMMARY_PREFIX)
        assert not any("They" in text for text in contents(model))

    run_with_store(kind, tmp_path, scenario)


@pytest.mark.parametrize("kind", STORES)
def test_turn_erased_during_its_summary_stays_erased(kind: str, tmp_path: Path) -> None:
    """A summary call takes seconds, in which a turn can be deleted."""

    async def scenario(store: Any) -> None:
        go, asked = asyncio.Event(), asyncio.Event()
        model = ScriptedModel(
            ["1", "2", wait(go, asked) + say("They told a secret."), "3", "4", "5"]
        )
        service = service_with(model, store)
        ids = await run_conversation(service, "Secret.", "Two.")
        starting = asyncio.ensure_future(
            service.start(turn_request("Three.", after=ids[-1], context_policies=(POLICY,)))
        )
        await asked.wait()
        await service.delete(DEFAULT_TENANT, ids[0])
        go.set()
        response = await (await starting).result()
        assert contents(model) == ["Two.", "2", "Three."]
        # Nor is the summary stored.
        chain = await service.reader.chain(DEFAULT_TENANT, response.id)
        assert [one.id for one in chain] == [ids[1], response.id]
        after = await run_turn(service, "Four.", after=response.id)
        assert contents(model) == ["Two.", "2", "Three.", "3", "Four."]
        await run_turn(service_with(model, store), "Five.", after=after.id)
        assert contents(model) == ["Two.", "2", "Three.", "3", "Four.", "4", "Five."]

    run_with_store(kind, tmp_path, scenario)


# On request.


def summary_request(after: str | None, **more: Any) -> TurnRequest:
    return turn_request(after=after, **more)


async def test_requested_summary_continues_the_conversation() -> None:
    model = summarizing_model()
    service = service_with(model)
    first = await run_turn(service, "One.")
    second = await run_turn(service, "Two.", after=first.id)
    response = await service.summarize(summary_request(second.id), POLICY)
    assert response.output == (Compaction("One.", retained_turns=1, replaced_turns=1),)
    assert response.previous_response_id == second.id
    await run_turn(service, "Three.", after=response.id)
    assert contents(model) == [f"{SUMMARY_PREFIX}One.", "Two.", "Re: Two.", "Three."]
    await run_turn(service, "Three.", after=second.id)
    assert contents(model)[0] == "One.", "the response before it is as it was"


async def test_requested_summary_of_a_changing_history_is_a_conflict() -> None:
    go, asked = asyncio.Event(), asyncio.Event()
    service = service_with(ScriptedModel(["1", "2", wait(go, asked) + say("A secret.")]))
    first = await run_turn(service, "Secret.")
    second = await run_turn(service, "Two.", after=first.id)
    summing = asyncio.ensure_future(service.summarize(summary_request(second.id), POLICY))
    await asked.wait()
    await service.delete(DEFAULT_TENANT, first.id)
    go.set()
    with pytest.raises(ConflictError, match="erased meanwhile"):
        await summing
    assert [one.id for one in await service.reader.chain(DEFAULT_TENANT, second.id)] == [second.id]


async def test_requested_summary_with_nothing_to_summarize_is_refused() -> None:
    model = summarizing_model()
    service = service_with(model)
    first = await run_turn(service, "One.")
    second = await run_turn(service, "Two.", after=first.id)
    summed = await service.summarize(summary_request(second.id), POLICY)
    for after in (None, first.id, summed.id):
        with pytest.raises(InvalidRequestError) as caught:
            await service.summarize(summary_request(after), POLICY)
        assert caught.value.code == "nothing_to_summarize"
    assert len(model.calls) == 3
