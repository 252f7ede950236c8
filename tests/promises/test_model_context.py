"""The model's context after any operations: nothing lost, split, reordered or invented.

Random stories are played on the real service, each turn twice: first unstored by a service
that has just been opened over the same store, then for good by one of two that have been there
all along. Both must ask their models the very same questions.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from antiphon.core.context_policies import Summarize, TokenBudget, Window
from antiphon.core.items import FunctionCall, FunctionCallOutput, Message
from antiphon.core.tool_rules import INTERRUPTED_OUTPUT
from antiphon.core.turns import DEFAULT_TENANT, Options, Response, TurnRequest
from antiphon.errors import AntiphonError, ContextLengthExceededError
from antiphon.models.scripted import Messages, ScriptedModel, ScriptedReply, call, calls, fail
from antiphon.turn.message_rendering import SUMMARY_PREFIX
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import Store
from support.chain_strategies import check_well_formed
from support.conversation_scenarios import (
    InstructedModel,
    Step,
    WorkTools,
    count_words,
    expected_output,
    message_text,
    scenarios,
    turn_number,
    user_items,
)
from support.example_counts import examples
from support.stored_responses import response_ids
from support.turn_service import (
    STORES,
    contents,
    open_store,
    run,
    run_turn,
    run_with_store,
    service_with,
    turn_request,
)


class StoredResponse(msgspec.Struct, frozen=True):
    """A response; ``waiting`` are its calls without an output."""

    id: str
    turn: int
    lineage: tuple[int, ...]
    waiting: tuple[FunctionCall, ...]
    completed: bool


class StepRunner:
    """Runs steps on one store, and checks every model call."""

    def __init__(self, store: Store, *, counts: bool) -> None:
        self._store = store
        self._counts = counts
        self._robot = InstructedModel(counts=counts)
        self._service = service_with(self._robot, store)
        #: Takes every other turn, as another process would: each has seen only its own.
        self._other_service = service_with(self._robot, store)
        self._told: list[StoredResponse] = []
        self._erased: set[int] = set()
        #: Turns that brought outputs, and the turn that they are for: both are shown or none.
        self._tied: dict[int, int] = {}

    async def play(self, step: Step, turn: int) -> None:
        if step.erases is not None and self._told:
            await self._erase(*step.erases)
        parent = None
        if step.back is not None and self._told:
            parent = self._told[-1 - step.back % len(self._told)]
        request = self._request(step, turn, parent)
        cold = InstructedModel(counts=self._counts)
        unstored = msgspec.structs.replace(request, store=False)
        first = await run_request(service_with(cold, self._store), cold, unstored)
        before = len(self._robot.calls)
        service = self._service if turn % 2 else self._other_service
        second = await run_request(service, self._robot, request)
        asked = [one.messages for one in self._robot.calls[before:]]
        cold_asked = [one.messages for one in cold.calls]
        assert list(map(number_call_ids, cold_asked)) == list(map(number_call_ids, asked))
        assert outcome(first) == outcome(second), "the same store, the same end"
        lineage = (*(parent.lineage if parent else ()), turn)
        if isinstance(second, AntiphonError):
            event(f"refused: {second.code}")
            if isinstance(second, ContextLengthExceededError):
                await self._check_refusal(request, parent, lineage)
            return
        event(f"ended: {second.status}")
        self._told.append(stored_response(second, turn, lineage))
        transcript = await self._service.reader.messages(DEFAULT_TENANT, second.id, "")
        self._check_transcript(transcript, lineage)
        for raw in asked:
            messages = check_well_formed(raw)
            check_pairs(messages)
            if turn_number(message_text(newest_words(messages))) is not None:
                self._check_shown(messages, transcript, request, turn)

    def _request(self, step: Step, turn: int, parent: StoredResponse | None) -> TurnRequest:
        given, approved = [], []
        for at, open_call in enumerate(parent.waiting if parent else ()):
            way = (step.answers >> 2 * at) % 4
            if parent is not None and (parent.completed or way > 1):
                self._tied[turn] = parent.turn
                if way % 2:
                    approved.append(open_call)
                else:
                    given.append(FunctionCallOutput(open_call.call_id, expected_output(open_call)))
        options = Options(
            truncation="auto" if step.truncation == "auto" else "disabled",
            parallel_tool_calls=step.parallel,
        )
        return TurnRequest(
            input=(*given, *user_items(step, turn)),
            previous_response_id=parent.id if parent else None,
            instructions=step.instructions,
            options=options,
            stream=step.stream,
            context_policies=step.context,
            approved_calls=tuple(approved),
            max_tool_rounds=step.rounds,
        )

    async def _erase(self, which: int, cascade: bool) -> None:
        gone = self._told[which % len(self._told)]
        await self._service.delete(DEFAULT_TENANT, gone.id, cascade=cascade)
        left = [one for one in self._told if one is not gone]
        if cascade:
            left = [one for one in left if gone.turn not in one.lineage]
        self._erased |= {one.turn for one in self._told if one not in left}
        self._told = left

    def _check_transcript(self, transcript: Messages, lineage: tuple[int, ...]) -> None:
        """All that was ever said is there, summed up or not, but what was erased."""
        said = [turn_number(message_text(one)) for one in transcript if one["role"] == "user"]
        assert said == [one for one in lineage if one not in self._erased]
        assert not any(message_text(one).startswith(SUMMARY_PREFIX) for one in transcript)

    def _check_shown(
        self, messages: Messages, transcript: Messages, request: TurnRequest, turn: int
    ) -> None:
        budgets = [
            one.max_tokens for one in request.context_policies if isinstance(one, TokenBudget)
        ]
        if self._counts and budgets:
            assert count_words(messages) <= min(budgets)
        if request.instructions:
            assert messages.pop(0)["content"] == request.instructions
        assert messages.pop(0)["content"] == "Primed."
        summaries = [one for one in messages if message_text(one).startswith(SUMMARY_PREFIX)]
        assert len(summaries) <= 1
        messages = [one for one in messages if one not in summaries]
        # Nothing is moved, changed or made up.
        rest = iter(atoms(transcript))
        assert all(one in rest for one in atoms(messages))
        assert rules(messages) == rules(transcript), "no system message is lost"
        everything, shown = by_turn(transcript), by_turn(messages)
        assert list(shown) == list(everything)[len(everything) - len(shown) :], "a hole"
        for number, said in shown.items():
            assert number == turn or said == everything[number], "half a turn is shown"
        oldest = next(iter(shown))
        assert self._tied.get(oldest) not in everything, "outputs without their calls"
        if summaries:
            event("shown: a summary")
        elif len(shown) < len(everything):
            event("shown: less than all")
        limits = [one for one in request.context_policies if isinstance(one, Window | TokenBudget)]
        if not summaries and not limits and request.options.truncation == "disabled":
            assert list(shown) == list(everything)
        # What the user said is there, with what this turn brought for calls before it.
        given = [one for one in request.input if isinstance(one, FunctionCallOutput)]
        assert turn_number(message_text(newest_words(messages))) == turn
        assert {one.output for one in given} <= {message_text(one) for one in messages}

    async def _check_refusal(
        self, request: TurnRequest, parent: StoredResponse | None, lineage: tuple[int, ...]
    ) -> None:
        """Refused before it began: then not even what must be shown fits."""
        if not self._counts or any(isinstance(one, Summarize) for one in request.context_policies):
            return
        past = await self._service.reader.messages(DEFAULT_TENANT, parent.id, "") if parent else []
        said = by_turn(past)
        must = [one for one in past if one["role"] == "system"]
        for number in reversed(lineage):
            if number != lineage[-1]:
                must += said.get(number, [])
            if self._tied.get(number, 0) in {0, *self._erased}:
                break
        new = [item.content for item in request.input if isinstance(item, Message)]
        least = count_words(must) + count_words([{"content": plain(one)} for one in new])
        least += sum(
            len(str(one.output).split())
            for one in request.input
            if isinstance(one, FunctionCallOutput)
        )
        least += len((request.instructions or "").split()) + len(["Primed."])
        budgets = [
            one.max_tokens for one in request.context_policies if isinstance(one, TokenBudget)
        ]
        assert least > min(budgets)


def plain(content: Any) -> str:
    return content if isinstance(content, str) else content[0].text


def stored_response(response: Response, turn: int, lineage: tuple[int, ...]) -> StoredResponse:
    waiting: dict[str, FunctionCall] = {}
    for item in response.output:
        if isinstance(item, FunctionCall):
            waiting[item.call_id] = item
        elif isinstance(item, FunctionCallOutput):
            waiting.pop(item.call_id, None)
    return StoredResponse(
        response.id, turn, lineage, tuple(waiting.values()), response.status == "completed"
    )


async def run_request(
    service: TurnService, robot: InstructedModel, request: TurnRequest
) -> Response | AntiphonError:
    """Runs a turn, cancelled if its model hangs; returns its response or its error."""
    robot.reached.clear()
    try:
        turn = await service.start(request, WorkTools())
    except AntiphonError as refused:
        return refused
    reached = asyncio.ensure_future(robot.reached.wait())
    result = asyncio.ensure_future(turn.result())
    await asyncio.wait({reached, result}, return_when=asyncio.FIRST_COMPLETED)
    reached.cancel()
    if not result.done():
        await turn.cancel()
    return await result


def outcome(one: Response | AntiphonError) -> Any:
    if isinstance(one, AntiphonError):
        return (type(one), one.code, one.message)
    assert one.end is not None
    output = number_call_ids(repr(one.output).encode())
    return (output, one.end.status, one.end.reason, one.end.tokens, one.end.error)


def number_call_ids(text: bytes) -> bytes:
    """The text with the random ids of calls as numbers, which are the same in each run."""
    numbers: dict[bytes, int] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return b"call_new_%d" % numbers.setdefault(found[0], len(numbers))

    return re.sub(rb"call_[0-9a-f]{24}", number, text)


def newest_words(messages: Messages) -> dict[str, Any]:
    return [one for one in messages if one["role"] == "user"][-1]


def rules(messages: Messages) -> list[str]:
    return [message_text(one) for one in messages if one["role"] == "system"]


def atoms(messages: Messages) -> list[tuple[str, Any]]:
    """Texts, calls and outputs, independent of how they are grouped into messages."""
    said: list[tuple[str, Any]] = []
    for message in messages:
        if message["content"] or "tool_calls" not in message:
            said.append((message["role"], message["content"]))
        said += [("call", one) for one in message.get("tool_calls", ())]
    return said


def by_turn(messages: Messages) -> dict[int, Messages]:
    """The messages of each turn without system messages; outputs belong to their call's turn."""
    turns: dict[int, Messages] = {}
    number = -1
    for message in messages:
        if message["role"] == "system":
            continue
        if message["role"] != "tool":
            wanted = message.get("tool_calls")
            text = json.loads(wanted[0]["function"]["arguments"])["mark"] if wanted else ""
            number = turn_number(text or message_text(message)) or 0
        turns.setdefault(number, []).append(message)
    return turns


def check_pairs(messages: Messages) -> None:
    """Checks that each output belongs to its own call."""
    marks: dict[str, str] = {}
    for message in messages:
        for one in message.get("tool_calls", ()):
            marks[one["id"]] = json.loads(one["function"]["arguments"])["mark"]
        if message["role"] == "tool":
            result = f"{marks.pop(message['tool_call_id'])} done"
            assert message["content"] in (result, INTERRUPTED_OUTPUT), "the output of another call"


async def run_steps(store: Store, steps: list[Step], *, counts: bool) -> None:
    story = StepRunner(store, counts=counts)
    for turn, step in enumerate(steps, 1):
        await story.play(step, turn)


@settings(deadline=None, max_examples=examples(40))
@given(scenarios(), st.booleans())
def test_memory_store_gives_the_expected_model_context(steps: list[Step], counts: bool) -> None:
    async def main() -> None:
        async with open_store("memory", Path()) as store:
            await run_steps(store, steps, counts=counts)

    run(main())


@settings(deadline=None, max_examples=examples(8))
@given(scenarios(), st.booleans())
def test_sqlite_store_gives_the_expected_model_context(steps: list[Step], counts: bool) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with open_store("sqlite", Path(folder)) as store:
                await run_steps(store, steps, counts=counts)

    run(main())


# Reused ids.


@pytest.mark.parametrize("summed_up", [False, True])
@pytest.mark.parametrize("kind", STORES)
def test_output_is_not_paired_with_another_call_of_the_same_id(
    kind: str, summed_up: bool, tmp_path: Path
) -> None:
    """The erased turn between them answered one call and made the other."""

    async def story(store: Store) -> None:
        again = calls(call("look", {}, call_id="call_0"))
        fine: list[ScriptedReply | str] = ["Fine."] * 4
        model = ScriptedModel(["Yes.", again, again, *fine])
        service = service_with(model, store)
        zero = await run_turn(service, "Zero?")
        first = await run_turn(service, "One?", after=zero.id)
        second = await run_turn(service, FunctionCallOutput("call_0", "one"), after=first.id)
        before = second
        if summed_up:
            policy = Summarize(max_messages=1, keep_turns=0)
            before = await service.summarize(turn_request(after=second.id), policy)
        (call_id,) = (one.call_id for one in second.output if isinstance(one, FunctionCall))
        assert call_id != "call_0"
        third = await run_turn(service, FunctionCallOutput(call_id, "two"), after=before.id)
        assert contents(model)[-2:] == ["", "two"]
        await service.delete(DEFAULT_TENANT, second.id)
        said = ["Zero?", "Yes.", "One?", "", INTERRUPTED_OUTPUT, "Fine."]
        fresh = ScriptedModel(fine)
        for one, seen in ((service, model), (service_with(fresh, store), fresh)):
            await run_turn(one, "Well?", after=third.id)
            assert contents(seen) == [*said, "Well?"]
        stored_response = [
            one["content"] for one in await service.reader.messages(DEFAULT_TENANT, third.id)
        ]
        assert stored_response == said

    run_with_store(kind, tmp_path, story)


# Too long without truncation.


def limited_model(messages: Messages) -> ScriptedReply | str:
    """A model with a limit of twelve words."""
    size = count_words(messages)
    if size > 12:
        return fail(ContextLengthExceededError("Too long.", used=size, limit=12))
    return "Fine, fine."


@pytest.mark.parametrize("kind", STORES)
def test_too_long_context_fails_and_stores_only_the_failed_turn(kind: str, tmp_path: Path) -> None:
    async def story(store: Store) -> None:
        service = service_with(ScriptedModel(limited_model), store)
        first = await run_turn(service, "One two three four.")
        before = await service.reader.chain(DEFAULT_TENANT, first.id)
        turn = await service.start(turn_request("word " * 9, after=first.id))
        response = await turn.result()
        error = turn.error
        assert isinstance(error, ContextLengthExceededError)
        assert (error.status, error.code) == (400, "context_length_exceeded")
        assert (error.used, error.limit, error.response_id) == (15, 12, response.id)
        assert await service.reader.chain(DEFAULT_TENANT, first.id) == before
        failed = await service.reader.response(DEFAULT_TENANT, response.id)
        assert (failed.status, failed.output, failed.input) == ("failed", (), response.input)
        assert await response_ids(store) == [response.id, first.id]
        # It can be tried again with less, and what failed does not stand in the way.
        again = await run_turn(service, "Five six.", after=first.id)
        assert again.status == "completed"
        shorter = Options(truncation="auto")
        on = await run_turn(service, "And?", after=response.id, options=shorter)
        assert on.status == "completed"

    run_with_store(kind, tmp_path, story)


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("truncation", ["auto", "disabled"])
def test_input_over_the_token_budget_is_refused_and_not_stored(
    kind: str, truncation: Any, tmp_path: Path
) -> None:
    async def story(store: Store) -> None:
        service = service_with(model := ScriptedModel(), store)
        options = Options(truncation=truncation)
        with pytest.raises(ContextLengthExceededError) as caught:
            await service.start(
                turn_request("word " * 9, options=options, context_policies=(TokenBudget(8),))
            )
        assert (caught.value.used, caught.value.limit) == (9, 8)
        assert caught.value.response_id is None
        assert await response_ids(store) == []
        assert model.calls == []

    run_with_store(kind, tmp_path, story)
