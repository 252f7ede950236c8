"""What a model is shown at one call, with the model's own tokenizer asked where it has one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from antiphon.core.context_policies import Policy
from antiphon.core.turns import Header
from antiphon.turn.message_rendering import Segment, assemble
from antiphon.turn.protocols import Model, ModelCall
from antiphon.turn.trimming import (
    base_tokens,
    budget_of,
    check_alone,
    drop_oldest,
    fit,
    least,
    tokens_of,
)


class View(msgspec.Struct, frozen=True):
    """The turns that are shown, and what surrounds the newest of them, in tokens."""

    segments: Sequence[Segment]
    around: int


class Viewer:
    """Chooses what one turn shows its model, call after call."""

    def __init__(self, header: Header, model: Model, context: Sequence[Policy]) -> None:
        self._header = header
        self._model = model
        self._context = context
        self._base = base_tokens(header, model.info.primer)

    async def view(self, segments: Sequence[Segment], around: int) -> View:
        """What of these turns is shown; ``around`` is what the older ones take, in tokens.

        Raises ``ContextLengthExceeded`` where what must be shown is over the budget.
        """
        if not self._context:
            return View(segments, self._base + around)
        shown = await self._within_budget(segments)
        return View(shown, self.around(shown))

    def around(self, shown: Sequence[Segment]) -> int:
        """What is shown besides the newest of these turns, in tokens."""
        return self._base + sum(map(tokens_of, shown[:-1]))

    def call(self, segments: Sequence[Segment], header: Header, *, stream: bool) -> ModelCall:
        """The question to the model."""
        return ModelCall(
            model=header.model,
            messages=assemble(
                segments, instructions=header.instructions, primer=self._model.info.primer
            ),
            options=header.options,
            stream=stream,
        )

    async def _within_budget(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        budget = budget_of(self._context)
        if budget is None:
            return fit(segments, self._context, 0)
        smallest = least(segments)
        start = await self._count(smallest)
        exact = start is not None
        if start is None:
            start = self._base + sum(map(tokens_of, smallest))
        shown = fit(segments, self._context, start)
        while exact and (used := await self._count(shown) or 0) > budget:
            shorter = drop_oldest(shown, used - budget)
            if shorter is shown:
                check_alone(used, budget)
            shown = shorter
        return shown

    async def _count(self, segments: Sequence[Segment]) -> int | None:
        return await self._model.count(self.call(segments, self._header, stream=False))
