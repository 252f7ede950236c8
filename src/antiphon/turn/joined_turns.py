"""Joined turns: the messages of a long chain's older turns in few pieces. Pure.

A call shows all of a chain. To join the messages of ten thousand turns one by one, and to look at
each, takes milliseconds of each turn; to join the same bytes in a hundred pieces takes a tenth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from antiphon.turn.message_rendering import RenderedTurn, message_pieces

#: How many turns a piece is of, at most; fewer than twice as many stay as they are.
_BLOCK: Final = 64


class JoinedTurns(msgspec.Struct, frozen=True):
    """The oldest turns of a chain: how many they are, and their messages.

    The last of them leaves no call open, so nothing of them depends on the turns behind.
    """

    count: int = 0
    pieces: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        """Bytes that the pieces take, besides the turns themselves."""
        return sum(map(len, self.pieces))


NONE_JOINED: Final = JoinedTurns()


def join_oldest(turns: Sequence[RenderedTurn], joined: JoinedTurns = NONE_JOINED) -> JoinedTurns:
    """The oldest turns of a chain, of which some are joined already."""
    if len(turns) - joined.count < 2 * _BLOCK:
        return joined
    count, pieces = joined.count, [*joined.pieces]
    while len(turns) - count >= 2 * _BLOCK:
        end = count + _BLOCK
        while end > count and turns[end - 1].open_calls:
            end -= 1
        if end == count:
            break
        pieces.append(b",".join(message_pieces(turns[count:end])))
        count = end
    return JoinedTurns(count, tuple(filter(None, pieces)))
