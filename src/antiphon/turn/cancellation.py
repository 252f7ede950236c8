"""Cancellation: stops turns, erases them and waits for them, whichever node runs them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from antiphon.core.ids import to_response_id
from antiphon.core.turns import End, Response
from antiphon.errors import (
    AntiphonError,
    ConflictError,
    InvalidRequestError,
    NodeUnreachableError,
    StoreError,
)
from antiphon.turn.node_protocols import Node
from antiphon.turn.other_nodes import POLL_INTERVAL, TIME_LIMIT, OtherNodes
from antiphon.turn.running_turns import RunningTurn, TurnRegistry
from antiphon.turn.store_protocols import Store
from antiphon.turn.turn_reader import TurnReader, response_not_found

#: Seconds for which whoever erases something waits for the nodes that are told.
_TELLING_TIME: Final = 1.0


class TurnCancellation:
    """Stops the turns of one process, and those of other nodes where there are any.

    ``other_nodes`` None: no other process has the store.
    """

    def __init__(
        self,
        store: Store,
        registry: TurnRegistry,
        reader: TurnReader,
        other_nodes: OtherNodes | None = None,
    ) -> None:
        self._other_nodes = other_nodes
        #: Called where something was erased, by this process or another node.
        self.on_erased: Callable[[], None] | None = None
        self._store = store
        self._registry = registry
        self._reader = reader

    async def cancel(self, tenant: str, response_id: str) -> Response:
        """Stop a turn and keep what arrived; one that was stopped before stays as it is.

        Raises ``NotFoundError``, ``InvalidRequestError`` for a turn that ended otherwise before,
        and ``ConflictError`` where a process runs it that is no node.
        """
        response_id = to_response_id(response_id)
        live = await self.find_here(tenant, response_id)
        if live is not None and not live.done():
            return await live.cancel()
        was_running = await self._stop_elsewhere(tenant, response_id)
        response = await self._reader.response(tenant, response_id)
        if response.end is None:
            raise ConflictError(
                f"Response '{response_id}' runs in another process, which is no server:"
                " cancel it there.",
                code="response_elsewhere",
            )
        if response.status != "cancelled" and not was_running:
            article = "an" if response.status == "incomplete" else "a"
            raise InvalidRequestError(
                # OpenAI's own words, which clients may compare.
                f"Cannot cancel {article} {response.status} response.",
                code="response_not_cancellable",
            )
        return response

    async def stop(self, tenant: str, response_id: str) -> bool:
        """Stop a turn and wait for its end; whether it ran where it could be stopped."""
        live = await self.find_here(tenant, response_id)
        if live is not None:
            await live.cancel()
            return True
        return await self._stop_elsewhere(tenant, response_id)

    async def delete(self, tenant: str, response_id: str, *, cascade: bool = False) -> None:
        """Erase a response; its descendants go on without it. Raises ``NotFoundError``."""
        response_id = to_response_id(response_id)
        live = await self.find_here(tenant, response_id)
        if live is not None and live.is_queued:
            # Nobody is shown the end of what never began.
            live.stop(response_not_found(response_id))
            with suppress(AntiphonError):
                await live.result()
        else:
            await self.stop(tenant, response_id)
        running = await self._running_turns(tenant) if cascade else ()
        if not await self._store.delete(tenant, response_id, cascade=cascade):
            raise response_not_found(response_id)
        for turn in running:
            if await self._store.head(tenant, turn.response_id) is None:
                await turn.cancel()
        if cascade and self._other_nodes is not None:
            await self._other_nodes.stop_erased(tenant)
        await self.tell_erased()

    async def tell_erased(self) -> None:
        """Something was erased: what is queued behind it may begin, at whatever node it waits."""
        self.note_erased()
        if self._other_nodes is not None:
            # One that cannot be told sees for itself after a while.
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(_TELLING_TIME):
                    await self._other_nodes.tell_erased()

    def note_erased(self) -> None:
        """The same for this process alone."""
        if self.on_erased is not None:
            self.on_erased()

    async def stop_erased(self, tenant: str) -> None:
        """Stop the turns of this process that another one has erased."""
        for turn in self._registry.all():
            request = turn.request
            is_on_disk = turn.is_stored and turn.is_published
            if request is None or request.tenant != tenant or not is_on_disk:
                continue
            if await self._store.head(tenant, turn.response_id) is None:
                turn.stop(None)

    async def wait_elsewhere(self, tenant: str, response_id: str) -> None:
        """Wait for the end of a turn that another process runs: until then, or for a while."""
        nodes = self._other_nodes
        node = await nodes.node_of(tenant, response_id) if nodes else None
        if nodes is not None and node is not None:
            try:
                if await nodes.wait(node, tenant, response_id):
                    return
            except NodeUnreachableError:
                pass
        await asyncio.sleep(POLL_INTERVAL)

    async def find_here(self, tenant: str, response_id: str) -> RunningTurn | None:
        """A tenant's stored turn that this process runs."""
        live = self._registry.get(response_id)
        if live is None or await self._store.head(tenant, response_id) is None:
            return None
        return live

    async def _stop_elsewhere(self, tenant: str, response_id: str) -> bool:
        """Have the node that runs a turn stop it. False: none does that could be reached."""
        nodes = self._other_nodes
        if nodes is None:
            return False
        head = await self._store.head(tenant, response_id)
        if head is None or not head.is_running:
            return False
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TIME_LIMIT
        while True:
            node = await nodes.node_of(tenant, response_id)
            if await self._stop_now(nodes, node, tenant, response_id):
                return True
            # It has ended since, or its node dies, or another one has just claimed it.
            turn = await self._reader.stored_turn(tenant, response_id)
            if turn is None or turn.end is not None or loop.time() > deadline:
                return False
            if node is None and turn.header.restart is None:
                return False
            await asyncio.sleep(POLL_INTERVAL)

    async def _stop_now(
        self, nodes: OtherNodes, node: Node | None, tenant: str, response_id: str
    ) -> bool:
        """Stop a turn wherever it is now: at a node, here by now, or between the two."""
        if node is not None:
            try:
                return await nodes.cancel(node, tenant, response_id)
            except NodeUnreachableError:
                return False
        live = await self.find_here(tenant, response_id)
        if live is not None:
            await live.cancel()
            return True
        return await nodes.end_given_up(tenant, response_id, End("cancelled", time.time()))

    async def _running_turns(self, tenant: str) -> list[RunningTurn]:
        return [
            turn
            for turn in self._registry.all()
            if await self._store.head(tenant, turn.response_id) is not None
        ]
