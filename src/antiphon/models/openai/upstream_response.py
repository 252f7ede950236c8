"""One HTTP answer from an upstream, while it is being read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

import aiohttp

from antiphon.core.deltas import Delta
from antiphon.errors import ModelError
from antiphon.models.openai.sse import SseParser
from antiphon.models.openai.upstream_errors import FOREIGN, Translator, Unreadable
from antiphon.models.retry import Failure

#: The longest answer that is taken in one piece, in bytes.
_LONGEST_ANSWER = 64 * 1024 * 1024
#: How much of a refusal is read, in bytes, and for how long, in seconds.
_LONGEST_REFUSAL = 64 * 1024
_REFUSAL_TIME = 5.0
#: How long the rest of a finished stream may take until its connection is given up, in seconds.
_LINGER = 1.0


class AnswerReader(Protocol):
    """Reads one answer in its dialect: ``feed`` it events or give it the ``whole``, then ``end``.

    None of them raises. ``trouble`` is set where the answer went wrong: an ``error``
    object as the upstream sent it (bytes), or the error itself. Deltas that were
    given before it are good.
    """

    #: The stream said that it is over.
    done: bool
    trouble: bytes | Failure | None

    @property
    def reason(self) -> str | None:
        """Why the model stopped, None until it says so."""
        ...

    def feed(self, events: Iterable[bytes]) -> list[Delta]:
        """The deltas of a stream's events, which are their data."""
        ...

    def whole(self, body: bytes) -> list[Delta]:
        """The deltas of an answer that came in one piece."""
        ...

    def end(self) -> list[Delta]:
        """What closes the answer: its tokens and its finish, or ``trouble``."""
        ...


class Exchange:
    """Turns a successful answer into deltas, read by read, until it is ``over``.

    ``let_go`` must follow in any case: an answer that was not read to its end loses
    its connection at once.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        errors: Translator,
        reader: AnswerReader,
        *,
        streamed: bool,
    ) -> None:
        self.over = False
        self.response = response
        self._errors = errors
        self._reader = reader
        self._parser = SseParser() if _is_stream(response, asked=streamed) else None

    async def read(self) -> list[Delta]:
        """The deltas of all that has arrived; waits until something has.

        Raises ``Failure``; anything else is a mistake of ours.
        """
        reader, parser = self._reader, self._parser
        if parser is None:
            batch = reader.whole(await self._all())
            self.over = True
        else:
            data = await self._more()
            batch = reader.feed(parser.feed(data) if data else parser.close())
            self.over = reader.done or not data or reader.trouble is not None
        if self.over:
            batch += reader.end()
        return batch

    def check(self) -> None:
        """Raise the ``Failure`` in what was read, if there is one."""
        trouble = self._reader.trouble
        if isinstance(trouble, Unreadable):
            raise self._errors.unreadable(trouble)
        if trouble is not None:
            raise trouble if isinstance(trouble, Failure) else self._errors.within(trouble)

    def let_go(self) -> bool:
        """Give the connection back or close it; False: neither, see ``Drain``."""
        whole = self.over and self._reader.trouble is None
        if whole and not self.response.content.is_eof():
            return False
        self.response.close()
        return True

    async def _more(self) -> bytes:
        try:
            return await self._arrived()
        except Failure:
            if self._reader.reason is None:
                raise
            # All was said; only the end of the stream itself is missing.
            return b""

    async def _all(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while data := await self._arrived():
            parts.append(data)
            size += len(data)
            if size > _LONGEST_ANSWER:
                text = f"The upstream's answer is longer than {_LONGEST_ANSWER} bytes."
                raise Failure(ModelError(text, code="upstream_invalid_response"))
        return b"".join(parts)

    async def _arrived(self) -> bytes:
        """What has come since, at least something; nothing: the answer is over."""
        try:
            return await self.response.content.readany()
        except FOREIGN as raised:
            failure = self._errors.foreign(raised)
        raise failure


class Drain:
    """Lets the rest of streams come that said all they had to say.

    What is missing is the end of the HTTP message, and then the connection can be
    used again. Nobody should wait for that, and it should not take for ever.
    """

    def __init__(self) -> None:
        self._timers: dict[aiohttp.ClientResponse, asyncio.TimerHandle] = {}

    def add(self, response: aiohttp.ClientResponse) -> None:
        loop = asyncio.get_running_loop()
        self._timers[response] = loop.call_later(_LINGER, self._give_up, response)

    def close(self) -> None:
        for response, timer in list(self._timers.items()):
            timer.cancel()
            self._give_up(response)

    def _give_up(self, response: aiohttp.ClientResponse) -> None:
        del self._timers[response]
        response.close()


async def read_refusal(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer that is not a success, as far as it comes; closes the rest."""
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(_REFUSAL_TIME):
            await _read_start(response, _LONGEST_REFUSAL, parts)
    except FOREIGN:
        # The status says what went wrong; the body would only have said it better.
        pass
    return b"".join(parts)


async def read_start(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, or as much of it as makes more than ``most`` bytes; closes the rest.

    Raises what is in ``FOREIGN``.
    """
    parts: list[bytes] = []
    await _read_start(response, most, parts)
    return b"".join(parts)


async def _read_start(response: aiohttp.ClientResponse, most: int, parts: list[bytes]) -> None:
    try:
        async for data in response.content.iter_any():
            parts.append(data)
            if sum(map(len, parts)) > most:
                break
    finally:
        response.close()


def _is_stream(response: aiohttp.ClientResponse, *, asked: bool) -> bool:
    """Whether the answer is a stream: it may be what was not asked for."""
    kind = response.headers.get("Content-Type", "")
    if "event-stream" in kind:
        return True
    return asked and "json" not in kind
