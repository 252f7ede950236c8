"""Pricing: the cost of a turn's tokens in the units of xAI's API."""

from __future__ import annotations

from antiphon.core.token_prices import TokenPrice, token_cost
from antiphon.core.turns import Usage

# Both units are defined in github.com/xai-org/xai-proto, below proto/xai/api/v1; the SDK ships
# those messages without their comments.

#: Of a dollar; ``SamplingUsage.cost_in_usd_ticks`` counts them (usage.proto).
_TICKS_PER_DOLLAR = 10_000_000_000
#: ``LanguageModel`` has its prices in hundredths of a cent for a million tokens, the cached ones in
#: cents for a hundred million, which is the same number (models.proto).
_HUNDREDTHS_OF_A_CENT = 10_000


def cost_in_ticks(usage: Usage, price: TokenPrice) -> int:
    """What a turn's tokens cost."""
    return round(token_cost(usage, price) * _TICKS_PER_DOLLAR)


def list_price(dollars: float) -> int:
    """A price as lists of models have it: 30000 are 3 dollars for a million tokens."""
    return round(dollars * _HUNDREDTHS_OF_A_CENT)
