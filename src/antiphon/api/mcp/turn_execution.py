"""MCP turn execution: runs one turn for a tool, with model fallback and progress reports."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import msgspec

from antiphon.api.mcp.request_context import McpCaller, ProgressFn
from antiphon.core.events import Event, RawReasoningDelta, ReasoningDelta, RefusalDelta, TextDelta
from antiphon.core.turns import Response, TurnRequest
from antiphon.errors import AntiphonError, InvalidRequestError, ModelNotFoundError
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService

#: Seconds between two reports. Many clients give up on a server that is silent for a minute.
_INTERVAL: Final = 1.0


class ProgressReporter:
    """While entered, reports now and then. ``report`` None: does nothing."""

    def __init__(self, report: ProgressFn | None, model: str) -> None:
        self._report = report
        self._model = model
        self._reasoning_length = self._text_length = 0
        self._report_count = 0
        self._task: asyncio.Task[None] | None = None

    def observe(self, events: Sequence[Event]) -> None:
        """Events of the turn."""
        for event in events:
            if isinstance(event, TextDelta | RefusalDelta):
                self._text_length += len(event.text)
            elif isinstance(event, ReasoningDelta | RawReasoningDelta):
                self._reasoning_length += len(event.text)

    async def __aenter__(self) -> Self:
        if self._report is not None:
            self._task = asyncio.create_task(self._report_periodically(self._report))
            self._task.add_done_callback(_consume_exception)
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
            await self._send_report(self._report)

    async def _report_periodically(self, report: ProgressFn) -> None:
        while True:
            await self._send_report(report)
            await asyncio.sleep(_INTERVAL)

    async def _send_report(self, report: ProgressFn) -> None:
        # Each report has to show more than the one before it, even where nothing was written.
        self._report_count += 1
        await report(self._report_count, self._message())

    def _message(self) -> str:
        if self._text_length:
            return f"{self._model} has written {self._text_length} characters"
        if self._reasoning_length:
            return f"{self._model} is thinking"
        return f"{self._model} was asked"


def _consume_exception(task: asyncio.Task[None]) -> None:
    """A caller that cannot be told is gone: the turn learns of that in its own way."""
    if not task.cancelled():
        task.exception()


#: How many names are remembered that no model has.
_MAX_UNKNOWN_MODELS = 256


class TurnExecutor:
    """Asks models. Where there is none of a name, the server's default one is asked.

    Only the upstream knows all names that it serves, so what it does not know is found
    out by asking, and remembered.
    """

    def __init__(self, service: TurnService) -> None:
        self._service = service
        self._unknown_models: set[str] = set()

    async def execute(
        self, caller: McpCaller, request: TurnRequest
    ) -> tuple[Response, tuple[str, ...]]:
        """The turn's end, and warnings. Raises what the turn failed of.

        A caller that leaves takes an unstored turn with it; a stored one goes on.
        """
        request = msgspec.structs.replace(
            request,
            tenant=caller.tenant,
            key_id=caller.key_id,
            stream=caller.report_progress is not None,
        )
        name = request.model
        if name is not None and not self._has_model(name):
            return await self._execute_with_default_model(caller, request, name)
        try:
            return await self._execute(caller, request), ()
        except ModelNotFoundError as error:
            if name is None or not self._has_model(None):
                raise
            if error.response_id is not None:
                # It would be a turn that nobody asked for, beside the one that follows.
                await self._service.delete(caller.tenant, error.response_id)
            self._evict_unknown_model()
            self._unknown_models.add(name)
        return await self._execute_with_default_model(caller, request, name)

    async def _execute_with_default_model(
        self, caller: McpCaller, request: TurnRequest, name: str
    ) -> tuple[Response, tuple[str, ...]]:
        response = await self._execute(caller, msgspec.structs.replace(request, model=None))
        return response, (
            f"There is no model '{name}' here: '{response.header.model}' answered instead."
            " Call list_models to see which there are.",
        )

    async def _execute(self, caller: McpCaller, request: TurnRequest) -> Response:
        async with caller.concurrency_slot():
            turn = await self._service.start(request)
        try:
            with caller.track_turn(turn):
                return await _wait_with_progress(caller, turn)
        except BaseException:
            if not turn.is_stored:
                # Not waited for: whoever is cancelled here may not wait any more.
                turn.stop(None)
            raise

    def _has_model(self, name: str | None) -> bool:
        """Whether there is a model of that name; None: whether there is a default one."""
        if name in self._unknown_models and self._has_model(None):
            return False
        try:
            self._service.models.get(name)
        except ModelNotFoundError:
            # Without a default this is the error to show: let the turn raise it.
            return not self._has_model(None)
        except InvalidRequestError:
            return False
        return True

    def _evict_unknown_model(self) -> None:
        if len(self._unknown_models) >= _MAX_UNKNOWN_MODELS:
            self._unknown_models.pop()


async def _wait_with_progress(caller: McpCaller, turn: RunningTurn) -> Response:
    async with ProgressReporter(
        caller.report_progress, turn.initial_response.header.model
    ) as progress:
        async for events in turn.events():
            progress.observe(events)
        response = await turn.result()
    if turn.error is not None and response.status == "failed":
        raise _with_response_id(turn.error, response)
    return response


def _with_response_id(error: AntiphonError, response: Response) -> AntiphonError:
    if response.store:
        error.response_id = response.id
    return error
