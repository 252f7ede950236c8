"""Streams: one streamed answer, read as text, as events or as partial objects."""

from __future__ import annotations

import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from contextlib import aclosing
from types import AsyncGeneratorType, TracebackType
from typing import Any, Generic, Protocol, TypeVar

from antiphon.blocking_portal import BlockingPortal
from antiphon.chat.reply import Reply
from antiphon.core.events import Created, Event, ItemAdded, RefusalDelta, TextDelta
from antiphon.core.items import Message
from antiphon.errors import InvalidRequestError

T = TypeVar("T")
U = TypeVar("U")

#: Between two messages: tools ran between them, or the first was sent back for correction.
_PARAGRAPH = "\n\n"


class EventSource(Protocol):
    """The events of a turn (or two, where an answer was sent back for correction)."""

    reply: Reply[Any] | None

    def events(self) -> AsyncGenerator[Event, None]: ...

    async def stop(self) -> None: ...

    def parse_partial(self, text: str) -> Any: ...


class AsyncStream(Generic[T]):
    """Reads an answer while it is written; nothing is sent before the reading begins.

    Iterate it for the text, or ``events()`` for everything (``antiphon.events``), or
    ``objects()`` for the object so far as plain data, where ``returns`` was given. Only
    one of them, and once. ``reply`` is there when the reading is over. Closing early
    stops the answer; what arrived is kept, and the conversation goes on from there.
    Reading raises what ``send`` raises.
    """

    def __init__(self, source: EventSource) -> None:
        self._source = source
        self._reader: AsyncGenerator[Any, None] | None = None
        self._text_iterator: AsyncGenerator[str, None] | None = None
        self._closed = False

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        if self._text_iterator is None:
            self._text_iterator = self._start_reading(self._text)
        return await anext(self._text_iterator)

    def events(self) -> AsyncIterator[Event]:
        """All typed events: text, calls and their arguments, tool outputs."""
        return self._start_reading(self._source.events)

    def objects(self) -> AsyncIterator[Any]:
        """The partial object, each time that it grows."""
        return self._start_reading(self._objects)

    @property
    def reply(self) -> Reply[T]:
        """The whole answer. Raises ``InvalidRequestError`` before the stream is read to its end."""
        if self._source.reply is None:
            raise InvalidRequestError(
                "The reply is there when the stream has been read to its end.",
                code="stream_not_finished",
            )
        return self._source.reply

    async def close(self) -> None:
        """Stop the answer, if it is not over; one that was not read yet is never asked for.

        Where another task reads it, that one's reading ends there.
        """
        self._closed = True
        if self._reader is not None:
            await self._source.stop()
            # Python refuses to close a generator while somebody waits for its next value.
            if not (isinstance(self._reader, AsyncGeneratorType) and self._reader.ag_running):
                await self._reader.aclose()

    async def __aenter__(self) -> AsyncStream[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _start_reading(
        self, reader_factory: Callable[[], AsyncGenerator[U, None]]
    ) -> AsyncGenerator[U, None]:
        if self._reader is not None:
            raise InvalidRequestError("A stream can be read once.", code="stream_read_twice")
        if self._closed:
            raise InvalidRequestError("The stream has been closed.", code="stream_closed")
        self._reader = reader = reader_factory()
        return reader

    async def _text(self) -> AsyncGenerator[str, None]:
        message: tuple[int, int] | None = None
        turns = 0
        async with aclosing(self._source.events()) as events:
            async for event in events:
                if isinstance(event, Created):
                    turns += 1
                elif isinstance(event, TextDelta | RefusalDelta):
                    if message not in (None, (turns, event.index)):
                        yield _PARAGRAPH
                    message = (turns, event.index)
                    yield event.text

    async def _objects(self) -> AsyncGenerator[Any, None]:
        text, last = "", None
        async with aclosing(self._source.events()) as events:
            async for event in events:
                if isinstance(event, ItemAdded) and isinstance(event.item, Message):
                    text = ""
                elif isinstance(event, TextDelta):
                    text += event.text
                    data = self._source.parse_partial(text)
                    if data is not None and data != last:
                        last = data
                        yield data


class LoopPortal(BlockingPortal):
    """The blocking portal, which rejects calls from its own loop's thread: they would deadlock."""

    def __init__(self, on_exit: Callable[[], Coroutine[Any, Any, None]]) -> None:
        super().__init__(on_exit)
        self._thread = threading.local()
        self._is_thread_marked = False

    @property
    def is_loop_thread(self) -> bool:
        """Whether this is the loop's own thread."""
        return getattr(self._thread, "ours", False)

    def run(self, work: Callable[[], Coroutine[Any, Any, U]]) -> U:
        """As ``BlockingPortal.run``. Raises ``InvalidRequestError`` where it could only wait for
        ever.
        """
        if self.closed_reason:
            raise InvalidRequestError(self.closed_reason, code="process_over")
        if self.is_loop_thread:
            raise InvalidRequestError(
                "A Conversation cannot be waited for here, in an async function that it runs"
                " itself: take AsyncConversation.",
                code="blocking_call",
            )
        if not self._is_thread_marked:
            super().run(self._mark_thread)
            self._is_thread_marked = True
        return super().run(work)

    async def _mark_thread(self) -> None:
        self._thread.ours = True


class Stream(Generic[T]):
    """The blocking twin of ``AsyncStream``."""

    def __init__(self, async_stream: AsyncStream[T], portal: LoopPortal) -> None:
        self._async_stream = async_stream
        self._portal = portal
        self._text_iterator: Generator[str, None, None] | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._text_iterator is None:
            self._text_iterator = self._iterate(aiter(self._async_stream))
        return next(self._text_iterator)

    def events(self) -> Iterator[Event]:
        """All typed events: text, calls and their arguments, tool outputs."""
        return self._iterate(self._async_stream.events())

    def objects(self) -> Iterator[Any]:
        """The partial object, each time that it grows."""
        return self._iterate(self._async_stream.objects())

    @property
    def reply(self) -> Reply[T]:
        """The whole answer. Raises ``InvalidRequestError`` before the stream is read to its end."""
        return self._async_stream.reply

    def close(self) -> None:
        """Stop the answer, if it is not over. Where another thread reads it, its loop ends."""
        # A stream that outlives the program's end was stopped with it, and one in a forked
        # process is its parent's. One that the loop's own thread finds forgotten is closed
        # by the loop, as all its generators are.
        if not self._portal.closed_reason and not self._portal.is_loop_thread:
            self._portal.run(self._async_stream.close)

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _iterate(self, reader: AsyncIterator[U]) -> Generator[U, None, None]:
        over = object()

        async def step() -> Any:
            return await anext(reader, over)

        try:
            while (value := self._portal.run(step)) is not over:
                yield value
        finally:
            self.close()
