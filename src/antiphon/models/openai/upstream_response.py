"""Upstream response: reads one HTTP response, streamed or whole, and drains its connection."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from antiphon.core.content_decoding import ContentDecoder, ContentDecodingError, decode_content
from antiphon.core.deltas import Delta, Finish, UsageUpdate
from antiphon.models.openai.answer_framing import AnswerFraming
from antiphon.models.openai.upstream_errors import (
    ErrorMapper,
    Unreadable,
    client_errors,
    incomplete_stream,
)
from antiphon.models.retry import AttemptError

if TYPE_CHECKING:
    from antiphon.models.openai.http_response import HttpResponse

#: How much of an error body is read, in bytes, and for how long, in seconds.
_MAX_ERROR_BODY_BYTES = 64 * 1024
_ERROR_BODY_TIMEOUT = 5.0
#: How long the rest of a complete answer is waited for, in seconds: its usage, as a rule.
_END_TIMEOUT = 1.5
#: The same, where the server has given a reason to stop with each piece, so that it says nothing.
_LATE_END_TIMEOUT = 10.0
#: How many reads behind a reason to stop show that.
_MAX_LATE_READS = 2
#: How long a finished stream's connection is drained before it is closed, in seconds.
_DRAIN_TIMEOUT = 1.0


#: Gives what a parser's ``parse_body`` and ``finish`` do, at once, of an answer as nearly all are;
#: None: it may be another.
PlainParser: TypeAlias = Callable[[bytes], list[Delta] | None]


class ResponseParser(Protocol):
    """Reads one answer in its dialect: call ``feed`` or ``parse_body``, then ``finish``.

    None of them raises. ``error`` is set where the answer failed: an ``error`` object as
    the upstream sent it (bytes), or the error itself. Deltas from before it are valid.
    """

    #: Whether the stream sent its end marker.
    done: bool
    error: bytes | AttemptError | None

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, None until it says so."""
        ...

    def feed(self, events: Iterable[bytes]) -> list[Delta]:
        """The deltas of a stream's events, which are their data."""
        ...

    def parse_body(self, body: bytes) -> list[Delta]:
        """The deltas of an answer that came in one piece."""
        ...

    def finish(self) -> list[Delta]:
        """The final deltas (usage, finish), or none and ``error``."""
        ...


#: Deltas that an answer without a word has, too.
_END_DELTAS = (UsageUpdate, Finish)


class UpstreamResponse:
    """Turns a successful response into deltas, read by read, until it ``is_complete``.

    ``parse_plain`` is tried first, and ``create_parser`` makes the parser for what that leaves.

    ``release`` must follow in any case: a response that was not read to its end loses
    its connection at once.
    """

    def __init__(
        self,
        response: HttpResponse,
        errors: ErrorMapper,
        parse_plain: PlainParser,
        create_parser: Callable[[], ResponseParser],
    ) -> None:
        self.is_complete = False
        self.response = response
        self._errors = errors
        self._parse_plain = parse_plain
        self._create_parser = create_parser
        #: Whether it was a plain answer.
        self._is_plain = False
        self._has_begun = self._has_output = False
        #: In how many reads something came behind a reason to stop.
        self._late_reads = 0
        #: When the rest of an answer is no longer waited for, by the loop's clock.
        self._deadline: float | None = None

    @cached_property
    def _response_parser(self) -> ResponseParser:
        return self._create_parser()

    @cached_property
    def _framing(self) -> AnswerFraming:
        return AnswerFraming(self.response.charset)

    @cached_property
    def _content_decoder(self) -> ContentDecoder:
        return ContentDecoder(self.response.find_header(b"content-encoding"))

    async def read(self) -> list[Delta]:
        """The deltas of all that has arrived; waits until something has.

        Raises ``AttemptError``; anything else is a bug here.
        """
        try:
            if self._deadline is None:
                data = await self.response.read()
            else:
                data = await self._read_until(self._deadline)
        except client_errors() as raised:
            data = self._end_by_error(raised)
        if not self._has_begun:
            self._has_begun = True
            if self.response.is_read and not self.response.is_encoded:
                plain = self._parse_plain(data)
                if plain is not None:
                    self.is_complete = self._is_plain = True
                    return plain
        parser = self._response_parser
        had_reason = parser.finish_reason is not None
        batch = self._parse(data)
        may_be_whole = self._framing.may_be_whole()
        if may_be_whole and data and self.response.is_read:
            # All of a document came in one read, its end too.
            data = b""
            batch += self._parse(data)
        self.is_complete = not data or parser.done or parser.error is not None
        if self.is_complete:
            self._has_output = self._has_output or bool(batch)
            return batch + self._finish()
        if batch:
            self._has_output = True
            self._deadline = None
            self._late_reads += had_reason
        if self._deadline is None and (may_be_whole or self._has_ended()):
            timeout = _END_TIMEOUT if self._late_reads < _MAX_LATE_READS else _LATE_END_TIMEOUT
            self._deadline = asyncio.get_running_loop().time() + timeout
        return batch

    async def gather(self, seconds: float) -> None:
        """Have what arrives meanwhile come in one read."""
        if not self.response.has_ended:
            self.response.pause()
            await asyncio.sleep(seconds)

    def _has_ended(self) -> bool:
        return self._response_parser.finish_reason is not None or self._framing.has_ended

    def raise_for_error(self) -> None:
        """Raise the ``AttemptError`` in what was read, if there is one."""
        error = None if self._is_plain else self._response_parser.error
        if isinstance(error, Unreadable):
            raise self._errors.unreadable(error)
        if isinstance(error, AttemptError):
            raise self._errors.with_plain_words(error, self._framing.plain_words)
        if error is not None:
            raise self._errors.from_error_event(error)

    def release(self) -> bool:
        """Give the connection back or close it; False: neither, see ``ConnectionDrainer``."""
        is_whole = self.is_complete and (self._is_plain or self._response_parser.error is None)
        if is_whole and not self.response.has_ended:
            return False
        self.response.close()
        return True

    def _parse(self, data: bytes) -> list[Delta]:
        """The deltas of these bytes; of none: those at the end of the body."""
        framing, parser = self._framing, self._response_parser
        batch: list[Delta] = []
        try:
            if data:
                for piece in self._content_decoder.feed(data):
                    batch += parser.feed(framing.feed(piece))
                    if parser.done or parser.error is not None:
                        break
                return batch
            batch = parser.feed(framing.close())
        except Unreadable as error:
            parser.error = error
        except ContentDecodingError as error:
            parser.error = Unreadable(str(error), b"")
        else:
            return batch if framing.document is None else parser.parse_body(framing.document)
        return batch

    def _finish(self) -> list[Delta]:
        parser = self._response_parser
        if parser.finish_reason is None and _ERROR_WORDS.search(self._framing.plain_words):
            parser.error = parser.error or incomplete_stream()
        batch = parser.finish()
        has_output = self._has_output or any(type(one) not in _END_DELTAS for one in batch)
        if parser.done and parser.finish_reason is None and not has_output:
            # An end marker, and no answer before it.
            parser.error = parser.error or Unreadable("it holds no answer", b"")
            return []
        return batch

    async def _read_until(self, deadline: float) -> bytes:
        """The bytes that arrived; none: the answer ends here, as the time for its rest is over."""
        try:
            async with asyncio.timeout_at(deadline) as timeout:
                return await self.response.read()
        except TimeoutError:
            if not timeout.expired():
                raise
        if self._is_whole():
            return b""
        # What looked like the end of a document was none.
        self._deadline = None
        return await self.response.read()

    def _end_by_error(self, raised: Exception) -> bytes:
        """No bytes, as those of an answer that is whole although its connection broke off."""
        if self._is_whole():
            return b""
        raise self._errors.from_exception(raised) from None

    def _is_whole(self) -> bool:
        """Whether the answer has said why it stops, or is one whole document."""
        return self._has_ended() or self._framing.is_whole()


class ConnectionDrainer:
    """Keeps connections of complete answers open until their HTTP message ends.

    Then the connection can be reused. No caller waits for that, and a timer closes those
    whose end does not come.
    """

    def __init__(self) -> None:
        self._timers: dict[HttpResponse, asyncio.TimerHandle] = {}

    def add(self, response: HttpResponse) -> None:
        loop = asyncio.get_running_loop()
        self._timers[response] = loop.call_later(_DRAIN_TIMEOUT, self._close_response, response)

    def close(self) -> None:
        for response, timer in list(self._timers.items()):
            timer.cancel()
            self._close_response(response)

    def _close_response(self, response: HttpResponse) -> None:
        del self._timers[response]
        response.close()


#: What a text in place of an event says, where it is no sign of life.
_ERROR_WORDS: Final = re.compile(rb"error|exception|traceback|failed", re.IGNORECASE)


async def read_error_body(response: HttpResponse) -> bytes:
    """The body of an error response, as far as it arrives; closes the connection."""
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(_ERROR_BODY_TIMEOUT):
            await _read_start(response, _MAX_ERROR_BODY_BYTES, parts)
    except client_errors():
        # The status alone describes the error; the body is only more precise.
        pass
    try:
        return _decode_start(response, parts, _MAX_ERROR_BODY_BYTES)
    except ContentDecodingError:
        return b""


async def read_start(response: HttpResponse, max_bytes: int) -> bytes:
    """The body, cut off after ``max_bytes``; closes the connection.

    Raises what is in ``client_errors``, and ``Unreadable``.
    """
    parts: list[bytes] = []
    await _read_start(response, max_bytes, parts)
    try:
        return _decode_start(response, parts, max_bytes)
    except ContentDecodingError as error:
        raise Unreadable(str(error), b"") from None


async def _read_start(response: HttpResponse, max_bytes: int, parts: list[bytes]) -> None:
    try:
        while data := await response.read():
            parts.append(data)
            if sum(map(len, parts)) > max_bytes:
                break
    finally:
        response.close()


def _decode_start(response: HttpResponse, parts: list[bytes], max_bytes: int) -> bytes:
    encoding = response.find_header(b"content-encoding")
    return decode_content(b"".join(parts), encoding, max_bytes)
