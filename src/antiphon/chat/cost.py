"""What turns took: tokens, and money where prices are set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from antiphon.chat.reply import ConversationUsage, TurnUsage
from antiphon.core.turns import Response, Usage
from antiphon.settings import ModelSettings, Price

#: Prices are for so many tokens.
_MILLION = 1_000_000


def usage_of(turns: Sequence[Response], models: Mapping[str, ModelSettings]) -> ConversationUsage:
    """Add up a chain's turns."""
    lines = tuple(_line(turn, models) for turn in turns)
    costs = [line.cost for line in lines if line.usage is not None]
    used = [line.usage for line in lines if line.usage is not None]
    return ConversationUsage(
        total=Usage(
            *(sum(getattr(one, field) for one in used) for field in Usage.__struct_fields__)
        ),
        cost=None if not costs or None in costs else sum(cost for cost in costs if cost),
        turns=lines,
    )


def cost_of(usage: Usage, price: Price) -> float:
    """The price of a turn's tokens. Cached ones cost as much as others unless priced apart."""
    cached = price.input if price.cached is None else price.cached
    fresh = usage.input_tokens - usage.cached_tokens
    return (
        fresh * price.input + usage.cached_tokens * cached + usage.output_tokens * price.output
    ) / _MILLION


def _line(turn: Response, models: Mapping[str, ModelSettings]) -> TurnUsage:
    usage = turn.end.usage if turn.end else None
    model = models.get(turn.header.model)
    price = model.price if model else None
    cost = cost_of(usage, price) if usage is not None and price is not None else None
    return TurnUsage(turn.id, turn.header.model, usage, cost)
