"""Summarization: has a model summarize older turns, and stores the summary as a turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

import msgspec

from antiphon.core.context_policies import Summarize
from antiphon.core.ids import new_response_id
from antiphon.core.items import Compaction, Item, Message, encode_item, text_of
from antiphon.core.turns import End, Header, TurnRequest, Usage
from antiphon.errors import (
    ContextLengthExceededError,
    HistoryChangedError,
    ModelError,
    ModelTimeoutError,
    StoreError,
)
from antiphon.turn.compacted_input import count_items_to_replace
from antiphon.turn.context_builder import ContextBuilder
from antiphon.turn.exchanges import render_exchanges
from antiphon.turn.history_cache import History, HistoryCache
from antiphon.turn.message_rendering import RenderedTurn, render_turn, shown_items
from antiphon.turn.protocols import Model
from antiphon.turn.store_protocols import Head, NewTurn, Store
from antiphon.turn.trimming import (
    base_tokens,
    has_unsummarized_turns,
    insert_summary,
    should_summarize,
    split_for_summary,
    trim_by_ratio,
)
from antiphon.turn.turn_accumulator import TurnAccumulator


class Summary(msgspec.Struct, frozen=True):
    """A summary, and what it took to make."""

    item: Compaction
    usage: Usage | None
    #: What stays beside it of an input that it stands for.
    system_messages: tuple[Item, ...] = ()


async def summarize_turns(  # noqa: PLR0913
    covered: Sequence[RenderedTurn],
    retained: Sequence[RenderedTurn],
    policy: Summarize,
    header: Header,
    model: Model,
    *,
    check: Callable[[], Awaitable[None]] | None = None,
    time_limit: float | None = None,
) -> Summary:
    """Have the model summarize ``covered``; the turns of ``retained`` stay in the context after it.

    ``check`` comes before each call of the model: what it raises keeps the words from it.
    Raises what the model raises; ``ModelError`` where it breaks off, declines, or says
    nothing, ``ModelTimeoutError`` after so many seconds (``time_limit``).
    """
    try:
        async with asyncio.timeout(time_limit):
            machine = await _call_model(covered, policy.prompt, header, model, check)
    except TimeoutError as late:
        raise ModelTimeoutError(
            f"The summary took longer than {time_limit:g} seconds.", code="turn_timeout"
        ) from late
    # A refusal sums up nothing.
    words = [text_of(one.content) for one in machine.output if isinstance(one, Message)]
    text = "".join(words).strip()
    if not text:
        raise ModelError("The model was asked for a summary and gave none.")
    item = Compaction(
        text,
        retained_turns=sum(one.turns for one in retained if one.retained_turns is None),
        replaced_turns=sum(one.turns for one in covered),
    )
    return Summary(item, machine.usage)


async def _call_model(
    covered: Sequence[RenderedTurn],
    prompt: str,
    header: Header,
    model: Model,
    check: Callable[[], Awaitable[None]] | None,
) -> TurnAccumulator:
    plain = msgspec.structs.replace(
        header.options, tools=(), tool_choice="auto", text_format=None, max_output_tokens=None
    )
    header = msgspec.structs.replace(header, options=plain)
    viewer = ContextBuilder(header, model, ())
    segments: Sequence[RenderedTurn] = [*covered, render_turn([Message("user", prompt)])]
    while True:
        machine = TurnAccumulator()
        try:
            if check is not None:
                await check()
            call = viewer.model_call(segments, header, stream=False)
            async with aclosing(model.generate(call)) as batches:
                async for batch in batches:
                    machine.feed(batch)
        except ContextLengthExceededError as overflow:
            # Better a summary of the newer part than none.
            shorter = trim_by_ratio(segments, overflow.used, overflow.limit)
            if sum(one.size for one in shorter) >= sum(one.size for one in segments):
                raise
            segments = shorter
        else:
            if machine.finish_reason is None:
                raise ModelError("The model's summary broke off before its end.")
            machine.close(is_complete=True)
            return machine


class SummaryRequest(msgspec.Struct, frozen=True):
    """A request, what will be stored of it, and the model it names."""

    request: TurnRequest
    header: Header
    model: Model


def needs_summary(
    policy: Summarize, history: History, new: RenderedTurn, header: Header, model: Model
) -> bool:
    """Whether the older turns are to be summed up before this one."""
    base = base_tokens(header, model.info.few_shot)
    return should_summarize((*history.turns, new), policy, base) and can_summarize(policy, history)


def can_summarize(policy: Summarize, history: History) -> bool:
    """Whether there are turns to sum up that no summary stands for yet."""
    return has_unsummarized_turns(split_for_summary(history.turns, policy.keep_turns)[0])


def compaction_policy(threshold: int | None, model: Model) -> Summarize | None:
    """What a request's ``compact_threshold`` asks for, None: nothing.

    Without a number (0) it is four fifths of the model's context window, where that is known.
    """
    if threshold == 0:
        threshold = (model.info.context_window or 0) * 4 // 5
    return Summarize(max_tokens=threshold, keep_turns=0) if threshold else None


def due_compaction(
    call: SummaryRequest, history: History, items: Sequence[Item], new: RenderedTurn
) -> tuple[Summarize | None, int]:
    """What is to be summed up at the turn's beginning, and by what policy; None: nothing is due.

    Where no turn is before it: its own input, a whole history, of which so many items are replaced.
    """
    request, header, model = call.request, call.header, call.model
    if request.compact_threshold is None:
        # Between calls and the decision on them nothing may come: it would look like one.
        policies = request.context_policies if request.is_decision else ()
        summaries = (one for one in policies if isinstance(one, Summarize))
        due = (one for one in summaries if needs_summary(one, history, new, header, model))
        return next(due, None), 0
    policy = compaction_policy(request.compact_threshold, model)
    if policy is None:
        return None, 0
    if history.turns:
        is_due = needs_summary(policy, history, new, header, model)
        return (policy, 0) if is_due else (None, 0)
    base = base_tokens(header, model.info.few_shot)
    is_due = should_summarize((new,), policy, base)
    count = count_items_to_replace(items, policy, base) if is_due else 0
    return (policy, count) if count else (None, 0)


async def compact_history(  # noqa: PLR0913
    history: History,
    policy: Summarize,
    header: Header,
    model: Model,
    *,
    check: Callable[[], Awaitable[None]],
    time_limit: float | None = None,
) -> tuple[Summary, History]:
    """A summary of the older turns, and the history with it in their place. Nothing is stored.

    Raises what ``summarize_turns`` raises.
    """
    covered, retained = split_for_summary(history.turns, policy.keep_turns)
    made = await summarize_turns(
        covered, retained, policy, header, model, check=check, time_limit=time_limit
    )
    segments = tuple(insert_summary(covered, render_turn([made.item]), retained))
    return made, History().extended(segments)


async def compact_input(
    items: Sequence[Item], count: int, policy: Summarize, header: Header, model: Model
) -> Summary:
    """A summary of an input that is a whole history, to stand for its first ``count`` items.

    It covers the others too: clients may leave out all that comes before it.
    """
    covered = render_exchanges(shown_items(items), by_rounds=True)
    made = await summarize_turns(covered, (), policy, header, model)
    item = msgspec.structs.replace(made.item, replaced_turns=0, replaced_items=count)
    return msgspec.structs.replace(made, item=item)


async def summarize_history(
    cache: HistoryCache, head: Head, history: History, policy: Summarize, call: SummaryRequest
) -> tuple[Head, History]:
    """Sum up the older turns; the conversation goes on behind a turn that says so.

    Of an unstored turn only the view changes. Raises ``HistoryChangedError`` where something was
    erased meanwhile, perhaps what was summed up: then nothing is kept.
    """
    store = cache.store
    request, header = call.request, call.header

    async def check() -> None:
        await cache.require_unchanged(head)

    made, shorter = await compact_history(
        history, policy, header, call.model, check=check, time_limit=request.timeout
    )
    if not request.store:
        return head, shorter
    turn = NewTurn(
        response_id=new_response_id(),
        tenant=request.tenant,
        created_at=time.time(),
        header=header,
        input=(),
        parent=head,
        is_awaited=False,
    )
    await store_whole_turn(store, turn, [made.item], End("completed", time.time(), made.usage))
    new = await store.head(request.tenant, turn.response_id)
    if new is None or new.epoch != head.epoch:
        # Erased since it was kept. The summary's words went with that, but not from here.
        await store.delete(request.tenant, turn.response_id)
        raise HistoryChangedError()
    cache.replace(new, shorter)
    return new, shorter


async def store_whole_turn(store: Store, turn: NewTurn, output: Sequence[Item], end: End) -> None:
    """Store a turn whole. Raises what keeps it from being begun."""
    begun = store.begin(turn)
    begun.add_done_callback(_consume_exception)
    try:
        await store.write(turn.response_id, [encode_item(item) for item in output], end)
    except StoreError:
        # It fails where the beginning did, which says why.
        if begun.done() and not begun.cancelled() and (reason := begun.exception()):
            raise reason from None
        raise


def _consume_exception(begin_write: asyncio.Future[None]) -> None:
    """Nobody waits for a beginning alone; its failure shows at the end."""
    if not begin_write.cancelled():
        begin_write.exception()
