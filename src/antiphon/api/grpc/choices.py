"""The turns of one request: one for each choice, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

import msgspec

from antiphon.api.grpc.interceptor import Caller, log
from antiphon.api.grpc.request_codec import Asked
from antiphon.core.events import Event
from antiphon.core.turns import Response, TurnRequest
from antiphon.errors import AntiphonError
from antiphon.turn.running_turns import LiveTurn
from antiphon.turn.service import TurnService

#: Where the first choice's metadata names the other ones. 15 ids in one value would be
#: longer than a value may be: they are without what all have in common.
_OTHERS = "choices"
_PREFIX = "resp_"

Batches: TypeAlias = Sequence[tuple[int, Sequence[Event]]]


async def start(service: TurnService, caller: Caller, asked: Asked) -> list[LiveTurn]:
    """Start the turns of all choices, the one that gives the completion its id first.

    Either all run or none is left: what keeps one from starting stops the others.
    """
    others: list[LiveTurn] = []
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


def _naming(turn: TurnRequest, others: Sequence[LiveTurn]) -> TurnRequest:
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


async def _undo(service: TurnService, turn: LiveTurn, tenant: str) -> None:
    turn.stop(None)
    try:
        await turn.result()
        if turn.stored:
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
def attended(turns: Sequence[LiveTurn]) -> Iterator[None]:
    """While entered, somebody waits for these turns: an unstored one has no other reader."""
    try:
        yield
    finally:
        for turn in turns:
            if not turn.stored:
                turn.stop(None)


async def ends(turns: Sequence[LiveTurn]) -> list[Response]:
    """The turns' ends. Raises the first error that one of them ended with."""
    responses = [await turn.result() for turn in turns]
    for turn in turns:
        if turn.error is not None:
            raise turn.error
    return responses


async def merged(turns: Sequence[LiveTurn], rest: Callable[[], float]) -> AsyncIterator[Batches]:
    """The events of all turns as they come, with the number of their choice.

    ``rest`` as for ``LiveTurn.events``. Raises the first error that one of them ends with.
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


def _raise_error(turn: LiveTurn) -> None:
    if turn.error is not None:
        raise turn.error
