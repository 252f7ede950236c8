"""Context builder: chooses the turns of one model call, by policy, and counts their tokens."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from antiphon.core.context_policies import ContextPolicy
from antiphon.core.turns import Header
from antiphon.turn.history_cache import History
from antiphon.turn.joined_turns import NONE_JOINED, JoinedTurns
from antiphon.turn.message_rendering import RenderedTurn, message_pieces
from antiphon.turn.protocols import Model, ModelCall
from antiphon.turn.trimming import (
    apply_policies,
    base_tokens,
    budget_of,
    check_budget,
    drop_oldest_turns,
    required_turns,
    tokens_of,
)


class ModelContext(msgspec.Struct, frozen=True):
    """The turns that are shown, and what surrounds the newest of them, in tokens.

    ``joined`` are the oldest of them.
    """

    turns: Sequence[RenderedTurn]
    other_tokens: int
    joined: JoinedTurns = NONE_JOINED


class ContextBuilder:
    """Chooses what one turn shows its model, call after call."""

    def __init__(self, header: Header, model: Model, policies: Sequence[ContextPolicy]) -> None:
        self._header = header
        self._model = model
        self._policies = policies
        self._base_tokens = base_tokens(header, model.info.few_shot)

    async def build(self, history: History, new: RenderedTurn) -> ModelContext:
        """What is shown of a history and a turn behind it.

        Raises ``ContextLengthExceededError`` where what must be shown is over the budget.
        """
        turns = (*history.turns, new)
        if not self._policies:
            return ModelContext(turns, self._base_tokens + history.tokens, history.joined)
        shown = await self._trim_to_policies(turns)
        return ModelContext(shown, self.other_tokens(shown))

    def other_tokens(self, turns: Sequence[RenderedTurn]) -> int:
        """What is shown besides the newest of these turns, in tokens."""
        return self._base_tokens + sum(map(tokens_of, turns[:-1]))

    def model_call(
        self,
        turns: Sequence[RenderedTurn],
        header: Header,
        *,
        stream: bool,
        joined: JoinedTurns = NONE_JOINED,
        gather_seconds: float = 0.0,
    ) -> ModelCall:
        """The question to the model. ``joined`` are the oldest of the turns."""
        pieces = message_pieces(
            turns[joined.count :] if joined.count else turns,
            instructions=header.instructions,
            few_shot=self._model.info.few_shot,
            older=joined.pieces,
        )
        return ModelCall(header.model, pieces, header.options, stream, gather_seconds)

    async def turns_before_input(self, history: History) -> Sequence[RenderedTurn]:
        """What a continuation of that chain would show before its new input."""
        # What comes next has no words yet; all that is known of it is whose outputs it brings.
        newest = history.turns[-1] if history.turns else RenderedTurn(b"")
        owed = newest.open_calls if newest.completed else ()
        coming = RenderedTurn(b"", outputs=dict.fromkeys(owed, b""))
        return (await self.build(history, coming)).turns[:-1]

    async def _trim_to_policies(self, turns: Sequence[RenderedTurn]) -> Sequence[RenderedTurn]:
        budget = budget_of(self._policies)
        if budget is None:
            return apply_policies(turns, self._policies, 0)
        smallest = required_turns(turns)
        start = await self._count_tokens(smallest)
        exact = start is not None
        if start is None:
            start = self._base_tokens + sum(map(tokens_of, smallest))
        shown = apply_policies(turns, self._policies, start)
        while exact and (used := await self._count_tokens(shown) or 0) > budget:
            shorter = drop_oldest_turns(shown, used - budget)
            if shorter is shown:
                check_budget(used, budget)
            shown = shorter
        return shown

    async def _count_tokens(self, turns: Sequence[RenderedTurn]) -> int | None:
        return await self._model.count_tokens(self.model_call(turns, self._header, stream=False))
