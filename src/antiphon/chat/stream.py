"""Streams: one streamed answer, read as text, as events or as partial objects."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
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
        self._events: AsyncGenerator[Event, None] | None = None
        self._text_iterator: AsyncIterator[str] | None = None
        self._closed = False

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        if self._text_iterator is None:
            self._text_iterator = _ConvertedEvents(self._start_reading(), _TextConverter())
        return await anext(self._text_iterator)

    def events(self) -> AsyncIterator[Event]:
        """All typed events: text, calls and their arguments, tool outputs."""
        return self._start_reading()

    def objects(self) -> AsyncIterator[Any]:
        """The partial object, each time that it grows."""
        converter = _ObjectConverter(self._source.parse_partial)
        return _ConvertedEvents(self._start_reading(), converter)

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
        if self._events is not None:
            await self._source.stop()
            # Python refuses to close a generator while somebody waits for its next value.
            if not (isinstance(self._events, AsyncGeneratorType) and self._events.ag_running):
                await self._events.aclose()

    async def __aenter__(self) -> AsyncStream[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _start_reading(self) -> AsyncGenerator[Event, None]:
        if self._events is not None:
            raise InvalidRequestError("A stream can be read once.", code="stream_read_twice")
        if self._closed:
            raise InvalidRequestError("The stream has been closed.", code="stream_closed")
        self._events = self._source.events()
        return self._events


class _ConvertedEvents(Generic[U]):
    """What is made of events, as they come.

    Not a generator: one that was forgotten together with the events' own would be closed at the
    same time as that, which Python refuses. It does not know its stream either: a stream that
    nobody holds any more is stopped at once, and not when the garbage collector comes.
    """

    def __init__(
        self, events: AsyncGenerator[Event, None], convert: Callable[[Event], Iterable[U]]
    ) -> None:
        self._events = events
        self._convert = convert
        self._ready: deque[U] = deque()

    def __aiter__(self) -> AsyncIterator[U]:
        return self

    async def __anext__(self) -> U:
        while not self._ready:
            self._ready.extend(self._convert(await anext(self._events)))
        return self._ready.popleft()


class _TextConverter:
    """Events to text, with an empty line between two messages."""

    def __init__(self) -> None:
        self._turn_count = 0
        self._message: tuple[int, int] | None = None

    def __call__(self, event: Event) -> tuple[str, ...]:
        if isinstance(event, Created):
            self._turn_count += 1
        if not isinstance(event, TextDelta | RefusalDelta):
            return ()
        before, self._message = self._message, (self._turn_count, event.index)
        return (event.text,) if before in (None, self._message) else (_PARAGRAPH, event.text)


class _ObjectConverter:
    """Events to the partial object, each time that it grows."""

    def __init__(self, parse_partial: Callable[[str], Any]) -> None:
        self._parse_partial = parse_partial
        self._text = ""
        self._last: Any = None

    def __call__(self, event: Event) -> tuple[Any, ...]:
        if isinstance(event, ItemAdded) and isinstance(event.item, Message):
            self._text = ""
        if not isinstance(event, TextDelta):
            return ()
        self._text += event.text
        data = self._parse_partial(self._text)
        if data is None or data == self._last:
            return ()
        self._last = data
        return (data,)


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
            self._text_iterator = _iterate(
                self._portal, self._async_stream, aiter(self._async_stream)
            )
        return next(self._text_iterator)

    def events(self) -> Iterator[Event]:
        """All typed events: text, calls and their arguments, tool outputs."""
        return _iterate(self._portal, self._async_stream, self._async_stream.events())

    def objects(self) -> Iterator[Any]:
        """The partial object, each time that it grows."""
        return _iterate(self._portal, self._async_stream, self._async_stream.objects())

    @property
    def reply(self) -> Reply[T]:
        """The whole answer. Raises ``InvalidRequestError`` before the stream is read to its end."""
        return self._async_stream.reply

    def close(self) -> None:
        """Stop the answer, if it is not over. Where another thread reads it, its loop ends."""
        _close(self._portal, self._async_stream)

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _iterate(
    portal: LoopPortal, stream: AsyncStream[Any], reader: AsyncIterator[U]
) -> Generator[U, None, None]:
    # Not a method: a generator that knew its ``Stream`` would be kept by it, and keep it.
    over = object()

    async def step() -> Any:
        return await anext(reader, over)

    try:
        while (value := portal.run(step)) is not over:
            yield value
    finally:
        _close(portal, stream)


def _close(portal: LoopPortal, stream: AsyncStream[Any]) -> None:
    # A stream that outlives the program's end was stopped with it, and one in a forked
    # process is its parent's. One that the loop's own thread finds forgotten is closed
    # by the loop, as all its generators are.
    if not portal.closed_reason and not portal.is_loop_thread:
        portal.run(stream.close)
