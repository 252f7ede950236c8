"""One turn for a tool: which model, how it goes, and what comes of it.

Tells a caller, while a model writes, that it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import msgspec

from antiphon.api.mcp.caller import Caller, Report
from antiphon.core.events import Event, RawReasoningDelta, ReasoningDelta, RefusalDelta, TextDelta
from antiphon.core.turns import Response, TurnRequest
from antiphon.errors import AntiphonError, InvalidRequestError, ModelNotFoundError
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService

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


#: How many names are remembered that no model has.
_MOST_NAMES = 256


class Asking:
    """Asks models. Where there is none of a name, the server's default one is asked.

    Only the upstream knows all names that it serves, so what it does not know is found
    out by asking, and remembered.
    """

    def __init__(self, service: TurnService) -> None:
        self._service = service
        self._unserved: set[str] = set()

    async def ask(self, caller: Caller, request: TurnRequest) -> tuple[Response, tuple[str, ...]]:
        """The turn's end, and warnings. Raises what the turn failed of.

        A caller that leaves takes an unstored turn with it; a stored one goes on.
        """
        request = msgspec.structs.replace(
            request, tenant=caller.tenant, stream=caller.report is not None
        )
        name = request.model
        if name is not None and not self._has(name):
            return await self._ask_default(caller, request, name)
        try:
            return await self._ask(caller, request), ()
        except ModelNotFoundError as error:
            if name is None or not self._has(None):
                raise
            if error.response_id is not None:
                # It would be a turn that nobody asked for, beside the one that follows.
                await self._service.delete(caller.tenant, error.response_id)
            self._forget_some()
            self._unserved.add(name)
        return await self._ask_default(caller, request, name)

    async def _ask_default(
        self, caller: Caller, request: TurnRequest, name: str
    ) -> tuple[Response, tuple[str, ...]]:
        response = await self._ask(caller, msgspec.structs.replace(request, model=None))
        return response, (
            f"There is no model '{name}' here: '{response.header.model}' answered instead."
            " Call list_models to see which there are.",
        )

    async def _ask(self, caller: Caller, request: TurnRequest) -> Response:
        with caller.place():
            turn = await self._service.start(request)
        try:
            with caller.waiting(turn):
                return await _followed(caller, turn)
        except BaseException:
            if not turn.is_stored:
                # Not waited for: whoever is cancelled here may not wait any more.
                turn.stop(None)
            raise

    def _has(self, name: str | None) -> bool:
        """Whether there is a model of that name; None: whether there is a default one."""
        if name in self._unserved and self._has(None):
            return False
        try:
            self._service.models.get(name)
        except ModelNotFoundError:
            # Without a default this is the error to show: let the turn raise it.
            return not self._has(None)
        except InvalidRequestError:
            return False
        return True

    def _forget_some(self) -> None:
        if len(self._unserved) >= _MOST_NAMES:
            self._unserved.pop()


async def _followed(caller: Caller, turn: RunningTurn) -> Response:
    async with Progress(caller.report, turn.initial_response.header.model) as progress:
        async for events in turn.events():
            progress.hear(events)
        response = await turn.result()
    if turn.error is not None and response.status == "failed":
        raise _named(turn.error, response)
    return response


def _named(error: AntiphonError, response: Response) -> AntiphonError:
    if response.store:
        error.response_id = response.id
    return error
