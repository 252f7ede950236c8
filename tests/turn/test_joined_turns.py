"""``joined_turns``: a long chain is shown as it is turn by turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.turns import FunctionTool
from antiphon.turn import joined_turns
from antiphon.turn.history_cache import History
from antiphon.turn.joined_turns import JoinedTurns, join_oldest
from antiphon.turn.message_rendering import RenderedTurn, join_pieces, message_pieces
from support.chain_strategies import Chain, chains

PLAIN = RenderedTurn(b'{"role":"user","content":"Hi"}')


def shown(turns: tuple[RenderedTurn, ...], joined: JoinedTurns) -> bytes:
    return join_pieces(message_pieces(turns[joined.count :], older=joined.pieces))


@given(chains(), st.integers(1, 3))
def test_messages_are_those_of_all_turns(chain: Chain, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joined_turns, "_BLOCK", block)
        history = History()
        for turn in chain.turns:
            history = history.extended((turn.segment(),))
            every = join_pieces(message_pieces(history.turns))
            assert shown(history.turns, history.joined) == every
            assert shown(history.turns, join_oldest(history.turns)) == every


def test_long_chain_is_few_pieces_and_keeps_the_tools_it_adds() -> None:
    tool = FunctionTool("look")
    adding = RenderedTurn(b"", added_tools=(tool,))
    history = History().extended((adding, *[PLAIN] * 999))
    for _ in range(100):
        history = history.extended((PLAIN,))
    rest = len(history.turns) - history.joined.count
    assert rest < 2 * joined_turns._BLOCK
    assert len(history.joined.pieces) < 20
    assert history.added_tools == (tool,)


def test_turns_whose_calls_are_open_are_not_joined() -> None:
    asking = RenderedTurn(b"{}", open_calls=("call_0",))
    assert join_oldest([asking] * 500) == JoinedTurns()
