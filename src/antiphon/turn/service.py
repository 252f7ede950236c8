"""``TurnService``: the one thing every interface calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from antiphon.core.ids import new_response_id
from antiphon.core.images import Blob, bring_back, put_away
from antiphon.core.items import Item, Message, decode_item, encode_item, has_image
from antiphon.core.policies import Summarize
from antiphon.core.turns import End, Header, Response, TurnError, TurnRequest
from antiphon.errors import ImageInputUnsupported, InvalidRequest, NotFound, ResponseInProgress
from antiphon.turn.compaction import digest
from antiphon.turn.context import Segment, assemble, check_calls, render
from antiphon.turn.fitting import base_tokens, collapse, divide, due, tokens_of, worth
from antiphon.turn.history import History, Past, segments_of
from antiphon.turn.live import Live, LiveTurn
from antiphon.turn.ports import Head, Model, NewTurn, Recent, Store, StoredTurn, ToolSource
from antiphon.turn.runner import Plan, Runner
from antiphon.turn.view import Viewer

_Sorted: TypeAlias = tuple[tuple[Item, ...], tuple[Item, ...], tuple[Blob, ...]]


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


class _Asked(msgspec.Struct, frozen=True):
    """A request, what will be stored of it, and the model it names."""

    request: TurnRequest
    header: Header
    model: Model


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

    async def start(self, request: TurnRequest, tools: ToolSource | None = None) -> LiveTurn:
        """Check a request and set its turn going.

        ``tools`` runs the calls that the model makes; without it they are the caller's.
        Whatever is wrong with the request is raised here, before anything is stored.
        Where the request's context asks for a summary that is due, that is made first.
        """
        name, model = self.models.get(request.model)
        check_input(request, model)
        shown, stored, blobs = await _sorted(request.input)
        new = rendered(shown, request.instructions)
        head, past = await self._past(request)
        check_calls(past.segments[-1] if past.segments else None, shown, request.approved)
        header = Header(name, request.instructions, request.options)
        asked = _Asked(request, header, model)
        viewer = Viewer(header, model, request.context)
        if head is not None:
            for policy in request.context:
                if isinstance(policy, Summarize) and _is_due(policy, past, new, asked):
                    # Not to be paid for by a turn that is over its budget in any case.
                    await viewer.view([*_said(past), new], 0)
                    head, past = await self._sum_up(head, past, policy, asked)
        opening = Response(
            id=new_response_id(),
            created_at=time.time(),
            header=header,
            input=shown,
            previous_response_id=head.response_id if head else None,
            store=request.store,
        )
        plan = Plan(
            request=request,
            opening=opening,
            model=model,
            past=past,
            view=await viewer.view((*past.segments, new), past.tokens),
            viewer=viewer,
            parent=head,
            stored_input=stored,
            on_kept=self._remember,
            blobs=blobs,
            tools=tools,
        )
        live = LiveTurn(opening)
        self._live.start(live, Runner(plan, live, self._store).run())
        return live

    async def keep(
        self, request: TurnRequest, output: Sequence[Item] = (), *, completed: bool = True
    ) -> str:
        """Store a turn that has happened elsewhere; its response id.

        ``completed`` False: calls that it leaves open will never get their outputs.
        Raises what ``start`` raises, and nothing is stored then.
        """
        name, _ = self.models.get(request.model)
        shown, stored, blobs = await _sorted((*request.input, *output))
        given = len(request.input)
        rendered(shown, request.instructions)
        head, past = await self._past(request)
        check_calls(past.segments[-1] if past.segments else None, shown[:given])
        turn = NewTurn(
            response_id=new_response_id(),
            tenant=request.tenant,
            created_at=time.time(),
            header=Header(name, request.instructions, request.options),
            input=[encode_item(item) for item in stored[:given]],
            parent=head,
            awaited=False,
            blobs=blobs,
        )
        end = End("completed" if completed else "incomplete", time.time())
        await self._keep(turn, stored[given:], end)
        return turn.response_id

    async def summarize(self, request: TurnRequest, policy: Summarize) -> Response:
        """Have the model sum up a conversation now, but for its newest turns.

        ``request`` names the conversation (``previous_response_id``) and says how to ask;
        its input is not used. The response, whose one output item is a ``compaction``,
        continues that conversation. Raises ``InvalidRequest`` where nothing is left to
        sum up.
        """
        name, model = self.models.get(request.model)
        head, past = await self._past(request)
        if head is None or not worth(divide(past.segments, policy.keep_turns)[0]):
            raise InvalidRequest("There is nothing to sum up yet.", code="nothing_to_summarize")
        asked = _Asked(request, Header(name, request.instructions, request.options), model)
        head, _ = await self._sum_up(head, past, policy, asked)
        return await self.response(request.tenant, head.response_id)

    def running(self, response_id: str) -> LiveTurn | None:
        """The turn of that id, if this process runs it: for callers who know whose it is."""
        return self._live.get(response_id)

    async def response(self, tenant: str, response_id: str) -> Response:
        """One response, whole. Raises ``NotFound``."""
        turn = await self._turn(tenant, response_id)
        return response_of(turn)

    async def messages(
        self, tenant: str, response_id: str, instructions: str | None = None
    ) -> list[dict[str, Any]]:
        """Everything said up to this response, as a messages array.

        In the chat completions dialect. ``instructions`` go first; None: those of that
        response.
        """
        turns = await self._chain(tenant, response_id)
        segments = segments_of(turns)
        if instructions is None and turns:
            instructions = turns[-1].header.instructions
        return _decoded(
            assemble([one for one in segments if one.kept is None], instructions=instructions)
        )

    async def shown(self, request: TurnRequest) -> list[dict[str, Any]]:
        """The messages array that a continuation would begin with, before its new input.

        With the request's instructions and context policies, and with summaries in place
        of what they replace; without a model's primer.
        """
        name, model = self.models.get(request.model)
        _, past = await self._past(request)
        viewer = Viewer(Header(name, request.instructions, request.options), model, request.context)
        # What comes next has no words yet; all that is known of it is whose outputs it brings.
        newest = past.segments[-1] if past.segments else Segment(b"")
        owed = newest.calls if newest.completed else ()
        coming = Segment(b"", answers=dict.fromkeys(owed, b""))
        view = await viewer.view((*past.segments, coming), past.tokens)
        return _decoded(assemble(view.segments[:-1], instructions=request.instructions))

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

    async def _past(self, request: TurnRequest) -> tuple[Head | None, Past]:
        previous = request.previous_response_id
        if previous is None:
            return None, Past()
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
        return head, await self._history.past(head)

    async def _sum_up(
        self, head: Head, past: Past, policy: Summarize, asked: _Asked
    ) -> tuple[Head, Past]:
        """Sum up the older turns; the conversation goes on behind a turn that says so.

        Of an unstored turn only the view changes.
        """
        covered, kept = divide(past.segments, policy.keep_turns)
        request, header = asked.request, asked.header
        made = await digest(covered, kept, policy, header, asked.model, seconds=request.timeout)
        segments = tuple(collapse(covered, render([made.item]), kept))
        shorter = Past(segments, sum(map(tokens_of, segments)))
        if not request.store:
            return head, shorter
        turn = NewTurn(
            response_id=new_response_id(),
            tenant=request.tenant,
            created_at=time.time(),
            header=header,
            input=(),
            parent=head,
            awaited=False,
        )
        await self._keep(turn, [made.item], End("completed", time.time(), made.usage))
        new = await self._store.head(request.tenant, turn.response_id)
        if new is None:
            raise missing(turn.response_id)
        if new.epoch != head.epoch:
            # Something was erased while the model was at it, perhaps what it summed up.
            return new, await self._history.past(new)
        self._history.replace(new, shorter)
        return new, shorter

    async def _keep(self, turn: NewTurn, output: Sequence[Item], end: End) -> None:
        """Store a turn whole."""
        self._store.begin(turn).add_done_callback(_heard)
        # Fails too where the beginning did.
        await self._store.write(turn.response_id, [encode_item(item) for item in output], end)

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
            plan.past,
            segment,
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


def check_input(request: TurnRequest, model: Model) -> None:
    """Refuse input that says nothing, or that this model cannot look at."""
    items = request.input
    if not request.approved and all(
        isinstance(item, Message) and not item.content for item in items
    ):
        raise InvalidRequest(
            "The input is empty: say something.", code="empty_input", param="input"
        )
    if not model.info.images and any(has_image(item) for item in items):
        raise ImageInputUnsupported(
            f"The model '{model.info.name}' reads text only and cannot look at images.",
            param="input",
        )


def rendered(items: Sequence[Item], instructions: str | None) -> Segment:
    """Items as the model is shown them. Refuses what cannot be written down."""
    try:
        (instructions or "").encode()
        return render(items)
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            "The input holds characters that are not Unicode text.",
            code="invalid_unicode",
            param="input",
        ) from error


def _said(past: Past) -> list[Segment]:
    """Its turns without the summaries among them."""
    return [one for one in past.segments if one.kept is None]


def _is_due(policy: Summarize, past: Past, new: Segment, asked: _Asked) -> bool:
    base = base_tokens(asked.header, asked.model.info.primer)
    return due((*past.segments, new), policy, base) and worth(
        divide(past.segments, policy.keep_turns)[0]
    )


async def _sorted(items: tuple[Item, ...]) -> _Sorted:
    """``put_away``, in a thread where there are images: those take a while to hash."""
    if any(map(has_image, items)):
        return await asyncio.to_thread(put_away, items)
    return put_away(items)


def _decoded(messages: bytes) -> list[dict[str, Any]]:
    decoded: list[dict[str, Any]] = msgspec.json.decode(messages)
    return decoded


def _heard(kept: asyncio.Future[None]) -> None:
    """Nobody waits for a beginning alone; its failure shows at the end."""
    if not kept.cancelled():
        kept.exception()


def response_of(turn: StoredTurn) -> Response:
    """A stored turn as its users see it."""
    return Response(
        id=turn.response_id,
        created_at=turn.created_at,
        header=turn.header,
        input=tuple(bring_back(decode_item(data), turn.blobs) for data in turn.input),
        output=tuple(bring_back(decode_item(data), turn.blobs) for data in turn.output),
        end=turn.end,
        previous_response_id=turn.previous_response_id,
    )
