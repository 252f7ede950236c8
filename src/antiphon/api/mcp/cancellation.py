"""Which turns calls wait for, so that a caller can take a call back by its id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from antiphon.turn.running_turns import RunningTurn


class CallKey(msgspec.Struct, frozen=True):
    """A call as its caller knows it. ``session`` tells callers of one tenant apart."""

    tenant: str
    session: str
    request_id: str | int


class ActiveCalls:
    """Turns by the calls that wait for them, for as long as they do."""

    def __init__(self) -> None:
        self._turns: dict[CallKey, RunningTurn] = {}

    @contextmanager
    def track(self, key: CallKey | None, turn: RunningTurn) -> Iterator[None]:
        """While entered, a call waits for a turn. None: it cannot be told from others."""
        if key is None:
            yield
            return
        self._turns[key] = turn
        try:
            yield
        finally:
            # A caller may have used an id twice.
            if self._turns.get(key) is turn:
                del self._turns[key]

    def cancel(self, key: CallKey) -> None:
        """Stop what a call waits for, unless it is stored: that goes on."""
        turn = self._turns.get(key)
        if turn is not None and not turn.is_stored:
            turn.stop(None)
