"""Tells a caller, while a model writes, that it does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from antiphon.api.mcp.caller import Report
from antiphon.core.events import Event, RawReasoningDelta, ReasoningDelta, RefusalDelta, TextDelta

#: Seconds between two reports. Many clients give up on a server that is silent for a minute.
_EVERY: Final = 1.0


class Progress:
    """While entered, reports now and then. ``report`` None: does nothing."""

    def __init__(self, report: Report | None, model: str) -> None:
        self._report = report
        self._model = model
        self._thought = self._written = 0
        self._reports = 0
        self._task: asyncio.Task[None] | None = None

    def hear(self, events: Sequence[Event]) -> None:
        """Events of the turn."""
        for event in events:
            if isinstance(event, TextDelta | RefusalDelta):
                self._written += len(event.text)
            elif isinstance(event, ReasoningDelta | RawReasoningDelta):
                self._thought += len(event.text)

    async def __aenter__(self) -> Self:
        if self._report is not None:
            self._task = asyncio.create_task(self._tick(self._report))
            self._task.add_done_callback(_heard)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._report is not None and kind is None:
            await self._tell(self._report)

    async def _tick(self, report: Report) -> None:
        while True:
            await self._tell(report)
            await asyncio.sleep(_EVERY)

    async def _tell(self, report: Report) -> None:
        # Each report has to show more than the one before it, even where nothing was written.
        self._reports += 1
        await report(self._reports, self._words())

    def _words(self) -> str:
        if self._written:
            return f"{self._model} has written {self._written} characters"
        if self._thought:
            return f"{self._model} is thinking"
        return f"{self._model} was asked"


def _heard(task: asyncio.Task[None]) -> None:
    """A caller that cannot be told is gone: the turn learns of that in its own way."""
    if not task.cancelled():
        task.exception()
