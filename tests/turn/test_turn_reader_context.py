"""The context of a stored response: what its last model call was sent, read from the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.context_policies import ContextPolicy, Summarize, TokenBudget, Window
from antiphon.core.turns import DEFAULT_TENANT, End, Options, Response
from antiphon.errors import ContextLengthExceededError
from antiphon.models.scripted import ScriptedModel, ScriptedReply, call, calls, fail, say
from antiphon.turn.message_rendering import RenderedTurn, build_messages
from antiphon.turn.store_protocols import Store
from antiphon.turn.trimming import apply_policies, count_turns, newest_turns, trim_by_ratio
from support.chain_strategies import histories
from support.http_server import serving as http_serving
from support.turn_service import (
    ONE_CALL,
    STORES,
    TWO_CALLS,
    RecordingTools,
    run_turn,
    run_with_store,
    service_with,
)

AUTO = Options(truncation="auto")


def limited_model(limit: int, *script: ScriptedReply | str) -> ScriptedModel:
    """A model that takes at most ``limit`` messages, and answers with ``script``."""
    remaining = list(script)

    def reply(messages: list[dict[str, Any]]) -> ScriptedReply:
        if len(messages) > limit:
            numbers = {"used": len(messages), "limit": limit}
            return fail(ContextLengthExceededError("Too long.", **numbers))
        reply_text = remaining.pop(0) if remaining else "Fine."
        return say(reply_text) if isinstance(reply_text, str) else reply_text

    return ScriptedModel(reply)


async def run_turns(store: Store, turns: int) -> str:
    service, head = service_with(ScriptedModel(["Fine."] * turns), store), None
    for number in range(turns):
        head = (await run_turn(service, f"question {number}", after=head)).id
    assert head is not None
    return head


async def check_context(
    store: Store, model: ScriptedModel, response: Response
) -> list[dict[str, Any]]:
    """Checks that the context of a response equals its last model call."""
    reader = service_with(ScriptedModel(), store).reader
    shown = await reader.context(DEFAULT_TENANT, response.id)
    assert shown.messages == json.loads(model.calls[-1].messages)
    return shown.messages


@pytest.mark.parametrize("kind", STORES)
def test_truncated_turns_are_not_in_the_context(kind: str, tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        head = await run_turns(store, 6)
        model = limited_model(7)
        response = await run_turn(service_with(model, store), "And?", after=head, options=AUTO)
        assert len(model.calls) > 1
        assert len(await check_context(store, model, response)) <= 7
        # The next turn, without a limit, is sent the whole history again.
        wide = ScriptedModel(["Yes."])
        after = await run_turn(service_with(wide, store), "Well?", after=response.id)
        assert len(await check_context(store, wide, after)) == 15
        assert after.end is not None
        assert after.end.context_turns is None

    run_with_store(kind, tmp_path, scenario)


@pytest.mark.parametrize("kind", STORES)
def test_context_has_the_tool_rounds_that_were_sent(kind: str, tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        head = await run_turns(store, 4)
        model = limited_model(8, TWO_CALLS, say("So far.") + ONE_CALL, "Done.")
        service = service_with(model, store)
        response = await run_turn(service, "And?", after=head, options=AUTO, tools=RecordingTools())
        context = await check_context(store, model, response)
        assert [one["role"] for one in context][-6:] == [
            *("user", "assistant", "tool", "tool", "assistant", "tool")
        ]
        # This call has no output: the model was called once.
        calling_model = ScriptedModel([ONE_CALL])
        open_call_turn = await run_turn(service_with(calling_model, store), "Look.", after=head)
        assert (await check_context(store, calling_model, open_call_turn))[-1]["content"] == "Look."

    run_with_store(kind, tmp_path, scenario)


def test_round_with_an_open_call_is_not_in_the_context(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        model = ScriptedModel(
            [calls(call("mine", {}, call_id="a"), call("yours", {}, call_id="b"))]
        )

        async def work(one: Any) -> str | None:
            return "done" if one.name == "mine" else None

        response = await run_turn(service_with(model, store), "Look.", tools=RecordingTools(work))
        assert [item.__class__.__name__ for item in response.output][-1] == "FunctionCallOutput"
        assert len(await check_context(store, model, response)) == 1

    run_with_store("memory", tmp_path, scenario)


@pytest.mark.parametrize("policy", [Window(3), TokenBudget(5)])
def test_turns_dropped_by_policies_are_not_in_the_context(
    policy: ContextPolicy, tmp_path: Path
) -> None:
    async def scenario(store: Store) -> None:
        head = await run_turns(store, 4)
        model = ScriptedModel(["Yes."])
        response = await run_turn(
            service_with(model, store), "And?", after=head, context_policies=(policy,)
        )
        assert len(await check_context(store, model, response)) == 3

    run_with_store("sqlite", tmp_path, scenario)


def test_erased_turns_are_not_in_the_context(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        head = await run_turns(store, 4)
        model = limited_model(5)
        service = service_with(model, store)
        response = await run_turn(service, "And?", after=head, options=AUTO)
        await service.delete(DEFAULT_TENANT, head)
        context = json.dumps((await service.reader.context(DEFAULT_TENANT, response.id)).messages)
        assert "question 3" not in context
        oldest = (await service.reader.chain(DEFAULT_TENANT, response.id))[0]
        before = await service.reader.context(DEFAULT_TENANT, response.id)
        await service.delete(DEFAULT_TENANT, oldest.id)
        after = await service.reader.context(DEFAULT_TENANT, response.id)
        assert after.messages == before.messages

    run_with_store("memory", tmp_path, scenario)


def test_context_endpoint_returns_the_last_model_call() -> None:
    model = limited_model(4)
    with http_serving(model) as server:
        head = None
        for text in ("One", "Two", "Three"):
            fields: dict[str, Any] = {"previous_response_id": head} if head else {}
            head = server.respond(text, truncation="auto", **fields).json["id"]
        context = server.get(f"/v1/responses/{head}/context").json
    shown = context["messages"]
    assert shown == json.loads(model.calls[-1].messages)
    assert [one["content"] for one in shown] == ["Two", "Fine.", "Three"]
    assert (context["turns_left_out"], context["turns_summarized"]) == (1, 0)


def test_context_counts_the_turns_that_a_summary_stands_for(tmp_path: Path) -> None:
    async def scenario(store: Store) -> None:
        head = await run_turns(store, 4)
        service = service_with(ScriptedModel(["In short.", "Yes."]), store)
        policy = Summarize(max_messages=4, keep_turns=1)
        response = await run_turn(service, "And?", after=head, context_policies=(policy,))
        shown = await service.reader.context(DEFAULT_TENANT, response.id)
        assert (shown.turns_left_out, shown.turns_summarized) == (0, 3)

    run_with_store("sqlite", tmp_path, scenario)


async def test_untruncated_turn_stores_no_context_turns() -> None:
    model = ScriptedModel(["Yes.", "Yes."])
    service = service_with(model)
    first = await run_turn(service, "Hi", stream=False)
    wide = await run_turn(
        service, "Hi", after=first.id, context_policies=(Window(9),), stream=False
    )
    for response in (first, wide):
        assert b"context_turns" not in msgspec.json.encode(response.end)
    assert (
        msgspec.json.decode(b'{"status":"completed","ended_at":2.0}', type=End).context_turns
        is None
    )


POLICIES: st.SearchStrategy[ContextPolicy] = st.one_of(
    st.builds(Window, st.integers(1, 9)), st.just(Summarize(max_tokens=1))
)


@settings(deadline=None)
@given(histories(), st.lists(POLICIES, max_size=2), st.lists(st.integers(1, 99), max_size=2))
def test_count_of_newest_turns_reproduces_the_context(
    everything: list[RenderedTurn], policies: list[ContextPolicy], limits: list[int]
) -> None:
    shown = apply_policies(everything, policies, 0)
    for limit in limits:
        shown = trim_by_ratio(shown, 100, limit)
    newest = [*newest_turns(everything[:-1], count_turns(shown[:-1])), everything[-1]]
    assert build_messages(newest) == build_messages(shown)
