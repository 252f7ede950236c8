"""Completion stream: a turn's events as a stream of chat completion chunks, from any of them on."""

from __future__ import annotations

import msgspec
from starlette.types import Scope, Send

from antiphon.api.http.asgi_responses import (
    KeepAlive,
    StreamHead,
    log,
    send_chunk,
    send_error,
    server_failure,
)
from antiphon.api.http.chat_completions_codec import (
    ChatCompletionChunkEncoder,
    encode_stream_error,
)
from antiphon.api.http.response_stream import skip_events
from antiphon.api.http.stream_events import DONE
from antiphon.api.http.stream_relay import StreamRelay
from antiphon.core.events import Created, Event
from antiphon.errors import AntiphonError, TurnTakenOverError
from antiphon.turn.replay import Replay
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.turn_reader import failure_of


class CompletionStreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader wants of a stream: the chunks behind that with the number ``after``.

    ``breaks_off``: whoever reads goes on with the process that takes the turn over
    (``TurnTakenOverError``).
    """

    after: int = -1
    include_usage: bool = False
    legacy_functions: bool = False
    breaks_off: bool = False


async def send_completion_stream(
    turn: RunningTurn | Replay,
    scope: Scope,
    send: Send,
    options: CompletionStreamOptions,
    head: StreamHead | None = None,
) -> None:
    """Write chunks as they come.

    The head waits for the model's first word, so that a turn which fails before it answers
    with the HTTP status that fits, as a client of this API expects; but not for longer than
    it takes until what lies in between may give the connection up. A failure after that is
    an event of the stream.
    """
    writer = _ChunkWriter(turn, scope, send, options, head or StreamHead(send))
    await writer.write()


class _ChunkWriter:
    """Writes one turn's chunks for one reader."""

    def __init__(
        self,
        turn: RunningTurn | Replay,
        scope: Scope,
        send: Send,
        options: CompletionStreamOptions,
        head: StreamHead,
    ) -> None:
        self._turn = turn
        self._send = send
        self._head = head
        self._encoder = ChatCompletionChunkEncoder(
            turn.initial_response,
            include_usage=options.include_usage,
            legacy_functions=options.legacy_functions,
        )
        self._relay = StreamRelay(scope, self._encoder.encode)
        #: How many chunks are still to be left out.
        self._skip = options.after + 1
        self._breaks_off = options.breaks_off
        if self._skip:
            # The first is that of the role, whatever made it: the turn's begin or a silence.
            self._encoder.encode_keep_alive()
            self._skip -= 1

    async def write(self) -> None:
        try:
            with KeepAlive(self._send, self._encoder.encode_keep_alive, self._head) as keep_alive:
                await self._write_chunks(keep_alive)
            error = self._error()
        except AntiphonError as lost:
            if self._breaks_off and isinstance(lost, TurnTakenOverError):
                raise
            error = lost
        except Exception:
            if not self._head.sent:
                raise
            log.exception("the stream of %s failed", self._turn.response_id)
            error = server_failure()
        if error is None:
            await send_chunk(self._send, DONE, last=True)
        elif self._head.sent:
            await send_chunk(self._send, encode_stream_error(error), last=True)
        else:
            await send_error(self._send, error)

    async def _write_chunks(self, keep_alive: KeepAlive) -> None:
        """The chunks of a turn; of one that fails those before its end."""
        #: What came before the first word.
        held: list[Event] = []
        has_begun = False
        async for batch in self._turn.events(relay=self._relay):
            events = batch
            if not has_begun:
                held += batch
                events = held
                if all(isinstance(event, Created) for event in held):
                    continue
            has_failed = self._error() is not None
            if has_failed:
                # The last event is the turn's end.
                events = events[:-1]
            if not has_begun:
                if not self._head.sent:
                    if all(isinstance(event, Created) for event in events):
                        # It failed before its first word.
                        return
                    await self._head.put()
                has_begun = True
            body = self._encoder.encode(events)
            if self._skip:
                body, self._skip = skip_events(body, self._skip)
            if body:
                await send_chunk(keep_alive.send, body)
            if has_failed:
                return
            if not self._skip:
                self._relay.open(keep_alive)

    def _error(self) -> AntiphonError | None:
        """Why the turn has failed, where it has: what is stored of that, or what was raised."""
        if isinstance(self._turn, Replay):
            return failure_of(self._turn.response)
        return self._turn.error
