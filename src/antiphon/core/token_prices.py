"""Token prices: what a model's tokens cost, in the currency of the prices. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from antiphon.core.turns import Usage


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
