"""Exchanges: divides a turn whose input is a whole history where a person speaks again. Pure.

Clients that keep their histories send them as one input. Where that is too long for a model, its
oldest exchanges are left out, as the oldest turns of a stored history are.
"""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.core.foreign_items import function_views
from antiphon.core.items import FunctionCall, FunctionCallOutput, Item, Message
from antiphon.turn.message_rendering import RenderedTurn, render_turn
from antiphon.turn.trimming import count_turns


def split_exchanges(items: Sequence[Item], *, by_rounds: bool = False) -> list[list[Item]]:
    """The items in their order; each group but the first begins with what a user says.

    A call and its output are in one group. The output of a call that an earlier turn made belongs
    to what is said after it. ``by_rounds``: a group also ends where a model answers outputs.
    """
    groups: list[list[Item]] = [[]]
    open_calls: set[str] = set()
    is_answered = is_round_over = False
    for item, view in zip(items, function_views(items), strict=True):
        is_output = isinstance(view, FunctionCallOutput)
        if by_rounds and is_round_over and not is_output:
            groups.append([])
            is_answered = False
        is_client_turn = isinstance(item, Message) and item.role != "assistant"
        is_question = is_client_turn
        if isinstance(view, FunctionCall):
            open_calls.add(view.call_id)
        elif isinstance(view, FunctionCallOutput):
            is_client_turn = view.call_id not in open_calls
            open_calls.discard(view.call_id)
        if is_question and is_answered and not open_calls:
            groups.append([])
            is_answered = False
        is_answered = is_answered or not is_client_turn
        is_round_over = is_output and not open_calls
        groups[-1].append(item)
    return groups


def render_exchanges(items: Sequence[Item], *, by_rounds: bool = False) -> list[RenderedTurn]:
    """A turn's items as its exchanges are shown."""
    return [render_turn(group) for group in split_exchanges(items, by_rounds=by_rounds)]


def turns_besides(
    turns: Sequence[RenderedTurn], others: Sequence[RenderedTurn]
) -> list[RenderedTurn]:
    """Those that are none of the others themselves, though one of these may say the same."""
    known = set(map(id, others))
    return [one for one in turns if id(one) not in known]


def context_turn_count(
    shown: Sequence[RenderedTurn],
    exchanges: Sequence[RenderedTurn],
    history: Sequence[RenderedTurn],
) -> int | None:
    """How many earlier turns a call showed (``End.context_turns``).

    ``exchanges`` are those of the turn itself, where it was shown without some of them.
    """
    if left_out := turns_besides(exchanges, shown):
        return -len(left_out)
    earlier = turns_besides(shown, exchanges) if exchanges else shown[:-1]
    count = count_turns(earlier)
    return count if count < count_turns(history) else None
