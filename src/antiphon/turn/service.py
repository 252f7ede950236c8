"""``TurnService``: the one thing every interface calls."""

from __future__ import annotations

import time
from typing import Any, Protocol

import msgspec

from antiphon.core.ids import new_response_id
from antiphon.core.items import Item, Message, decode_item, has_image
from antiphon.core.turns import End, Header, Response, TurnError, TurnRequest
from antiphon.errors import ImageInputUnsupported, InvalidRequest, NotFound, ResponseInProgress
from antiphon.turn.context import Segment, assemble, check_calls, render
from antiphon.turn.history import History, Segments, segment_of
from antiphon.turn.live import Live, LiveTurn
from antiphon.turn.ports import Head, Model, Recent, Store, StoredTurn
from antiphon.turn.runner import Plan, Runner


class Models(Protocol):
    """The models there are, by name."""

    def get(self, name: str | None) -> tuple[str, Model]:
        """A model and the name it is called by; None is the default one.

        Raises ``ModelNotFound``.
        """
        ...

    def names(self) -> list[tuple[str, Model]]:
        """The configured ones, the default first."""
        ...


class TurnService:
    """Starts turns, finds them again, and forgets them on request.

    Every method takes the tenant whose data it may see; what belongs to another is
    the same as what does not exist.
    """

    def __init__(self, store: Store, models: Models) -> None:
        self._store = store
        self._history = History(store)
        self._live = Live()
        self.models = models

    async def start(self, request: TurnRequest) -> LiveTurn:
        """Check a request and set its turn going.

        Whatever is wrong with the request is raised here, before anything is stored.
        """
        name, model = self.models.get(request.model)
        check_input(request.input, model)
        new = rendered(request)
        head, past = await self._past(request)
        check_calls(past[-1] if past else None, request.input)
        opening = Response(
            id=new_response_id(),
            created_at=time.time(),
            header=Header(name, request.instructions, request.options),
            input=request.input,
            previous_response_id=request.previous_response_id,
            store=request.store,
        )
        plan = Plan(request, opening, model, (*past, new), head, self._remember)
        live = LiveTurn(opening)
        self._live.start(live, Runner(plan, live, self._store).run())
        return live

    def running(self, response_id: str) -> LiveTurn | None:
        """The turn of that id, if this process runs it: for callers who know whose it is."""
        return self._live.get(response_id)

    async def response(self, tenant: str, response_id: str) -> Response:
        """One response, whole. Raises ``NotFound``."""
        turn = await self._turn(tenant, response_id)
        return response_of(turn)

    async def messages(self, tenant: str, response_id: str) -> list[dict[str, Any]]:
        """The messages array that a continuation of this response starts from.

        In the chat completions dialect, with the instructions of that response first.
        """
        turns = await self._chain(tenant, response_id)
        segments = [segment_of(turn) for turn in turns]
        instructions = turns[-1].header.instructions if turns else None
        messages: list[dict[str, Any]] = msgspec.json.decode(
            assemble(segments, instructions=instructions)
        )
        return messages

    async def chain(self, tenant: str, response_id: str) -> list[Response]:
        """A response and its ancestors, oldest first. Raises ``NotFound``."""
        return [response_of(turn) for turn in await self._chain(tenant, response_id)]

    async def recent(self, tenant: str, limit: int) -> list[Recent]:
        """The newest turns of the latest conversations."""
        return await self._store.recent(tenant, limit)

    async def delete(self, tenant: str, response_id: str, *, cascade: bool = False) -> None:
        """Erase a response; its descendants go on without it. Raises ``NotFound``."""
        live = self._live.get(response_id)
        if live is not None and await self._store.head(tenant, response_id):
            await live.cancel()
        if not await self._store.delete(tenant, response_id, cascade=cascade):
            raise missing(response_id)

    def interrupt(self) -> None:
        """Stop all turns, so that whoever reads along is told before the server goes."""
        self._live.interrupt()

    async def close(self) -> None:
        """Interrupt what runs, keep it as that, and close the store."""
        await self._live.close()
        await self._store.close()

    async def _past(self, request: TurnRequest) -> tuple[Head | None, Segments]:
        previous = request.previous_response_id
        if previous is None:
            return None, ()
        head = await self._store.head(request.tenant, previous)
        if head is None:
            raise missing(previous, param="previous_response_id")
        if head.running and await self._settle(previous):
            head = await self._store.head(request.tenant, previous) or head
        if head.running:
            raise ResponseInProgress(
                f"Response '{previous}' is still running: continue it when it has ended.",
                param="previous_response_id",
            )
        return head, await self._history.segments(head)

    async def _settle(self, response_id: str) -> bool:
        """End a turn that is over but whose end could not be kept then; whether it was one.

        By now the disk may have room again. What the turn said after its last kept item
        was never acknowledged, and is lost.
        """
        if response_id not in self._live.unkept:
            return False
        error = TurnError("store_unavailable", "The store could not keep the end of this turn.")
        await self._store.write(response_id, (), End("failed", time.time(), error=error))
        self._live.unkept.discard(response_id)
        return True

    def _remember(self, plan: Plan, segment: Segment) -> None:
        parent = plan.parent
        self._history.keep(
            plan.opening.id,
            parent.epoch if parent else 0,
            (*plan.segments[:-1], segment),
            parent.response_id if parent else None,
        )

    async def _turn(self, tenant: str, response_id: str) -> StoredTurn:
        turn = await self._store.turn(tenant, response_id)
        if turn is not None and turn.end is None and await self._settle(response_id):
            turn = await self._store.turn(tenant, response_id)
        if turn is None:
            raise missing(response_id)
        return turn

    async def _chain(self, tenant: str, response_id: str) -> list[StoredTurn]:
        head = await self._store.head(tenant, response_id)
        if head is None:
            raise missing(response_id)
        return await self._store.chain(head)


def missing(response_id: str, param: str | None = None) -> NotFound:
    """The error for an id that is nobody's, somebody else's, or no id at all."""
    code = "previous_response_not_found" if param else "response_not_found"
    return NotFound(f"No response found with id '{response_id}'.", code=code, param=param)


def check_input(items: tuple[Item, ...], model: Model) -> None:
    """Refuse input that says nothing, or that this model cannot look at."""
    if all(isinstance(item, Message) and not item.content for item in items):
        raise InvalidRequest(
            "The input is empty: say something.", code="empty_input", param="input"
        )
    if not model.info.images and any(has_image(item) for item in items):
        raise ImageInputUnsupported(
            f"The model '{model.info.name}' reads text only and cannot look at images.",
            param="input",
        )


def rendered(request: TurnRequest) -> Segment:
    """The new input as the model is shown it. Refuses what cannot be written down."""
    try:
        (request.instructions or "").encode()
        return render(request.input)
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            "The input holds characters that are not Unicode text.",
            code="invalid_unicode",
            param="input",
        ) from error


def response_of(turn: StoredTurn) -> Response:
    """A stored turn as its users see it."""
    return Response(
        id=turn.response_id,
        created_at=turn.created_at,
        header=turn.header,
        input=tuple(map(decode_item, turn.input)),
        output=tuple(map(decode_item, turn.output)),
        end=turn.end,
        previous_response_id=turn.previous_response_id,
    )
