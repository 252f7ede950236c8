"""HTTP response: reads one response of an upstream from the bytes of its connection.

The connection is aiohttp's, which opens, secures and pools it, and talks to a proxy on it. What
aiohttp does between the bytes of a response and its reader (a parser, a stream of chunks, two
timers) costs more than all else that is done with a piece of an answer, so here a response is the
target of the parser itself, and the pieces of its body are a list.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import aiohttp
import httptools
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from multidict import CIMultiDict

#: How many headers a response has at most, and how many bytes they and its status line have.
_MAX_HEADERS: Final = 128
_MAX_HEAD_BYTES: Final = 64 * 1024
#: From so many bytes on that nobody has read yet, no more are taken from the connection.
_MAX_UNREAD_BYTES: Final = 256 * 1024
_SWITCHING_PROTOCOLS: Final = 101
#: Statuses from here on are final: those below announce another response.
_FIRST_FINAL_STATUS: Final = 200


class ResponseProtocol(ResponseHandler):
    """A connection that gives what arrives to the response that is expected on it.

    Without one it is aiohttp's own, for the handshake with a proxy.
    """

    #: Whom the bytes are for; None: nothing was asked.
    response: HttpResponse | None = None
    #: Looks after the upstream's silence. It runs on from one response to the next: a timer for
    #: each would cost more than its head.
    _silence_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        if self.response is not None:
            self.response.feed(data)
        elif self._parser is not None:
            super().data_received(data)
        else:
            # Whatever it is, it must not be taken for the next response.
            self.close()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.response is not None:
            self.response.note_request_sent()

    def watch_silence(self, seconds: float) -> None:
        """Have responses checked whether the upstream is silent for too long, ``seconds``."""
        if self._silence_timer is None:
            self._silence_timer = self._loop.call_later(seconds, self._check_silence)

    def _check_silence(self) -> None:
        self._silence_timer = None
        if self.response is not None and (rest := self.response.check_silence()) > 0:
            self.watch_silence(rest)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._silence_timer is not None:
            self._silence_timer.cancel()
            self._silence_timer = None
        response, self.response = self.response, None
        super().connection_lost(exc)
        if response is not None:
            response.note_connection_lost(exc)


class HttpResponse:
    """A response, whose body can be read in pieces as they arrive.

    At the body's end its connection is given to ``give_back``, as another response may follow on
    it; ``close`` closes it before. ``read_timeout`` is the longest silence of the upstream, in
    seconds, once it has the request.
    """

    def __init__(
        self,
        connection: Connection,
        protocol: ResponseProtocol,
        read_timeout: float,
        give_back: Callable[[Connection], None],
    ) -> None:
        self.status = 0
        #: Whether the body comes in a content encoding.
        self.is_encoded = False
        #: Whether all of the body has arrived.
        self.has_ended = False
        self._connection = connection
        self._protocol = protocol
        self._read_timeout = read_timeout
        self._give_back = give_back
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._unread_bytes = 0
        self._raw_headers: list[tuple[bytes, bytes]] = []
        self._is_paused = self._ends_with_connection = self._keeps_alive = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        #: Since when bytes are waited for, by the loop's clock.
        self._waiting_since = 0.0
        #: Called by the parser, as are the other methods of such names.
        self.on_body = self._pieces.append
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        # As aiohttp reads responses.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_chunked_length=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        protocol.response = self

    # For the reader.

    async def read(self) -> bytes:
        """What has arrived, at least one byte; none: the end. Raises ``client_errors``."""
        if self._is_paused:
            self._resume()
        pieces = self._pieces
        while not pieces:
            if self.has_ended:
                return b""
            await self.wait()
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread_bytes = 0
        return data

    def pause(self) -> None:
        """Leave what arrives to the system, until ``read`` is called."""
        if not (self._is_paused or self.has_ended):
            self._pause()

    @property
    def is_read(self) -> bool:
        """Whether there is nothing more to read."""
        return self.has_ended and not self._pieces

    @property
    def headers(self) -> CIMultiDict[str]:
        """The headers, once they are here."""
        return CIMultiDict([(_text(name), _text(value)) for name, value in self._raw_headers])

    def find_header(self, lower_name: bytes) -> str:
        """A header's value, the first of several; empty: there is none."""
        for name, value in self._raw_headers:
            if name.lower() == lower_name:
                return _text(value)
        return ""

    @property
    def charset(self) -> str | None:
        """The declared one."""
        return _find_charset(self.find_header(b"content-type"))

    def close(self) -> None:
        """Close the connection, if the body has not been read to its end."""
        if not self.has_ended:
            self._detach()
            self._connection.close()
            self._fail(aiohttp.ClientConnectionError("The response was closed."))

    # For the connection.

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection."""
        assert self._parser is not None, "nothing comes once it is detached"
        self._unread_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.has_ended, self._keeps_alive = True, False
        except httptools.HttpParserError as error:
            # Beyond its end nothing belongs to the response any more.
            self._keeps_alive = False
            if not self.has_ended:
                self._detach()
                self._connection.close()
                self._fail(_malformed(error))
                return
        if self.has_ended:
            self._release()
        elif not self.status and self._unread_bytes > _MAX_HEAD_BYTES:
            self._detach()
            self._connection.close()
            self._fail(HttpProcessingError(code=400, message="The headers are too long."))
        elif self._unread_bytes > _MAX_UNREAD_BYTES and not self._is_paused:
            self._pause()
        self._wake()

    def note_request_sent(self) -> None:
        """The upstream has the request: its silence counts from now on."""
        self._waiting_since = self._loop.time()

    def check_silence(self) -> float:
        """Fail if nothing has come for too long; the seconds after which to look again."""
        silence = 0.0
        if self._is_waiting() and not self._protocol.writing_paused:
            silence = self._loop.time() - self._waiting_since
        rest = self._read_timeout - silence
        if rest <= 0:
            self._fail(aiohttp.SocketTimeoutError("No data came in time"))
        return rest

    def note_connection_lost(self, error: BaseException | None) -> None:
        """Nothing more comes."""
        if self.has_ended:
            return
        if error is None and self.status and self._ends_with_connection:
            self.has_ended = True
            self._release()
            self._wake()
            return
        self._detach()
        self._connection.close()
        if self.status:
            self._fail(aiohttp.ClientPayloadError(f"The body is not complete: {error!r}"))
        elif isinstance(error, OSError):
            self._fail(aiohttp.ClientOSError(*error.args))
        else:
            self._fail(aiohttp.ServerDisconnectedError())

    # For the parser.

    def on_message_begin(self) -> None:
        if self.has_ended:
            raise ValueError("There is something behind the response.")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._raw_headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        if len(self._raw_headers) > _MAX_HEADERS:
            raise ValueError("There are too many headers.")
        status = self._parser.get_status_code()
        if status < _FIRST_FINAL_STATUS and status != _SWITCHING_PROTOCOLS:
            self._raw_headers.clear()
            return
        self.status = status
        self._keeps_alive = self._parser.should_keep_alive()
        names = {name.lower() for name, _ in self._raw_headers}
        self.is_encoded = b"content-encoding" in names
        if b"transfer-encoding" not in names:
            self._ends_with_connection = b"content-length" not in names
        else:
            codings = self.find_header(b"transfer-encoding")
            self._ends_with_connection = not codings.lower().endswith("chunked")
            if b"content-length" in names:
                # Whoever is in between may go by that: nothing else is read from there.
                self._keeps_alive = False

    def on_message_complete(self) -> None:
        self.has_ended = self.status != 0

    def wait(self) -> asyncio.Future[None]:
        """What is done once something has arrived. Raises ``client_errors``."""
        if self._error is not None:
            raise self._error
        self._waiting_since = self._loop.time()
        self._protocol.watch_silence(self._read_timeout)
        self._waiter = self._loop.create_future()
        return self._waiter

    def _is_waiting(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._wake()

    def _release(self) -> None:
        """Give the connection back: the response has ended."""
        protocol = self._protocol
        self._detach()
        if self._is_paused:
            self._resume()
        if self._keeps_alive and not protocol.writing_paused:
            self._give_back(self._connection)
        else:
            # Or the upstream has answered before it had the whole request.
            self._connection.close()

    def _detach(self) -> None:
        """Take nothing more from the connection.

        The parser holds the response: one that is over has none, so that it goes at once, and not
        when the garbage collector finds it.
        """
        self._parser = None
        if self._protocol.response is self:
            self._protocol.response = None

    def _pause(self) -> None:
        transport = self._protocol.transport
        if transport is not None and not transport.is_closing():
            self._is_paused = True
            transport.pause_reading()

    def _resume(self) -> None:
        self._is_paused = False
        transport = self._protocol.transport
        if transport is not None and not transport.is_closing():
            transport.resume_reading()


def _malformed(error: httptools.HttpParserError) -> HttpProcessingError:
    """What the parser does not understand, or one of the methods that it calls."""
    return HttpProcessingError(code=400, message=str(error.__context__ or error))


def _text(header: bytes) -> str:
    return header.decode("utf-8", "surrogateescape")


@lru_cache(maxsize=64)
def _find_charset(content_type: str) -> str | None:
    found = re.search(r";\s*charset\s*=\s*[\"']?([\w.:+-]+)", content_type, re.I)
    return found and found[1]
