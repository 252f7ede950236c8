"""gRPC chat service: completions, streams, deferred and stored completions, with n choices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import TypeAlias

import msgspec

from antiphon.api.common.authorization import Principal
from antiphon.api.common.deferred_completions import DeferredCompletions
from antiphon.api.grpc.chunk_codec import GrpcChunkEncoder
from antiphon.api.grpc.interceptor import log
from antiphon.api.grpc.message_codec import (
    SUMMARY_PREFIX,
    decode_messages,
    has_unnamed_outputs,
    pair_outputs,
)
from antiphon.api.grpc.request_codec import CompletionRequest, decode_completion
from antiphon.api.grpc.response_codec import CompletionEncoder, encode_usage
from antiphon.api.grpc.stream_throttle import StreamThrottle
from antiphon.api.grpc.tool_codec import open_call_ids
from antiphon.core.events import Event
from antiphon.core.ids import item_id, new_response_id
from antiphon.core.items import Item
from antiphon.core.turns import Response, TurnRequest, Usage
from antiphon.errors import AntiphonError, InvalidRequestError, NotFoundError
from antiphon.protos.xai import Proto, chat_pb2, deferred_pb2
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService
from antiphon.turn.turn_reader import failure_of

#: Where the first choice's metadata names the other ones. 15 ids in one value would be
#: longer than a value may be: they are without what all have in common.
_CHOICES_KEY = "choices"
_RESPONSE_ID_PREFIX = "resp_"

ChoiceEvents: TypeAlias = Sequence[tuple[int, Sequence[Event]]]


async def start_choices(
    service: TurnService, caller: Principal, request: CompletionRequest
) -> list[RunningTurn]:
    """Start the turns of all choices, the one that gives the completion its id first.

    Either all run or none is left: what keeps one from starting stops the others.
    """
    others: list[RunningTurn] = []
    begun: list[RunningTurn] = []
    # A turn takes the place that was entered last.
    async with AsyncExitStack() as slots:
        try:
            for _ in range(request.choices - 1):
                await slots.enter_async_context(caller.concurrency_slot())
                others.append(await service.start(request.turn, on_start=begun.append))
            await slots.enter_async_context(caller.concurrency_slot())
            turn = _with_choice_ids(request.turn, others)
            first = await service.start(turn, on_start=begun.append)
        except BaseException:
            # One that is alone runs on without its client, as any stored turn.
            for one in [] if request.choices == 1 else begun:
                await _discard_turn(service, one, caller.tenant)
            raise
    return [first, *others]


def _with_choice_ids(turn: TurnRequest, others: Sequence[RunningTurn]) -> TurnRequest:
    if not others or not turn.store:
        return turn
    metadata = {
        f"{_CHOICES_KEY}.{number}": ",".join(
            one.response_id.removeprefix(_RESPONSE_ID_PREFIX) for one in others[at : at + 8]
        )
        for number, at in enumerate(range(0, len(others), 8))
    }
    options = msgspec.structs.replace(turn.options, metadata={**turn.options.metadata, **metadata})
    return msgspec.structs.replace(turn, options=options)


async def _discard_turn(service: TurnService, turn: RunningTurn, tenant: str) -> None:
    turn.stop(None)
    if turn.is_rejected:
        return
    try:
        await turn.result()
        if turn.is_stored:
            await service.delete(tenant, turn.response_id)
    except AntiphonError as error:
        # What could not be kept need not be erased; the caller is told of another error.
        log.warning("a choice that was not wanted any more is left: %s", error.message)


def other_choice_ids(first: Response) -> list[str]:
    """The ids of a stored completion's other choices."""
    metadata = first.header.options.metadata
    named = [metadata[name] for name in sorted(metadata) if name.startswith(f"{_CHOICES_KEY}.")]
    return [_RESPONSE_ID_PREFIX + one for names in named for one in names.split(",")]


@contextmanager
def cancel_on_exit(turns: Sequence[RunningTurn]) -> Iterator[None]:
    """While entered, somebody waits for these turns: an unstored one has no other reader."""
    try:
        yield
    finally:
        for turn in turns:
            if not turn.is_stored:
                turn.stop(None)


async def gather_results(turns: Sequence[RunningTurn]) -> list[Response]:
    """The turns' ends. Raises the first error that one of them ended with."""
    responses = [await turn.result() for turn in turns]
    for turn in turns:
        if turn.error is not None:
            raise turn.error
    return responses


async def merge_events(
    turns: Sequence[RunningTurn], pause: Callable[[], float]
) -> AsyncIterator[ChoiceEvents]:
    """The events of all turns as they come, with the number of their choice.

    ``pause`` as for ``RunningTurn.events``. Raises the first error that one of them ends with.
    """
    if len(turns) == 1:
        async for only in turns[0].events(pause):
            yield ((0, only),)
        _raise_error(turns[0])
        return
    readers = [turn.events(pause) for turn in turns]
    waiting = {_next_batch(reader): index for index, reader in enumerate(readers)}
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
                    waiting[_next_batch(readers[index])] = index
            if arrived:
                yield arrived
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _next_batch(reader: AsyncIterator[Sequence[Event]]) -> asyncio.Task[Sequence[Event] | None]:
    async def read() -> Sequence[Event] | None:
        return await anext(reader, None)

    return asyncio.get_running_loop().create_task(read())


def _raise_error(turn: RunningTurn) -> None:
    if turn.error is not None:
        raise turn.error


#: Sends a message that is encoded already.
Write: TypeAlias = Callable[[bytes], Awaitable[None]]


class ChatServicer:
    """The methods, over one service."""

    def __init__(
        self,
        service: TurnService,
        completion_encoder: CompletionEncoder,
        throttle: StreamThrottle,
        deferred_completions: DeferredCompletions,
    ) -> None:
        self._service = service
        self._completion_encoder = completion_encoder
        self._deferred_completions = deferred_completions
        self._throttle = throttle

    async def complete(self, caller: Principal, request: Proto) -> Proto:
        """GetCompletion"""
        turns = await start_choices(
            self._service, caller, await self._decode_request(caller, request)
        )
        with cancel_on_exit(turns):
            return self._completion_encoder.encode(await gather_results(turns))

    async def stream(self, caller: Principal, request: Proto, write: Write) -> None:
        """GetCompletionChunk"""
        completion_request = await self._decode_request(caller, request)
        streamed = msgspec.structs.replace(completion_request.turn, stream=True, emit_created=False)
        turns = await start_choices(
            self._service, caller, msgspec.structs.replace(completion_request, turn=streamed)
        )
        with cancel_on_exit(turns), self._throttle.open_stream() as stream_pause:
            encoder = GrpcChunkEncoder(turns[0].initial_response, self._completion_encoder)
            async for batches in merge_events(turns, stream_pause.remaining):
                if chunk := encoder.encode(batches):
                    await write(chunk)
                    stream_pause.start()

    async def defer(self, caller: Principal, request: Proto) -> Proto:
        """StartDeferredCompletion: nobody waits for the answer, but somebody will ask for it."""
        completion_request = await self._decode_request(caller, request)
        if not completion_request.turn.store:
            self._deferred_completions.ensure_capacity(caller.tenant)
        turns = await start_choices(self._service, caller, completion_request)
        if completion_request.turn.store:
            await turns[0].wait_until_stored()
            return deferred_pb2.StartDeferredResponse(request_id=turns[0].response_id)
        return deferred_pb2.StartDeferredResponse(
            request_id=self._deferred_completions.add(caller.tenant, turns)
        )

    async def get_deferred(self, caller: Principal, request: Proto) -> Proto:
        """GetDeferredCompletion: of a stored answer for as long as it is stored."""
        name, tenant = request.request_id, caller.tenant
        if (found := await self._deferred_completions.find(tenant, name)) is not None:
            if found.is_expired:
                return _deferred_response(deferred_pb2.EXPIRED)
            if found.is_pending:
                return _deferred_response(deferred_pb2.PENDING)
            return _deferred_response(deferred_pb2.DONE, self._encode_ended(found.responses))
        choices = await self._stored_choices(caller, name)
        if any(choice.end is None for choice in choices):
            return _deferred_response(deferred_pb2.PENDING)
        return _deferred_response(deferred_pb2.DONE, self._encode_ended(choices))

    async def get_stored(self, caller: Principal, request: Proto) -> Proto:
        """GetStoredCompletion: whichever interface it was made through."""
        return self._encode_ended(await self._stored_choices(caller, request.response_id))

    async def delete(self, caller: Principal, request: Proto) -> Proto:
        """DeleteStoredCompletion, with all its choices"""
        first = await self._service.reader.response(caller.tenant, request.response_id)
        for other in other_choice_ids(first):
            try:
                await self._service.delete(caller.tenant, other)
            except NotFoundError:
                continue
        await self._service.delete(caller.tenant, first.id)
        return chat_pb2.DeleteStoredCompletionResponse(response_id=first.id)

    async def compact(self, caller: Principal, request: Proto) -> Proto:
        """CompactContext: nothing is stored."""
        items = decode_messages(request.input, "input")
        compaction = await self._service.compact(
            TurnRequest(
                input=_require_call_ids(items),
                model=request.model or None,
                store=False,
                tenant=caller.tenant,
            )
        )
        return chat_pb2.CompactContextResponse(
            id=item_id(new_response_id(), "compaction", 0),
            encrypted_content=SUMMARY_PREFIX + compaction.item.summary,
            dropped_message_count=len(request.input),
            usage=encode_usage(compaction.usage or Usage()),
        )

    async def _decode_request(self, caller: Principal, request: Proto) -> CompletionRequest:
        """The request as turns, with results of tools given to the calls they are for."""
        completion_request = decode_completion(request, caller.tenant, caller.key_id)
        turn = completion_request.turn
        if not has_unnamed_outputs(turn.input):
            return completion_request
        items = turn.input
        if turn.previous_response_id is not None:
            before = await self._service.reader.response(caller.tenant, turn.previous_response_id)
            items = pair_outputs(items, open_call_ids(before))
        turn = msgspec.structs.replace(turn, input=_require_call_ids(items))
        return msgspec.structs.replace(completion_request, turn=turn)

    async def _stored_choices(self, caller: Principal, response_id: str) -> list[Response]:
        choices = [await self._service.reader.response(caller.tenant, response_id)]
        for other in other_choice_ids(choices[0]):
            try:
                choices.append(await self._service.reader.response(caller.tenant, other))
            except NotFoundError:
                continue
        return choices

    def _encode_ended(self, choices: Sequence[Response]) -> Proto:
        """Turns that are over. Raises why a choice failed: a completion has no place for that."""
        for choice in choices:
            if (error := failure_of(choice)) is not None:
                raise error
        return self._completion_encoder.encode(choices)


def _require_call_ids(items: tuple[Item, ...]) -> tuple[Item, ...]:
    if has_unnamed_outputs(items):
        raise InvalidRequestError(
            "A tool's message has to name its call: no call waits for a result.",
            param="messages",
        )
    return items


def _deferred_response(status: int, completion: Proto | None = None) -> Proto:
    return chat_pb2.GetDeferredCompletionResponse(status=status, response=completion)
