"""What a model was shown when it was last asked, told later: by any process, from the store."""

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


def narrow(limit: int, *script: ScriptedReply | str) -> ScriptedModel:
    """A model that sees so many messages. ``script`` is what it says where it says something."""
    rest = list(script)

    def reply(messages: list[dict[str, Any]]) -> ScriptedReply:
        if len(messages) > limit:
            numbers = {"used": len(messages), "limit": limit}
            return fail(ContextLengthExceededError("Too long.", **numbers))
        said = rest.pop(0) if rest else "Fine."
        return say(said) if isinstance(said, str) else said

    return ScriptedModel(reply)


async def talked(store: Store, turns: int) -> str:
    service, head = service_with(ScriptedModel(["Fine."] * turns), store), None
    for number in range(turns):
        head = (await run_turn(service, f"question {number}", after=head)).id
    assert head is not None
    return head


async def check(store: Store, model: ScriptedModel, response: Response) -> list[dict[str, Any]]:
    """What is told of a turn is what its model was shown last."""
    told = await service_with(ScriptedModel(), store).reader.context(DEFAULT_TENANT, response.id)
    assert told == json.loads(model.calls[-1].messages)
    return told


@pytest.mark.parametrize("kind", STORES)
def test_turns_that_were_left_out_are_not_told_of(kind: str, tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        head = await talked(store, 6)
        model = narrow(7)
        response = await run_turn(service_with(model, store), "And?", after=head, options=AUTO)
        assert len(model.calls) > 1
        assert len(await check(store, model, response)) <= 7
        # The next turn, which is not narrow, is shown all of it again.
        wide = ScriptedModel(["Yes."])
        after = await run_turn(service_with(wide, store), "Well?", after=response.id)
        assert len(await check(store, wide, after)) == 15
        assert after.end is not None
        assert after.end.context_turns is None

    run_with_store(kind, tmp_path, story)


@pytest.mark.parametrize("kind", STORES)
def test_rounds_of_tools_are_told_of_as_far_as_they_were_shown(kind: str, tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        head = await talked(store, 4)
        model = narrow(8, TWO_CALLS, say("So far.") + ONE_CALL, "Done.")
        asked = service_with(model, store)
        whole = await run_turn(asked, "And?", after=head, options=AUTO, tools=RecordingTools())
        told = await check(store, model, whole)
        assert [one["role"] for one in told][-6:] == [
            *("user", "assistant", "tool", "tool", "assistant", "tool")
        ]
        # Nobody has answered this call: the model was asked once.
        theirs = ScriptedModel([ONE_CALL])
        left = await run_turn(service_with(theirs, store), "Look.", after=head)
        assert (await check(store, theirs, left))[-1]["content"] == "Look."

    run_with_store(kind, tmp_path, story)


def test_a_round_of_which_a_call_is_left_open_was_not_shown(tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        model = ScriptedModel(
            [calls(call("mine", {}, call_id="a"), call("yours", {}, call_id="b"))]
        )

        async def work(one: Any) -> str | None:
            return "done" if one.name == "mine" else None

        response = await run_turn(service_with(model, store), "Look.", tools=RecordingTools(work))
        assert [item.__class__.__name__ for item in response.output][-1] == "FunctionCallOutput"
        assert len(await check(store, model, response)) == 1

    run_with_store("memory", tmp_path, story)


@pytest.mark.parametrize("policy", [Window(3), TokenBudget(5)])
def test_policies_leave_turns_out_too(policy: ContextPolicy, tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        head = await talked(store, 4)
        model = ScriptedModel(["Yes."])
        response = await run_turn(
            service_with(model, store), "And?", after=head, context_policies=(policy,)
        )
        assert len(await check(store, model, response)) == 3

    run_with_store("sqlite", tmp_path, story)


def test_what_is_erased_is_never_told_of(tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        head = await talked(store, 4)
        model = narrow(5)
        service = service_with(model, store)
        response = await run_turn(service, "And?", after=head, options=AUTO)
        await service.delete(DEFAULT_TENANT, head)
        told = json.dumps(await service.reader.context(DEFAULT_TENANT, response.id))
        assert "question 3" not in told
        oldest = (await service.reader.chain(DEFAULT_TENANT, response.id))[0]
        before = await service.reader.context(DEFAULT_TENANT, response.id)
        await service.delete(DEFAULT_TENANT, oldest.id)
        assert await service.reader.context(DEFAULT_TENANT, response.id) == before

    run_with_store("memory", tmp_path, story)


def test_over_http() -> None:
    model = narrow(4)
    with http_serving(model) as server:
        head = None
        for text in ("One", "Two", "Three"):
            fields: dict[str, Any] = {"previous_response_id": head} if head else {}
            head = server.respond(text, truncation="auto", **fields).json["id"]
        shown = server.get(f"/v1/responses/{head}/context").json["messages"]
    assert shown == json.loads(model.calls[-1].messages)
    assert [one["content"] for one in shown] == ["Two", "Fine.", "Three"]


async def test_a_turn_that_was_shown_all_is_kept_as_before() -> None:
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
def test_one_number_tells_what_was_shown(
    everything: list[RenderedTurn], policies: list[ContextPolicy], limits: list[int]
) -> None:
    shown = apply_policies(everything, policies, 0)
    for limit in limits:
        shown = trim_by_ratio(shown, 100, limit)
    again = [*newest_turns(everything[:-1], count_turns(shown[:-1])), everything[-1]]
    assert build_messages(again) == build_messages(shown)
