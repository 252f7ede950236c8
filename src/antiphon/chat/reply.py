"""Replies and usage: a turn's answer, and a conversation's tokens and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from antiphon.core.items import (
    Compaction,
    ErasedItem,
    FunctionCall,
    FunctionCallOutput,
    Item,
    message_text,
)
from antiphon.core.token_prices import round_cost, token_cost
from antiphon.core.turns import Response, ResponseStatus, Usage
from antiphon.errors import InvalidRequestError
from antiphon.settings import ModelSettings


def conversation_usage(
    turns: Sequence[Response], models: Mapping[str, ModelSettings]
) -> ConversationUsage:
    """Add up a chain's turns."""
    lines = tuple(_turn_usage(turn, models) for turn in turns)
    costs = [line.cost for line in lines if line.usage is not None]
    used = [line.usage for line in lines if line.usage is not None]
    has_cost = bool(costs) and None not in costs
    return ConversationUsage(
        total=sum(used, Usage()),
        cost=round_cost(sum(cost for cost in costs if cost)) if has_cost else None,
        turns=lines,
    )


def _turn_usage(turn: Response, models: Mapping[str, ModelSettings]) -> TurnUsage:
    usage = turn.end.usage if turn.end else None
    model = models.get(turn.model)
    price = model.price if model else None
    cost = token_cost(usage, price) if usage is not None and price is not None else None
    return TurnUsage(turn.id, turn.model, usage, cost)


T = TypeVar("T")


class Reply(msgspec.Struct, Generic[T], frozen=True):
    """The model's answer to one message.

    ``text`` is what it said last, after any tools; ``output`` are all items of the turn:
    words, tool calls, their outputs. ``status`` is "completed", or "incomplete" if the
    answer was cut at its length limit or the model asked for tools too often.
    ``pending`` are the calls that wait for a decision. ``usage`` counts the tokens of all
    calls to the model, None where it reported none.
    """

    text: str
    response_id: str
    status: ResponseStatus
    model: str
    usage: Usage | None
    output: tuple[Item, ...] = ()
    pending: tuple[FunctionCall, ...] = ()
    #: ``parsed``, or nothing yet.
    value: T | None = None

    @property
    def parsed(self) -> T:
        """The answer as the type that was asked for by ``returns``; None without it.

        Raises ``InvalidRequestError`` while calls wait for a decision: there is no answer yet.
        """
        if self.pending and self.value is None:
            raise InvalidRequestError(
                f"There is no answer yet: {format_call_names(self.pending)} waits for a decision.",
                code="decision_needed",
                param="decisions",
            )
        return self.value  # type: ignore[return-value]


class TurnUsage(msgspec.Struct, frozen=True):
    """One turn's tokens. ``cost`` is in the currency of the prices set, None without a price."""

    response_id: str
    model: str
    usage: Usage | None
    cost: float | None


class ConversationUsage(msgspec.Struct, frozen=True):
    """The tokens of a conversation: in all, and turn by turn, oldest first.

    ``cost`` is None unless every turn that reported tokens has a price. Turns beside the
    chain (failed ones, other branches) are not counted.
    """

    total: Usage
    cost: float | None
    turns: tuple[TurnUsage, ...]


def build_reply(response: Response, value: Any = None) -> Reply[Any]:
    """The ``Reply`` of an ended response."""
    return Reply(
        text=final_text(response.output),
        response_id=response.id,
        status=response.status,
        model=response.model,
        usage=response.end.usage if response.end else None,
        output=response.output,
        pending=response.open_calls,
        value=value,
    )


def final_text(output: tuple[Item, ...]) -> str:
    """The text after the last tool output."""
    words: list[str] = []
    for item in output:
        if isinstance(item, FunctionCallOutput):
            words.clear()
        else:
            words.append(item.summary if isinstance(item, Compaction) else message_text(item))
    return "".join(words)


def is_summary(response: Response) -> bool:
    """Whether a turn is a summary of those before it."""
    only_output = bool(response.output) and not response.input
    return only_output and all(map(_is_summary_item, response.output))


def _is_summary_item(item: Item) -> bool:
    return isinstance(item, Compaction) or (isinstance(item, ErasedItem) and item.is_summary)


def format_call_names(calls: tuple[FunctionCall, ...]) -> str:
    """Calls for a sentence: their names and ids."""
    return ", ".join(f"{call.name} ('{call.call_id}')" for call in calls)
