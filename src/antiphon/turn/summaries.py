"""Summaries as stored turns: made by the model, kept behind what they sum up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from antiphon.core.context_policies import Summarize
from antiphon.core.ids import new_response_id
from antiphon.core.items import Item, encode_item
from antiphon.core.turns import End, Header, TurnRequest
from antiphon.errors import HistoryChanged, StoreError
from antiphon.turn.history_cache import History, Past
from antiphon.turn.message_rendering import Segment, render
from antiphon.turn.protocols import Head, Model, NewTurn, Store
from antiphon.turn.summarization import digest
from antiphon.turn.trimming import base_tokens, collapse, divide, due, tokens_of, worth


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
