"""Asks a model to sum up turns.

Summaries as stored turns: made by the model, kept behind what they sum up.
"""

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
    ContextLengthExceeded,
    HistoryChanged,
    ModelError,
    ModelTimeout,
    StoreError,
)
from antiphon.turn.context_builder import Viewer
from antiphon.turn.history_cache import History, Past
from antiphon.turn.message_rendering import Segment, render
from antiphon.turn.protocols import Head, Model, NewTurn, Store
from antiphon.turn.trimming import base_tokens, collapse, divide, due, shorten, tokens_of, worth
from antiphon.turn.turn_accumulator import Machine


class Digest(msgspec.Struct, frozen=True):
    """A summary, and what it took to make."""

    item: Compaction
    usage: Usage | None


async def digest(  # noqa: PLR0913
    covered: Sequence[Segment],
    kept: Sequence[Segment],
    policy: Summarize,
    header: Header,
    model: Model,
    *,
    check: Callable[[], Awaitable[None]] | None = None,
    seconds: float | None = None,
) -> Digest:
    """Have the model sum up ``covered``, with ``kept`` staying in view after it.

    ``check`` comes before each call of the model: what it raises keeps the words from it.
    Raises what the model raises; ``ModelError`` where it breaks off, declines, or says
    nothing, ``ModelTimeout`` after so many ``seconds``.
    """
    try:
        async with asyncio.timeout(seconds):
            machine = await _ask(covered, policy.prompt, header, model, check)
    except TimeoutError as late:
        raise ModelTimeout(
            f"The summary took longer than {seconds:g} seconds.", code="turn_timeout"
        ) from late
    # A refusal sums up nothing.
    words = [text_of(one.content) for one in machine.output if isinstance(one, Message)]
    text = "".join(words).strip()
    if not text:
        raise ModelError("The model was asked for a summary and gave none.")
    item = Compaction(
        text,
        kept=sum(one.turns for one in kept if one.kept is None),
        replaced=sum(one.turns for one in covered),
    )
    return Digest(item, machine.usage)


async def _ask(
    covered: Sequence[Segment],
    prompt: str,
    header: Header,
    model: Model,
    check: Callable[[], Awaitable[None]] | None,
) -> Machine:
    plain = msgspec.structs.replace(
        header.options, tools=(), tool_choice="auto", text_format=None, max_output_tokens=None
    )
    header = msgspec.structs.replace(header, options=plain)
    viewer = Viewer(header, model, ())
    segments: Sequence[Segment] = [*covered, render([Message("user", prompt)])]
    while True:
        machine = Machine()
        try:
            if check is not None:
                await check()
            call = viewer.call(segments, header, stream=False)
            async with aclosing(model.generate(call)) as batches:
                async for batch in batches:
                    machine.feed(batch)
        except ContextLengthExceeded as overflow:
            # Better a summary of the newer part than none.
            shorter = shorten(segments, overflow.used, overflow.limit)
            if sum(one.size for one in shorter) >= sum(one.size for one in segments):
                raise
            segments = shorter
        else:
            if machine.finish is None:
                raise ModelError("The model's summary broke off before its end.")
            machine.close(whole=True)
            return machine


class Question(msgspec.Struct, frozen=True):
    """A request, what will be stored of it, and the model it names."""

    request: TurnRequest
    header: Header
    model: Model


def is_due(policy: Summarize, past: Past, new: Segment, question: Question) -> bool:
    """Whether the older turns are to be summed up before this one."""
    base = base_tokens(question.header, question.model.info.primer)
    return due((*past.segments, new), policy, base) and worth(
        divide(past.segments, policy.keep_turns)[0]
    )


async def sum_up(
    history: History, head: Head, past: Past, policy: Summarize, question: Question
) -> tuple[Head, Past]:
    """Sum up the older turns; the conversation goes on behind a turn that says so.

    Of an unstored turn only the view changes. Raises ``HistoryChanged`` where something was
    erased meanwhile, perhaps what was summed up: then nothing is kept.
    """
    store = history.store
    covered, kept = divide(past.segments, policy.keep_turns)
    request, header = question.request, question.header

    async def check() -> None:
        await history.check(head)

    made = await digest(
        covered, kept, policy, header, question.model, check=check, seconds=request.timeout
    )
    segments = tuple(collapse(covered, render([made.item]), kept))
    shorter = Past(segments, sum(map(tokens_of, segments)))
    if not request.store:
        return head, shorter
    turn = NewTurn(
        response_id=new_response_id(),
        tenant=request.tenant,
        created_at=time.time(),
        header=header,
        input=(),
        parent=head,
        awaited=False,
    )
    await keep_turn(store, turn, [made.item], End("completed", time.time(), made.usage))
    new = await store.head(request.tenant, turn.response_id)
    if new is None or new.epoch != head.epoch:
        # Erased since it was kept. The summary's words went with that, but not from here.
        await store.delete(request.tenant, turn.response_id)
        raise HistoryChanged()
    history.replace(new, shorter)
    return new, shorter


async def keep_turn(store: Store, turn: NewTurn, output: Sequence[Item], end: End) -> None:
    """Store a turn whole. Raises what keeps it from being begun."""
    begun = store.begin(turn)
    begun.add_done_callback(_heard)
    try:
        await store.write(turn.response_id, [encode_item(item) for item in output], end)
    except StoreError:
        # It fails where the beginning did, which says why.
        if begun.done() and not begun.cancelled() and (reason := begun.exception()):
            raise reason from None
        raise


def _heard(kept: asyncio.Future[None]) -> None:
    """Nobody waits for a beginning alone; its failure shows at the end."""
    if not kept.cancelled():
        kept.exception()
