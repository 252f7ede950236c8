"""Token prices: what tokens cost, in the currency of the prices and in xAI's units. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from antiphon.core.turns import Usage

# Both units are defined in github.com/xai-org/xai-proto, below proto/xai/api/v1; the SDK ships
# those messages without their comments.

#: Of a dollar; ``SamplingUsage.cost_in_usd_ticks`` counts them (usage.proto).
_TICKS_PER_DOLLAR: Final = 10_000_000_000
#: ``LanguageModel`` has its prices in hundredths of a cent for a million tokens, the cached ones in
#: cents for a hundred million, which is the same number (models.proto).
_HUNDREDTHS_OF_A_CENT: Final = 10_000


class TokenPrice(Protocol):
    """The price of a million tokens. ``cached`` None: as much as others."""

    @property
    def input(self) -> float: ...

    @property
    def output(self) -> float: ...

    @property
    def cached(self) -> float | None: ...


#: The price of a model, by its name. None: nobody has set one.
PriceLookup: TypeAlias = Callable[[str], TokenPrice | None]


def no_prices(model: str) -> TokenPrice | None:
    """Where nobody has set any."""
    return None


def cached_price(price: TokenPrice) -> float:
    return price.input if price.cached is None else price.cached


def round_cost(cost: float) -> float:
    """A cost as it is shown: to a ten-billionth, without what sums of binary fractions leave."""
    return round(cost, 10)


def token_cost(usage: Usage, price: TokenPrice) -> float:
    """What a turn's tokens cost."""
    return usage.cost(price.input, cached_price(price), price.output)


def cost_in_ticks(usage: Usage, price: TokenPrice) -> int:
    """What a turn's tokens cost, in xAI's ticks."""
    return round(token_cost(usage, price) * _TICKS_PER_DOLLAR)


def list_price(dollars: float) -> int:
    """A price as xAI's lists of models have it: 30000 are 3 dollars for a million tokens."""
    return round(dollars * _HUNDREDTHS_OF_A_CENT)
