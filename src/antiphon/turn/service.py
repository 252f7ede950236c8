"""``TurnService``: the one thing every interface calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from antiphon.core.context_policies import Summarize
from antiphon.core.ids import new_response_id
from antiphon.core.images import Blob, put_away
from antiphon.core.items import Item, encode_item, has_image
from antiphon.core.retention import FOREVER, Lifetimes
from antiphon.core.turns import Conversation, End, Header, Response, TurnRequest
from antiphon.errors import (
    Conflict,
    ConversationLocked,
    HistoryChanged,
    InvalidRequest,
    ResponseInProgress,
)
from antiphon.turn.context_builder import Viewer
from antiphon.turn.conversation_lock import Heads, Retries, accepted
from antiphon.turn.history_cache import History, Lineage, Memory, Past
from antiphon.turn.message_rendering import Segment, assemble, check_calls
from antiphon.turn.protocols import (
    Head,
    LentTools,
    Model,
    NewTurn,
    Store,
    ToolServers,
    ToolSource,
)
from antiphon.turn.references import looked_up
from antiphon.turn.replay import Replay
from antiphon.turn.runner import Plan, Runner
from antiphon.turn.running_turns import Live, LiveTurn, Watch
from antiphon.turn.store_protocols import Ledgers
from antiphon.turn.summarization import Digest, Question, digest, is_due, keep_turn, sum_up
from antiphon.turn.tool_calls import approving, told_to, unlisted
from antiphon.turn.trimming import divide, tokens_of, worth
from antiphon.turn.turn_reader import Records, decoded, missing
from antiphon.turn.validation import (
    check_images,
    check_input,
    header_of,
    nothing_to_summarize,
    rendered,
)

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


class TurnService(Records):
    """Starts turns, finds them again (``Records``), and forgets them on request."""

    def __init__(
        self,
        store: Store,
        models: Models,
        ledgers: Ledgers | None = None,
        servers: ToolServers | None = None,
        lifetimes: Lifetimes = FOREVER,
    ) -> None:
        super().__init__(store, Live())
        self.ledgers = ledgers
        self._lifetimes = lifetimes
        self._history = History(store)
        self._heads = Heads(ledgers.conversations if ledgers else None)
        self._servers = servers
        self.models = models

    async def start(
        self, request: TurnRequest, tools: ToolSource | None = None, memory: Memory | None = None
    ) -> LiveTurn:
        """Check a request and set its turn going.

        ``tools`` runs the calls that the model makes; without it they are the caller's.
        ``memory`` is where an unstored turn may go on from, and what remembers it.
        Whatever is wrong with the request is raised here, before anything is stored.
        Where the request's context asks for a summary that is due, that is made first.
        Where something of its history is erased meanwhile, or a request that queues finds
        another process faster, that is done anew, unseen.
        """
        retries = Retries(request)
        async with self._heads.taken(request) as look:
            while True:
                conversation, continuing = await look()
                try:
                    return await self._accepted(continuing, tools, memory, conversation)
                except (ConversationLocked, HistoryChanged) as refusal:
                    retries.count(refusal)

    async def _accepted(
        self,
        request: TurnRequest,
        tools: ToolSource | None,
        memory: Memory | None,
        conversation: Conversation | None,
    ) -> LiveTurn:
        """A turn that the store has taken, or that failed otherwise. Raises its refusal."""
        live = await self._start(request, tools, memory, conversation)
        if conversation is not None:
            self._heads.claim(request.tenant, conversation.id, live)
        if live.stored and (conversation or live.is_continuation):
            # Costs its reader nothing, to whom nothing is told before that in any case.
            await accepted(live)
        return live

    async def _start(
        self,
        request: TurnRequest,
        tools: ToolSource | None,
        memory: Memory | None,
        conversation: Conversation | None,
    ) -> LiveTurn:
        found = await looked_up(request, self)
        request, agreed = found.request, found.agreed
        lent = await self._lent(request) if request.mcp else None
        try:
            plan = await self._plan(request, memory, lent, found.sources)
        except BaseException:
            if lent is not None:
                await lent.aclose()
            raise
        plan = msgspec.structs.replace(
            plan, tools=tools or lent, conversation=conversation, agreed=agreed
        )
        live = LiveTurn(plan.opening, streamed=request.stream)
        self._live.start(live, Runner(plan, live, self._store).run())
        return live

    async def _plan(
        self,
        request: TurnRequest,
        memory: Memory | None,
        lent: LentTools | None,
        sources: Sequence[Head],
    ) -> Plan:
        name, model = self.models.get(request.model)
        check_input(request, model)
        shown, stored, blobs = await _sorted(request.input)
        new = rendered(shown, request.instructions)
        lineage = await self._lineage(request, memory)
        head, past = lineage.head, lineage.past
        check_calls(past.segments[-1] if past.segments else None, shown, request.approved)
        header = header_of(name, request)
        asking = told_to(header, lent)
        if lent is not None:
            header = approving(header, lent)
        viewer = Viewer(asking, model, request.context)
        if head is not None:
            question = Question(request, header, model)
            for policy in request.context:
                if isinstance(policy, Summarize) and is_due(policy, past, new, question):
                    # Not to be paid for by a turn that is over its budget in any case.
                    await viewer.view([*_said(past), new], 0)
                    head, past = await sum_up(self._history, head, past, policy, question)
        lineage = msgspec.structs.replace(
            lineage, past=past, head=head, origin=head or lineage.origin
        )
        view = await viewer.view((*past.segments, new), past.tokens)
        # Summaries, counts and MCP servers may have taken long.
        await self._history.check(lineage.origin, *sources)
        return Plan(
            request=request,
            # From here to the turn's beginning nothing is waited for: turns are begun in the
            # order of their times.
            opening=self._opening(request, header, shown, head),
            header=asking,
            model=model,
            lineage=lineage,
            history=self._history,
            view=view,
            viewer=viewer,
            sources=sources,
            stored_input=stored,
            on_kept=self._remember,
            blobs=blobs,
            memory=memory,
            lent=lent,
            listed=unlisted(lent, past.segments) if lent else (),
        )

    def _opening(
        self, request: TurnRequest, header: Header, shown: Sequence[Item], head: Head | None
    ) -> Response:
        now = time.time()
        return Response(
            id=new_response_id(),
            created_at=now,
            header=header,
            input=tuple(shown),
            previous_response_id=head.response_id if head else request.previous_response_id,
            store=request.store,
            expires_at=self._expiry(request.tenant, now) if request.store else None,
        )

    async def _lent(self, request: TurnRequest) -> LentTools:
        if self._servers is None:
            raise InvalidRequest(
                "This server calls no MCP servers.", code="unsupported_parameter", param="tools"
            )
        return await self._servers.source(
            request.mcp, taken=[tool.name for tool in request.options.tools]
        )

    async def keep(
        self, request: TurnRequest, output: Sequence[Item] = (), *, completed: bool = True
    ) -> str:
        """Store a turn that has happened elsewhere; its response id.

        ``completed`` False: calls that it leaves open will never get their outputs.
        Raises what ``start`` raises, and nothing is stored then.
        """
        retries = Retries(request)
        async with self._heads.taken(request) as look:
            while True:
                conversation, continuing = await look()
                try:
                    return await self._keep_turn(continuing, output, completed, conversation)
                except (ConversationLocked, HistoryChanged) as refusal:
                    retries.count(refusal)

    async def found(self, request: TurnRequest, conversation: Conversation) -> str:
        """``keep`` the first turn of a new conversation, together with that.

        ``request`` names it, too.
        """
        return await self._keep_turn(request, (), True, conversation, founds=True)

    async def _keep_turn(
        self,
        request: TurnRequest,
        output: Sequence[Item],
        completed: bool,
        conversation: Conversation | None,
        *,
        founds: bool = False,
    ) -> str:
        name, _ = self.models.get(request.model)
        shown, stored, blobs = await _sorted((*request.input, *output))
        given = len(request.input)
        rendered(shown, request.instructions)
        lineage = await self._lineage(request)
        segments = lineage.past.segments
        check_calls(segments[-1] if segments else None, shown[:given])
        turn = NewTurn(
            response_id=new_response_id(),
            tenant=request.tenant,
            created_at=time.time(),
            header=header_of(name, request),
            input=[encode_item(item) for item in stored[:given]],
            parent=lineage.head,
            awaited=False,
            blobs=blobs,
            conversation=conversation,
            founds=founds,
            claim=request.claim,
        )
        end = End("completed" if completed else "incomplete", time.time())
        await keep_turn(self._store, turn, stored[given:], end)
        return turn.response_id

    async def summarize(self, request: TurnRequest, policy: Summarize) -> Response:
        """Have the model sum up a conversation now, but for its newest turns.

        ``request`` names the conversation (``previous_response_id``) and says how to ask;
        its input is not used. The response, whose one output item is a ``compaction``,
        continues that conversation. Raises ``InvalidRequest`` where nothing is left to
        sum up, ``HistoryChanged`` where something of it is erased meanwhile.
        """
        name, model = self.models.get(request.model)
        lineage = await self._lineage(request)
        head, past = lineage.head, lineage.past
        if head is None or not worth(divide(past.segments, policy.keep_turns)[0]):
            raise nothing_to_summarize()
        question = Question(request, header_of(name, request), model)
        new, _ = await sum_up(self._history, head, past, policy, question)
        return await self.response(request.tenant, new.response_id)

    async def compact(self, request: TurnRequest) -> Digest:
        """Have the model sum up a conversation and what is sent along; nothing is stored.

        The item stands for all of it at the beginning of another conversation. Raises
        ``InvalidRequest`` where there is nothing to sum up, ``HistoryChanged`` where something
        of it is erased meanwhile.
        """
        name, model = self.models.get(request.model)
        found = await looked_up(await self._heads.read(request), self)
        request = found.request
        check_images(request, model)
        shown, _, _ = await _sorted(request.input)
        new = rendered(shown, request.instructions)
        lineage = await self._lineage(request)
        past = lineage.past
        covered = (*past.segments, new) if shown else past.segments

        async def check() -> None:
            await self._history.check(lineage.origin, *found.sources)

        if not covered:
            raise nothing_to_summarize()
        # Nothing is kept: of the policy only what the model is asked counts.
        policy = Summarize(max_messages=1, keep_turns=0)
        made = await digest(covered, (), policy, header_of(name, request), model, check=check)
        await check()
        item = msgspec.structs.replace(made.item, kept=0, replaced=0)
        return msgspec.structs.replace(made, item=item)

    async def follow(self, tenant: str, response_id: str) -> LiveTurn | Replay:
        """A turn to read along with from its first event, running or over.

        Raises ``NotFound``.
        """
        live = self._live.get(response_id)
        if live is not None and await self._store.head(tenant, response_id):
            return live

        async def look() -> Response:
            response = await self.response(tenant, response_id)
            # As it was told first, however long the conversation has gone on since.
            expires_at = self._expiry(tenant, response.created_at)
            return msgspec.structs.replace(response, expires_at=expires_at)

        return Replay(await look(), look)

    def _expiry(self, tenant: str, created_at: float) -> float | None:
        """When a turn will be erased if no other follows it."""
        lifetime = self._lifetimes.of(tenant)
        return None if lifetime is None else created_at + lifetime

    async def cancel(self, tenant: str, response_id: str) -> Response:
        """Stop a turn and keep what arrived; one that was stopped before stays as it is.

        Raises ``NotFound``, ``InvalidRequest`` for a turn that ended otherwise before, and
        ``Conflict`` where another process runs the turn.
        """
        live = self._live.get(response_id)
        if live is not None and not live.done() and await self._store.head(tenant, response_id):
            return await live.cancel()
        response = await self.response(tenant, response_id)
        if response.end is None:
            raise Conflict(
                f"Response '{response_id}' runs in another process: cancel it there.",
                code="response_elsewhere",
            )
        if response.status != "cancelled":
            article = "an" if response.status == "incomplete" else "a"
            raise InvalidRequest(
                # OpenAI's own words, which clients may compare.
                f"Cannot cancel {article} {response.status} response.",
                code="response_not_cancellable",
            )
        return response

    async def count(self, request: TurnRequest) -> int:
        """About how many tokens a turn would begin with: the model's own count, if it has one."""
        name, model = self.models.get(request.model)
        request = (await looked_up(await self._heads.read(request), self)).request
        check_input(request, model)
        shown, _, _ = await _sorted(request.input)
        new = rendered(shown, request.instructions)
        lineage = await self._lineage(request)
        viewer = Viewer(header_of(name, request), model, ())
        segments = (*lineage.past.segments, new)
        exact = await model.count(viewer.call(segments, header_of(name, request), stream=False))
        return viewer.around(segments) + tokens_of(new) if exact is None else exact

    def running(self, response_id: str) -> LiveTurn | None:
        """The turn of that id, if this process runs it: for callers who know whose it is."""
        return self._live.get(response_id)

    async def shown(self, request: TurnRequest) -> list[dict[str, Any]]:
        """The messages array that a continuation would begin with, before its new input.

        With the request's instructions and context policies, and with summaries in place
        of what they replace; without a model's primer.
        """
        name, model = self.models.get(request.model)
        viewer = Viewer(header_of(name, request), model, request.context)
        retries = Retries(request)
        while True:
            lineage = await self._lineage(request)
            messages = await _messages(viewer, lineage.past, request.instructions)
            if await self._history.unchanged(lineage.origin):
                return messages
            retries.count(HistoryChanged())

    async def delete(self, tenant: str, response_id: str, *, cascade: bool = False) -> None:
        """Erase a response; its descendants go on without it. Raises ``NotFound``."""
        live = self._live.get(response_id)
        if live is not None and await self._store.head(tenant, response_id):
            await live.cancel()
        running = await self._running(tenant) if cascade else ()
        if not await self._store.delete(tenant, response_id, cascade=cascade):
            raise missing(response_id)
        for turn in running:
            if await self._store.head(tenant, turn.response_id) is None:
                await turn.cancel()

    def watch(self, watch: Watch) -> None:
        """Have every turn told to ``watch`` from now on."""
        self._live.watches.append(watch)

    def interrupt(self) -> None:
        """Stop all turns, so that whoever reads along is told before the server goes."""
        self._live.interrupt()

    async def close(self) -> None:
        """Interrupt what runs, keep it as that, and close the store."""
        await self._live.close()
        await self._store.close()

    async def _lineage(self, request: TurnRequest, memory: Memory | None = None) -> Lineage:
        previous = request.previous_response_id
        if previous is None:
            return Lineage()
        remembered = memory.lineage(previous) if memory and not request.store else None
        if remembered is not None:
            return await self._refreshed(remembered)
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
        return Lineage(await self._history.past(head), head, head)

    async def _refreshed(self, lineage: Lineage) -> Lineage:
        """A remembered chain without what was erased from its stored part since."""
        origin = lineage.origin
        if origin is None or await self._history.unchanged(origin):
            return lineage
        now = await self._store.head(origin.tenant, origin.response_id)
        if now is None:
            raise missing(origin.response_id, param="previous_response_id")
        return lineage.renewed(await self._history.past(now), now)

    def _remember(self, plan: Plan, segment: Segment) -> None:
        opening, lineage = plan.opening, plan.lineage
        past, origin = lineage.past, lineage.origin
        if opening.store:
            parent = lineage.head.response_id if lineage.head else None
            epoch = origin.epoch if origin else 0
            self._history.keep(opening.id, epoch, past, segment, parent)
        elif plan.memory is not None:
            longer = Past((*past.segments, segment), past.tokens + tokens_of(segment))
            unstored = (*lineage.unstored, segment)
            plan.memory.keep(opening.id, Lineage(longer, None, origin, unstored))


def _said(past: Past) -> list[Segment]:
    """Its turns without the summaries among them."""
    return [one for one in past.segments if one.kept is None]


async def _sorted(items: tuple[Item, ...]) -> _Sorted:
    """``put_away``, in a thread where there are images: those take a while to hash."""
    if any(map(has_image, items)):
        return await asyncio.to_thread(put_away, items)
    return put_away(items)


async def _messages(viewer: Viewer, past: Past, instructions: str | None) -> list[dict[str, Any]]:
    """What a continuation of that chain would show before its new input."""
    # What comes next has no words yet; all that is known of it is whose outputs it brings.
    newest = past.segments[-1] if past.segments else Segment(b"")
    owed = newest.calls if newest.completed else ()
    coming = Segment(b"", answers=dict.fromkeys(owed, b""))
    view = await viewer.view((*past.segments, coming), past.tokens)
    return decoded(assemble(view.segments[:-1], instructions=instructions))
