"""Upstream response: reads one HTTP response, streamed or whole, and drains its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

import aiohttp

from antiphon.core.deltas import Delta
from antiphon.errors import ModelError
from antiphon.models.openai.sse import SseParser
from antiphon.models.openai.upstream_errors import CLIENT_ERRORS, ErrorMapper, Unreadable
from antiphon.models.retry import AttemptError

#: The size limit of an answer that is not streamed, in bytes.
_MAX_BODY_BYTES = 64 * 1024 * 1024
#: How much of an error body is read, in bytes, and for how long, in seconds.
_MAX_ERROR_BODY_BYTES = 64 * 1024
_ERROR_BODY_TIMEOUT = 5.0
#: How long a finished stream's connection is drained before it is closed, in seconds.
_DRAIN_TIMEOUT = 1.0


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


class UpstreamResponse:
    """Turns a successful response into deltas, read by read, until it ``is_complete``.

    ``release`` must follow in any case: a response that was not read to its end loses
    its connection at once.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        errors: ErrorMapper,
        response_parser: ResponseParser,
        *,
        stream: bool,
    ) -> None:
        self.is_complete = False
        self.response = response
        self._errors = errors
        self._response_parser = response_parser
        self._sse_parser = SseParser() if _is_stream(response, requested=stream) else None

    async def read(self) -> list[Delta]:
        """The deltas of all that has arrived; waits until something has.

        Raises ``AttemptError``; anything else is a bug here.
        """
        reader, parser = self._response_parser, self._sse_parser
        if parser is None:
            batch = reader.parse_body(await self._read_body())
            self.is_complete = True
        else:
            data = await self._read_chunk()
            batch = reader.feed(parser.feed(data) if data else parser.close())
            self.is_complete = reader.done or not data or reader.error is not None
        if self.is_complete:
            batch += reader.finish()
        return batch

    def raise_for_error(self) -> None:
        """Raise the ``AttemptError`` in what was read, if there is one."""
        error = self._response_parser.error
        if isinstance(error, Unreadable):
            raise self._errors.unreadable(error)
        if error is not None:
            raise (
                error if isinstance(error, AttemptError) else self._errors.from_error_event(error)
            )

    def release(self) -> bool:
        """Give the connection back or close it; False: neither, see ``ConnectionDrainer``."""
        is_whole = self.is_complete and self._response_parser.error is None
        if is_whole and not self.response.content.is_eof():
            return False
        self.response.close()
        return True

    async def _read_chunk(self) -> bytes:
        try:
            return await self._read_available()
        except AttemptError:
            if self._response_parser.finish_reason is None:
                raise
            # The answer is complete; only the end of the stream itself is missing.
            return b""

    async def _read_body(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while data := await self._read_available():
            parts.append(data)
            size += len(data)
            if size > _MAX_BODY_BYTES:
                text = f"The upstream's answer is longer than {_MAX_BODY_BYTES} bytes."
                raise AttemptError(ModelError(text, code="upstream_invalid_response"))
        return b"".join(parts)

    async def _read_available(self) -> bytes:
        """The bytes that arrived, at least one; none: the end of the response."""
        try:
            return await self.response.content.readany()
        except CLIENT_ERRORS as raised:
            failure = self._errors.from_exception(raised)
        raise failure


class ConnectionDrainer:
    """Keeps connections of complete answers open until their HTTP message ends.

    Then the connection can be reused. No caller waits for that, and a timer closes those
    whose end does not come.
    """

    def __init__(self) -> None:
        self._timers: dict[aiohttp.ClientResponse, asyncio.TimerHandle] = {}

    def add(self, response: aiohttp.ClientResponse) -> None:
        loop = asyncio.get_running_loop()
        self._timers[response] = loop.call_later(_DRAIN_TIMEOUT, self._close_response, response)

    def close(self) -> None:
        for response, timer in list(self._timers.items()):
            timer.cancel()
            self._close_response(response)

    def _close_response(self, response: aiohttp.ClientResponse) -> None:
        del self._timers[response]
        response.close()


async def read_error_body(response: aiohttp.ClientResponse) -> bytes:
    """The body of an error response, as far as it arrives; closes the connection."""
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(_ERROR_BODY_TIMEOUT):
            await _read_start(response, _MAX_ERROR_BODY_BYTES, parts)
    except CLIENT_ERRORS:
        # The status alone describes the error; the body is only more precise.
        pass
    return b"".join(parts)


async def read_start(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The body, cut off after ``max_bytes``; closes the connection.

    Raises what is in ``CLIENT_ERRORS``.
    """
    parts: list[bytes] = []
    await _read_start(response, max_bytes, parts)
    return b"".join(parts)


async def _read_start(response: aiohttp.ClientResponse, max_bytes: int, parts: list[bytes]) -> None:
    try:
        async for data in response.content.iter_any():
            parts.append(data)
            if sum(map(len, parts)) > max_bytes:
                break
    finally:
        response.close()


def _is_stream(response: aiohttp.ClientResponse, *, requested: bool) -> bool:
    """Whether the response is a stream, which may differ from the request."""
    kind = response.headers.get("Content-Type", "")
    if "event-stream" in kind:
        return True
    return requested and "json" not in kind
