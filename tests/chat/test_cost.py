"""Usage and cost of conversations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon import AntiphonError, Usage, tool
from antiphon.chat.reply import conversation_usage
from antiphon.core.token_prices import token_cost
from antiphon.core.turns import End, Header, Response
from antiphon.settings import ModelSettings, Price
from support.chat_harness import Call, ChatHarness, ModelAnswer
from support.misbehaving_upstream import refuse


def turn(model: str, usage: Usage | None) -> Response:
    end = End("completed", 1.0, usage)
    return Response(id=f"resp_{model}", created_at=0.0, header=Header(model), input=(), end=end)


def test_prices_are_per_million_tokens() -> None:
    usage = Usage(input_tokens=1_000_000, output_tokens=500_000, cached_tokens=400_000)
    assert token_cost(usage, Price(input=2, output=10)) == pytest.approx(2 + 5)
    assert token_cost(usage, Price(input=2, output=10, cached=0.5)) == pytest.approx(1.2 + 0.2 + 5)
    assert token_cost(usage, Price(input=2, output=10, cached=0)) == pytest.approx(1.2 + 5)


tokens = st.integers(0, 10**7)


@given(tokens, tokens, tokens)
def test_cached_price_equal_to_input_price_changes_nothing(
    uncached: int, cached: int, out: int
) -> None:
    usage = Usage(uncached + cached, out, cached)
    assert token_cost(usage, Price(3, 4)) == pytest.approx(token_cost(usage, Price(3, 4, cached=3)))


def test_usage_without_turns_is_zero_with_unknown_cost() -> None:
    usage = conversation_usage([], {})
    assert (usage.total, usage.cost, usage.turns) == (Usage(), None, ())


def test_turn_without_a_price_makes_the_total_cost_unknown() -> None:
    models = {
        "paid": ModelSettings(kind="scripted", price=Price(1, 1)),
        "free": ModelSettings(kind="scripted", price=Price(0, 0)),
        "some": ModelSettings(kind="scripted"),
    }
    paid, free = turn("paid", Usage(1_000_000)), turn("free", Usage(5))
    assert conversation_usage([paid, free], models).cost == pytest.approx(1)
    assert conversation_usage([free], models).cost == 0
    assert conversation_usage([paid, turn("some", Usage(5))], models).cost is None
    assert conversation_usage([paid, turn("elsewhere", Usage(5))], models).cost is None
    # A turn without reported usage, such as a loaded one, adds no cost.
    loaded = conversation_usage([paid, turn("some", None)], models)
    assert loaded.cost == pytest.approx(1)
    assert (loaded.turns[1].usage, loaded.turns[1].cost) == (None, None)


def test_conversation_usage_sums_its_turns(harness: ChatHarness) -> None:
    @tool
    def ping() -> str:
        """Answer."""
        return "pong"

    price = Price(input=1, output=2, cached=0.5)
    chat = harness.new(tools=[ping], settings=harness.make_settings(price=price))
    harness.upstream.plan_answers(
        ModelAnswer("One.", tokens=(100, 10, 50)),
        ModelAnswer(calls=(Call("ping"),), tokens=(200, 20, 100)),
        ModelAnswer("Two.", tokens=(300, 30, 200)),
        refuse(400),
    )
    first, second = chat.send("1"), chat.send("2")
    with pytest.raises(AntiphonError):
        chat.send("3")
    usage = chat.usage()
    assert usage.total == Usage(600, 60, 350)
    assert [line.response_id for line in usage.turns] == [first.response_id, second.response_id]
    assert [line.usage for line in usage.turns] == [Usage(100, 10, 50), Usage(500, 50, 300)]
    assert second.usage == Usage(500, 50, 300), "usage of both model calls"
    assert [line.model for line in usage.turns] == ["m", "m"]
    costs = [(50 + 25 + 20) / 1e6, (200 + 150 + 100) / 1e6]
    assert [line.cost for line in usage.turns] == pytest.approx(costs)
    assert usage.cost == pytest.approx(sum(costs))
    # A branch does not include the usage of other branches.
    branch = chat.branch(first.response_id)
    assert branch.usage().total == Usage(100, 10, 50)
    assert harness.new().usage().cost is None
