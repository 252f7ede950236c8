"""Queued turns: background turns that are stored, and begin once the turn before has been answered.

What such a turn is to say is on disk as that of every other one, in its place behind the turn that
it waits for; whether it still waits is not stored, but follows from that turn (``turn_reader``). So
no crash can begin it twice, or not at all: a node that dies leaves it like any background turn.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Final

import msgspec

from antiphon.core.events import Created, Ended
from antiphon.core.ids import new_response_id, to_response_id
from antiphon.core.items import encode_item
from antiphon.core.turns import End, Header, Response, TurnError, TurnRequest
from antiphon.errors import (
    AntiphonError,
    HistoryChangedError,
    InvalidRequestError,
    NotFoundError,
    ResponseInProgressError,
    StoreError,
    TurnTakenOverError,
)
from antiphon.turn.cancellation import TurnCancellation
from antiphon.turn.conversation_lock import TurnRetries, wait_until_accepted
from antiphon.turn.node_protocols import NodeRegistry
from antiphon.turn.open_calls import pair_tool_outputs
from antiphon.turn.planning import TurnPlan, TurnPlanner, extract_images
from antiphon.turn.protocols import ModelProvider
from antiphon.turn.references import resolve_references
from antiphon.turn.runner import TurnRunner
from antiphon.turn.running_turns import RunningTurn, TurnRegistry, wait_uncancelled
from antiphon.turn.store_protocols import NewTurn, Store, StoredTurn, Window
from antiphon.turn.tool_calls import with_effective_approvals
from antiphon.turn.turn_reader import TurnReader, holds_back, response_not_found, response_of
from antiphon.turn.validation import render_input, turn_header, validate_input, with_served_options

log = logging.getLogger("antiphon.turn")

#: Seconds between two looks at a turn that failed, was stopped or waits for a person: another
#: process may erase it.
_RECHECK_INTERVAL: Final = 30.0
#: Seconds until a store that failed is asked again, and how often, before a turn is given up.
_RETRY_INTERVAL: Final = 1.0
_MAX_FAILURES: Final = 10


class QueuedTurns:
    """The queued turns of one process, each a task that waits for the turn before it."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        store: Store,
        models: ModelProvider,
        registry: TurnRegistry,
        reader: TurnReader,
        planner: TurnPlanner,
        cancellation: TurnCancellation,
        nodes: NodeRegistry | None,
    ) -> None:
        self._store = store
        self._models = models
        self._registry = registry
        self._reader = reader
        self._planner = planner
        self._cancellation = cancellation
        self._nodes = nodes
        self._held: set[asyncio.Future[None]] = set()
        self._erasures = 0

    async def start(self, request: TurnRequest) -> RunningTurn | None:
        """Store a turn that has to wait; None: the one before it has been answered.

        Raises what is wrong with the request.
        """
        retries = TurnRetries(request)
        while True:
            new = await self._plan(request)
            if new is None:
                return None
            turn = self._run(request, new[1], new[0])
            try:
                await wait_until_accepted(turn)
            except HistoryChangedError as error:
                retries.raise_if_last(error)
            else:
                return turn

    async def resume(self, tenant: str, stored: StoredTurn) -> RunningTurn:
        """Wait in the place of another process, which has died or given the turn up."""
        if self._nodes is not None and await self._reader.is_queued(tenant, stored.response_id):
            # It may wait for months, and through many deaths of processes.
            await self._nodes.uncount(stored.response_id)
        response = response_of(msgspec.structs.replace(stored, is_queued=True))
        return self._run(TurnRequest(input=response.input, tenant=tenant), response, None)

    def recheck(self) -> None:
        """Something was erased: what waits for it may begin."""
        self._erasures += 1
        for waiter in self._held:
            if not waiter.done():
                waiter.set_result(None)

    async def _plan(self, request: TurnRequest) -> tuple[NewTurn, Response] | None:
        """A turn to be stored, and how it is shown; None: there is nothing to wait for."""
        previous = to_response_id(request.previous_response_id or "")
        head = await self._store.head(request.tenant, previous)
        turns = await self._store.window(head, Window(1)) if head else []
        if not turns or turns[0].response_id != previous:
            raise response_not_found(previous, param="previous_response_id")
        if not holds_back(turns[0]):
            return None
        if turns[0].end is not None and turns[0].end.status == "completed":
            raise ResponseInProgressError(
                f"Calls of response '{previous}' wait for their outputs: send these first.",
                param="previous_response_id",
            )
        found = await resolve_references(request, self._reader)
        name, model = self._models.get(request.model)
        validate_input(found.request, model)
        request = with_served_options(found.request, model)
        header = await self._header(name, request)
        items, stored, blobs = await extract_images(tuple(pair_tool_outputs((), request.input)))
        render_input(items, request.instructions)
        response = Response(
            id=new_response_id(),
            created_at=time.time(),
            header=header,
            input=items,
            previous_response_id=previous,
            is_queued=True,
        )
        new = NewTurn(
            response_id=response.id,
            tenant=request.tenant,
            created_at=response.created_at,
            header=header,
            input=[encode_item(item) for item in stored],
            parent=head,
            sources=found.sources,
            blobs=blobs,
            reservation=request.reservation,
        )
        return new, response

    async def _header(self, name: str, request: TurnRequest) -> Header:
        header = turn_header(name, request)
        if header.restart is None:
            raise InvalidRequestError(
                "A turn with keys that are not stored, or with approvals, cannot be queued.",
                code="unsupported_parameter",
                param="on_busy",
            )
        if not request.mcp:
            return header
        toolset = await self._planner.open_toolset(request)
        await toolset.aclose()
        return with_effective_approvals(header, toolset)

    def _run(self, request: TurnRequest, response: Response, new: NewTurn | None) -> RunningTurn:
        self._registry.check_open()
        restart = response.header.restart
        turn = RunningTurn(
            response,
            is_streamed=restart is not None and restart.stream,
            request=request,
            is_queued=True,
        )
        self._registry.start(turn, self._run_in_turn(request.tenant, turn, new))
        return turn

    async def _run_in_turn(self, tenant: str, turn: RunningTurn, new: NewTurn | None) -> None:
        """Store the turn, wait until it is due, and run it: whatever goes wrong ends it."""
        begun: asyncio.Future[None]
        if new is None:
            begun = asyncio.get_running_loop().create_future()
            begun.set_result(None)
        else:
            begun = self._store.begin(new)
        begun.add_done_callback(turn.on_request_stored)
        try:
            await wait_uncancelled(begun)
        except AntiphonError as error:
            turn.is_rejected = True
            turn.fail(error)
            return
        turn.emit([Created(turn.initial_response)])
        turn.mark_running()
        try:
            if turn.is_stopping:
                raise asyncio.CancelledError
            plan = await self._wait_for_plan(tenant, turn.response_id)
        except asyncio.CancelledError:
            turn.mark_ending()
            await self._end(turn, turn.stop_error)
            return
        except AntiphonError as error:
            turn.mark_ending()
            await self._end(turn, error)
            return
        except Exception:
            log.exception("turn %s could not begin", turn.response_id)
            turn.mark_ending()
            await self._end(turn, AntiphonError("The server failed at this turn."))
            return
        turn.mark_ending()
        self._registry.begin_queued(turn)
        await TurnRunner(plan, turn, self._store).run()

    async def _wait_for_plan(self, tenant: str, response_id: str) -> TurnPlan:
        """The plan of a turn, once it is due."""
        failures = 0
        while True:
            try:
                await self._wait_until_due(tenant, response_id)
                return await self._planner.plan_restart(tenant, response_id)
            except (HistoryChangedError, StoreError) as error:
                # What was promised waits for a database that is away, and is planned again where
                # something was erased meanwhile, such as what waits behind it.
                failures += 1
                if failures == _MAX_FAILURES:
                    raise
                if isinstance(error, StoreError):
                    await asyncio.sleep(_RETRY_INTERVAL)

    async def _wait_until_due(self, tenant: str, response_id: str) -> None:
        """Wait until the turn before has been answered. Raises ``NotFoundError``: it is erased."""
        while True:
            erasures = self._erasures
            try:
                previous = await self._reader.previous(tenant, response_id)
            except StoreError:
                await asyncio.sleep(_RETRY_INTERVAL)
                continue
            if not holds_back(previous) and not self._registry.is_draining:
                return
            if previous is None or previous.end is not None:
                await self._wait_for_erasure(erasures)
                continue
            running = self._registry.get(previous.response_id)
            if running is not None and not running.done():
                # What becomes of it is read from the store.
                with suppress(AntiphonError):
                    await running.result()
            elif not await self._reader.persist_missing_end(previous.response_id):
                await self._cancellation.wait_elsewhere(tenant, previous.response_id)

    async def _wait_for_erasure(self, seen: int) -> None:
        """Wait for an erasure, of which so many were seen, or for a while."""
        if self._erasures != seen:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._held.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=_RECHECK_INTERVAL)
        finally:
            self._held.discard(waiter)

    async def _end(self, turn: RunningTurn, error: AntiphonError | None) -> None:
        """End a turn that never began: it was stopped, erased, or cannot be run here."""
        if isinstance(error, TurnTakenOverError):  # Its end is another process's to say.
            turn.fail(error)
            return
        now = time.time()
        end = End("cancelled", now)
        if error is not None:
            end = End("failed", now, error=TurnError(error.code, error.message))
        is_erased = isinstance(error, NotFoundError)
        if error is not None and is_erased and turn.is_stopping:  # It is about to be.
            turn.fail(error)
            return
        try:
            # One that has expired is erased once it has ended.
            await wait_uncancelled(self._store.write(turn.response_id, (), end))
        except StoreError as lost:
            turn.end_not_persisted = not (is_erased or isinstance(lost, TurnTakenOverError))
            turn.fail(lost)
            return
        if error is not None and is_erased:
            turn.fail(error)
            return
        response = msgspec.structs.replace(turn.initial_response, end=end, is_queued=False)
        turn.finish(response, Ended(response), error)
