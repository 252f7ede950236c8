"""``xai_api.Chat``: the SDK's conversations.

The turns of one request: one for each choice, side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

import msgspec

from antiphon.api.grpc.chunk_codec import ChunkEncoder
from antiphon.api.grpc.deferred_completions import Results
from antiphon.api.grpc.interceptor import Caller, log
from antiphon.api.grpc.message_codec import SUMMARY, answering, decode_messages, nameless
from antiphon.api.grpc.request_codec import Asked, decode_completion
from antiphon.api.grpc.response_codec import Completions, encode_usage
from antiphon.api.grpc.stream_throttle import Pace
from antiphon.api.grpc.tool_call_codec import open_calls
from antiphon.core.events import Event
from antiphon.core.ids import item_id, new_response_id
from antiphon.core.items import Item
from antiphon.core.turns import Response, TurnRequest, Usage
from antiphon.errors import AntiphonError, InvalidRequestError, NotFoundError, error_from_code
from antiphon.protos.xai import Proto, chat_pb2, deferred_pb2
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService

#: Where the first choice's metadata names the other ones. 15 ids in one value would be
#: longer than a value may be: they are without what all have in common.
_OTHERS = "choices"
_PREFIX = "resp_"

Batches: TypeAlias = Sequence[tuple[int, Sequence[Event]]]


async def start(service: TurnService, caller: Caller, asked: Asked) -> list[RunningTurn]:
    """Start the turns of all choices, the one that gives the completion its id first.

    Either all run or none is left: what keeps one from starting stops the others.
    """
    others: list[RunningTurn] = []
    # A turn takes the place that was entered last.
    with ExitStack() as places:
        try:
            for _ in range(asked.choices - 1):
                places.enter_context(caller.place())
                others.append(await service.start(asked.turn))
            places.enter_context(caller.place())
            first = await service.start(_naming(asked.turn, others))
        except BaseException:
            for turn in others:
                await _undo(service, turn, caller.tenant)
            raise
    return [first, *others]


def _naming(turn: TurnRequest, others: Sequence[RunningTurn]) -> TurnRequest:
    if not others or not turn.store:
        return turn
    metadata = {
        f"{_OTHERS}.{number}": ",".join(
            one.response_id.removeprefix(_PREFIX) for one in others[at : at + 8]
        )
        for number, at in enumerate(range(0, len(others), 8))
    }
    options = msgspec.structs.replace(turn.options, metadata={**turn.options.metadata, **metadata})
    return msgspec.structs.replace(turn, options=options)


async def _undo(service: TurnService, turn: RunningTurn, tenant: str) -> None:
    turn.stop(None)
    try:
        await turn.result()
        if turn.is_stored:
            await service.delete(tenant, turn.response_id)
    except AntiphonError as error:
        # What could not be kept need not be erased; the caller is told of another error.
        log.warning("a choice that was not wanted any more is left: %s", error.message)


def other_choices(first: Response) -> list[str]:
    """The ids of a stored completion's other choices."""
    metadata = first.header.options.metadata
    named = [metadata[name] for name in sorted(metadata) if name.startswith(f"{_OTHERS}.")]
    return [_PREFIX + one for names in named for one in names.split(",")]


@contextmanager
def attended(turns: Sequence[RunningTurn]) -> Iterator[None]:
    """While entered, somebody waits for these turns: an unstored one has no other reader."""
    try:
        yield
    finally:
        for turn in turns:
            if not turn.is_stored:
                turn.stop(None)


async def ends(turns: Sequence[RunningTurn]) -> list[Response]:
    """The turns' ends. Raises the first error that one of them ended with."""
    responses = [await turn.result() for turn in turns]
    for turn in turns:
        if turn.error is not None:
            raise turn.error
    return responses


async def merged(turns: Sequence[RunningTurn], rest: Callable[[], float]) -> AsyncIterator[Batches]:
    """The events of all turns as they come, with the number of their choice.

    ``rest`` as for ``RunningTurn.events``. Raises the first error that one of them ends with.
    """
    if len(turns) == 1:
        async for only in turns[0].events(rest):
            yield ((0, only),)
        _raise_error(turns[0])
        return
    readers = [turn.events(rest) for turn in turns]
    waiting = {_next(reader): index for index, reader in enumerate(readers)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            arrived: list[tuple[int, Sequence[Event]]] = []
            for task in done:
                index = waiting.pop(task)
                if (batch := task.result()) is None:
                    _raise_error(turns[index])
                else:
                    arrived.append((index, batch))
                    waiting[_next(readers[index])] = index
            if arrived:
                yield arrived
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _next(reader: AsyncIterator[Sequence[Event]]) -> asyncio.Task[Sequence[Event] | None]:
    async def read() -> Sequence[Event] | None:
        return await anext(reader, None)

    return asyncio.get_running_loop().create_task(read())


def _raise_error(turn: RunningTurn) -> None:
    if turn.error is not None:
        raise turn.error


#: Sends a message that is encoded already.
Write: TypeAlias = Callable[[bytes], Awaitable[None]]


class Chat:
    """The methods, over one service."""

    def __init__(self, service: TurnService, completions: Completions, pace: Pace) -> None:
        self._service = service
        self._completions = completions
        self._results = Results()
        self._pace = pace

    async def complete(self, caller: Caller, request: Proto) -> Proto:
        """GetCompletion"""
        turns = await start(self._service, caller, await self._asked(caller, request))
        with attended(turns):
            return self._completions.completion(await ends(turns))

    async def stream(self, caller: Caller, request: Proto, write: Write) -> None:
        """GetCompletionChunk"""
        asked = await self._asked(caller, request)
        streamed = msgspec.structs.replace(asked.turn, stream=True, emit_created=False)
        turns = await start(self._service, caller, msgspec.structs.replace(asked, turn=streamed))
        with attended(turns), self._pace.stream() as rest:
            encoder = ChunkEncoder(turns[0].initial_response, self._completions)
            async for batches in merged(turns, rest.left):
                if chunk := encoder.encode(batches):
                    await write(chunk)
                    rest.begin()

    async def defer(self, caller: Caller, request: Proto) -> Proto:
        """StartDeferredCompletion: nobody waits for the answer, but somebody will ask for it."""
        asked = await self._asked(caller, request)
        if not asked.turn.store:
            self._results.make_room(caller.tenant)
        turns = await start(self._service, caller, asked)
        if asked.turn.store:
            await turns[0].wait_until_stored()
            return deferred_pb2.StartDeferredResponse(request_id=turns[0].response_id)
        return deferred_pb2.StartDeferredResponse(
            request_id=self._results.add(caller.tenant, turns)
        )

    async def deferred(self, caller: Caller, request: Proto) -> Proto:
        """GetDeferredCompletion: of a stored answer for as long as it is stored."""
        name, tenant = request.request_id, caller.tenant
        if self._results.is_expired(tenant, name):
            return _answer(deferred_pb2.EXPIRED)
        if (found := self._results.find(tenant, name)) is not None:
            if not found.done:
                return _answer(deferred_pb2.PENDING)
            done = await ends(found.turns)
            return _answer(deferred_pb2.DONE, self._completions.completion(done))
        choices = await self._stored(caller, name)
        if any(choice.end is None for choice in choices):
            return _answer(deferred_pb2.PENDING)
        return _answer(deferred_pb2.DONE, self._completion(choices))

    async def stored(self, caller: Caller, request: Proto) -> Proto:
        """GetStoredCompletion: whichever interface it was made through."""
        return self._completion(await self._stored(caller, request.response_id))

    async def delete(self, caller: Caller, request: Proto) -> Proto:
        """DeleteStoredCompletion, with all its choices"""
        first = await self._service.response(caller.tenant, request.response_id)
        for other in other_choices(first):
            try:
                await self._service.delete(caller.tenant, other)
            except NotFoundError:
                continue
        await self._service.delete(caller.tenant, first.id)
        return chat_pb2.DeleteStoredCompletionResponse(response_id=first.id)

    async def compact(self, caller: Caller, request: Proto) -> Proto:
        """CompactContext: nothing is stored."""
        items = decode_messages(request.input, "input")
        made = await self._service.compact(
            TurnRequest(
                input=_named(items), model=request.model or None, store=False, tenant=caller.tenant
            )
        )
        return chat_pb2.CompactContextResponse(
            id=item_id(new_response_id(), "compaction", 0),
            encrypted_content=SUMMARY + made.item.summary,
            dropped_message_count=len(request.input),
            usage=encode_usage(made.usage or Usage()),
        )

    async def _asked(self, caller: Caller, request: Proto) -> Asked:
        """The request as turns, with results of tools given to the calls they are for."""
        asked = decode_completion(request, caller.tenant)
        turn = asked.turn
        if not nameless(turn.input):
            return asked
        items = turn.input
        if turn.previous_response_id is not None:
            before = await self._service.response(caller.tenant, turn.previous_response_id)
            items = answering(items, open_calls(before))
        turn = msgspec.structs.replace(turn, input=_named(items))
        return msgspec.structs.replace(asked, turn=turn)

    async def _stored(self, caller: Caller, response_id: str) -> list[Response]:
        choices = [await self._service.response(caller.tenant, response_id)]
        for other in other_choices(choices[0]):
            try:
                choices.append(await self._service.response(caller.tenant, other))
            except NotFoundError:
                continue
        return choices

    def _completion(self, choices: list[Response]) -> Proto:
        """What is stored. Raises why a choice failed: a completion has no place for that."""
        for choice in choices:
            if choice.end is not None and choice.end.error is not None:
                failed = error_from_code(choice.end.error.code, choice.end.error.message)
                failed.response_id = choice.id
                raise failed
        return self._completions.completion(choices)


def _named(items: tuple[Item, ...]) -> tuple[Item, ...]:
    if nameless(items):
        raise InvalidRequestError(
            "A tool's message has to name its call: no call waits for a result.",
            param="messages",
        )
    return items


def _answer(status: int, completion: Proto | None = None) -> Proto:
    return chat_pb2.GetDeferredCompletionResponse(status=status, response=completion)
