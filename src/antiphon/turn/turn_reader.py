"""Turn reader: reads stored turns, chains and items of a tenant, and starts nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from antiphon.core.ids import item_id, parse_item_id, to_response_id
from antiphon.core.images import refer_to_blobs, restore_blobs
from antiphon.core.items import (
    ErasedItem,
    FunctionCall,
    FunctionCallOutput,
    Item,
    decode_item,
    item_kind,
    replaces_turns,
)
from antiphon.core.reasoning_sidecar import strip_sidecars
from antiphon.core.turns import End, Response, TurnError
from antiphon.errors import (
    AntiphonError,
    NotFoundError,
    PreviousResponseNotFoundError,
    TurnTakenOverError,
    error_from_code,
)
from antiphon.turn.exchanges import render_exchanges
from antiphon.turn.history_cache import render_chain, run_unless_short
from antiphon.turn.message_rendering import build_messages, render_turn
from antiphon.turn.running_turns import TurnRegistry
from antiphon.turn.store_protocols import Head, Store, StoredTurn, Window, is_answered
from antiphon.turn.trimming import apply_summaries, count_turns, newest_turns

#: So many turns of a chain are read at once to find the one that the last of them wait for.
_AWAITED_WINDOW: Final = 16


class ShownContext(msgspec.Struct, frozen=True):
    """The messages that a model was sent.

    ``turns_left_out``: how many of the oldest turns are not among them, without those that a
    summary stands for, which are ``turns_summarized``.
    """

    messages: list[dict[str, Any]]
    turns_left_out: int
    turns_summarized: int


class TurnReader:
    """The read side of turns: responses, chains, items and messages by id.

    Every method takes the tenant whose data it may see; what belongs to another is
    the same as what does not exist. A response may be named by its id as a chat completion.
    """

    def __init__(self, store: Store, registry: TurnRegistry) -> None:
        self._store = store
        self._registry = registry

    async def head(self, tenant: str, response_id: str) -> Head | None:
        """Where a response lies, and what its family's epoch is."""
        return await self._store.head(tenant, to_response_id(response_id))

    async def response(self, tenant: str, response_id: str) -> Response:
        """One response, whole. Raises ``NotFoundError``."""
        turn = await self._turn(tenant, response_id)
        (turn,) = await self.with_queued(tenant, [turn])
        return response_of(turn)

    async def awaited(self, tenant: str, response_id: str) -> StoredTurn | None:
        """The turn that a response waits for, with those that wait before it; None: there is none.

        Itself, where it does not wait. Raises ``NotFoundError``.
        """
        limit = _AWAITED_WINDOW
        while True:
            head = await self._store.head(tenant, response_id)
            turns = await self._store.window(head, Window(limit)) if head else []
            if not turns or turns[0].response_id != response_id:
                raise response_not_found(response_id)
            found = next((turn for turn in turns if not may_be_queued(turn)), None)
            if found is not None or len(turns) < limit:
                return found
            limit *= 4

    async def previous(self, tenant: str, response_id: str) -> StoredTurn | None:
        """The turn before a response, without those that were erased; None: it is the first.

        Raises ``NotFoundError``.
        """
        response_id = to_response_id(response_id)
        head = await self._store.head(tenant, response_id)
        turns = await self._store.window(head, Window(2)) if head else []
        if not turns or turns[0].response_id != response_id:
            raise response_not_found(response_id)
        return turns[1] if len(turns) > 1 else None

    async def with_queued(self, tenant: str, turns: Sequence[StoredTurn]) -> Sequence[StoredTurn]:
        """A part of a chain, oldest turn first, with what of it is queued marked as that."""
        if not any(map(may_be_queued, turns)):
            return turns
        marked: list[StoredTurn] = []
        before: StoredTurn | None = None
        for turn in turns:
            shown = turn
            if may_be_queued(turn):
                with suppress(NotFoundError):  # Erased meanwhile.
                    before = before or await self.previous(tenant, turn.response_id)
                shown = msgspec.structs.replace(turn, is_queued=holds_back(before))
            marked.append(shown)
            before = turn
        return marked

    async def is_queued(self, tenant: str, response_id: str) -> bool:
        """Whether a response waits for the one before it. False also where it is not there."""
        turn = await self.stored_turn(tenant, response_id)
        return turn is not None and (await self.with_queued(tenant, [turn]))[0].is_queued

    async def stored_turn(self, tenant: str, response_id: str) -> StoredTurn | None:
        """A turn as it is stored. None: there is none."""
        return await self._store.turn(tenant, to_response_id(response_id))

    async def chain(self, tenant: str, response_id: str) -> list[Response]:
        """A response and its ancestors, oldest first. Raises ``NotFoundError``."""
        turns = await self.with_queued(tenant, await self._chain(tenant, response_id))
        return await run_unless_short(_responses_of, turns)

    async def window(self, tenant: str, response_id: str, window: Window) -> list[Response]:
        """A part of a response's chain. Raises ``NotFoundError`` where that response is not
        there.
        """
        head = await self._store.head(tenant, to_response_id(response_id))
        if head is None:
            raise response_not_found(response_id)
        turns = await self.with_queued(tenant, await self._store.window(head, window))
        return [response_of(turn) for turn in turns]

    async def item(self, tenant: str, item_name: str) -> tuple[Item, ...]:
        """An item by its id; a call of an MCP server with its output. Nothing: none has it."""
        parsed = parse_item_id(item_name)
        found = await self.items_at(tenant, *parsed) if parsed else ()
        if not found or parsed is None:
            return ()
        kinds = {item_kind(found[0])}
        if isinstance(found[0], FunctionCall) and found[0].server is not None:
            kinds = {"mcp_call", "mcp_approval_request"}
        return found if item_name in {item_id(parsed[0], kind, parsed[1]) for kind in kinds} else ()

    async def items_at(self, tenant: str, response_id: str, position: int) -> tuple[Item, ...]:
        """The item in one place of a turn; a call of an MCP server with its output."""
        turn = await self._store.turn(tenant, response_id)
        if turn is None:
            return ()
        response = response_of(turn)
        items = (*response.input, *response.output)
        if position >= len(items) or isinstance(items[position], ErasedItem):
            return ()
        item = items[position]
        if isinstance(item, FunctionCall) and item.server is not None:
            for later in items[position:]:
                if isinstance(later, FunctionCallOutput) and later.call_id == item.call_id:
                    return (item, later)
        return (item,)

    async def messages(
        self, tenant: str, response_id: str, instructions: str | None = None
    ) -> list[dict[str, Any]]:
        """Everything said up to this response, as a messages array.

        In the chat completions dialect. ``instructions`` go first; None: those of that
        response.
        """
        turns = await self._chain(tenant, response_id)
        return await run_unless_short(_messages_of, turns, instructions)

    async def context(self, tenant: str, response_id: str) -> ShownContext:
        """What a response's model was shown when it was last asked.

        With the turn's instructions, and with summaries in place of what they replace;
        without a model's primer. Turns erased since are not in it, and where older ones had
        been left out there may be one of those in their place. Raises ``NotFoundError``.
        """
        turns = await self._chain(tenant, response_id)
        return await run_unless_short(_context_of, turns)

    async def persist_missing_end(self, response_id: str) -> bool:
        """End a turn that is over but whose end could not be kept then; whether it was one.

        By now the disk may have room again. What the turn said after its last kept item
        was never acknowledged, and is lost.
        """
        if response_id not in self._registry.ids_not_persisted:
            return False
        error = TurnError("store_unavailable", "The store could not keep the end of this turn.")
        with suppress(TurnTakenOverError):  # Another process has ended it meanwhile.
            await self._store.write(response_id, (), End("failed", time.time(), error=error))
        self._registry.ids_not_persisted.discard(response_id)
        return True

    async def _turn(self, tenant: str, response_id: str) -> StoredTurn:
        response_id = to_response_id(response_id)
        turn = await self._store.turn(tenant, response_id)
        if turn is not None and turn.end is None and await self.persist_missing_end(response_id):
            turn = await self._store.turn(tenant, response_id)
        if turn is None:
            raise response_not_found(response_id)
        return turn

    async def _chain(self, tenant: str, response_id: str) -> list[StoredTurn]:
        response_id = to_response_id(response_id)
        head = await self._store.head(tenant, response_id)
        if head is None:
            raise response_not_found(response_id)
        turns = await self._store.chain(head)
        if not turns or turns[-1].response_id != response_id:
            # Erased between the two reads: its ancestors must not pass for it.
            raise response_not_found(response_id)
        return turns


def may_be_queued(turn: StoredTurn) -> bool:
    """Whether a turn waits for the one before it, or has just begun. Pure."""
    restart = turn.header.restart
    return restart is not None and restart.waits and turn.end is None and not turn.output


def is_summary_turn(turn: StoredTurn) -> bool:
    """Whether a turn is nothing but a summary of those before it. Pure."""
    items = map(decode_item, turn.output)
    return bool(turn.output) and not turn.input and all(map(replaces_turns, items))


def holds_back(turn: StoredTurn | None) -> bool:
    """Whether what is queued behind a turn has to wait. Pure.

    Until it has been answered, which one that failed or was stopped never is, and while calls of
    it wait for their outputs.
    """
    if turn is None or turn.end is None:
        return turn is not None
    if turn.end.status == "completed":
        return bool(render_chain([turn])[-1].open_calls)
    return not is_answered(turn.end)


def _responses_of(turns: Sequence[StoredTurn]) -> list[Response]:
    return [response_of(turn) for turn in turns]


def _messages_of(turns: Sequence[StoredTurn], instructions: str | None) -> list[dict[str, Any]]:
    segments = render_chain(turns)
    if instructions is None and turns:
        instructions = turns[-1].header.instructions
    return decode_messages(
        build_messages(
            [one for one in segments if one.retained_turns is None], instructions=instructions
        )
    )


def _context_of(turns: Sequence[StoredTurn]) -> ShownContext:
    turn = turns[-1]
    response = response_of(turn)
    whole = past = apply_summaries(render_chain(turns)[:-1])
    items = (*response.input, *_output_in_context(response.output))
    shown = [render_turn(items)]
    count = None if turn.end is None else turn.end.context_turns
    if count is not None:
        past = newest_turns(past, max(0, count))
    if count is not None and count < 0:
        shown = render_exchanges(items)
        shown = [*newest_turns(shown, len(shown) + count)]
    segments = [*past, *shown]
    return ShownContext(
        decode_messages(build_messages(segments, instructions=turn.header.instructions)),
        turns_left_out=count_turns(whole) - count_turns(past),
        turns_summarized=sum(one.turns for one in past if one.retained_turns is not None),
    )


def response_not_found(response_id: str, param: str | None = None) -> NotFoundError:
    """The error for an id that is nobody's, somebody else's, or no id at all.

    ``param``: the request's field that names it. Then it is the request that is wrong.
    """
    message = f"No response found with id '{response_id}'."
    if param is None:
        return NotFoundError(message, code="response_not_found")
    return PreviousResponseNotFoundError(message, param=param)


def response_of(turn: StoredTurn, *, with_images: bool = True) -> Response:
    """A stored turn as its users see it; ``with_images`` False: with references to images."""

    def shown(data: bytes) -> Item:
        item = decode_item(data)
        return restore_blobs(item, turn.blobs) if with_images else refer_to_blobs(item)

    return Response(
        id=turn.response_id,
        created_at=turn.created_at,
        header=turn.header,
        input=tuple(map(shown, turn.input)),
        output=tuple(map(shown, turn.output)),
        end=turn.end,
        previous_response_id=turn.previous_response_id,
        expires_at=turn.expires_at,
        is_queued=turn.is_queued,
    )


def _output_in_context(output: Sequence[Item]) -> Sequence[Item]:
    """What of its own output a model was shown before the turn's end: rounds of tools.

    It is asked again once all calls have outputs, so the last such position tells.
    """
    waiting: set[str] = set()
    shown = 0
    for position, item in enumerate(output, 1):
        if isinstance(item, FunctionCall):
            waiting.add(item.call_id)
        elif isinstance(item, FunctionCallOutput):
            waiting.discard(item.call_id)
            shown = shown if waiting else position
    return output[:shown]


def decode_messages(messages: bytes) -> list[dict[str, Any]]:
    decoded: list[dict[str, Any]] = msgspec.json.decode(strip_sidecars(messages))
    return decoded


def failure_of(response: Response) -> AntiphonError | None:
    """Why a turn has failed, where it has. Pure."""
    if response.end is None or response.end.error is None:
        return None
    error = error_from_code(response.end.error.code, response.end.error.message)
    error.response_id = response.id if response.store else None
    return error
