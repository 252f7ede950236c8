"""Response stream: a turn's events as a stream of the Responses API, from any of them on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.types import Scope, Send

from antiphon.api.http.asgi_responses import (
    KeepAlive,
    StreamHead,
    keep_alive_comment,
    log,
    send_chunk,
    server_failure,
)
from antiphon.api.http.stream_events import DONE, EventEncoder
from antiphon.api.http.stream_relay import StreamRelay
from antiphon.errors import AntiphonError, TurnTakenOverError
from antiphon.turn.replay import Replay
from antiphon.turn.running_turns import RunningTurn

EVENT_END: Final = b"\n\n"


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader wants of a stream: the events behind that with the number ``after``.

    Where a stream is read again each event has its number as its id (``has_ids``), so that any
    client of event streams resumes by itself. ``needs_end``: the last event is sent in any case.
    ``breaks_off``: whoever reads goes on with the process that takes the turn over
    (``TurnTakenOverError``).
    """

    after: int = -1
    has_ids: bool = False
    include: Sequence[str] = ()
    needs_end: bool = False
    breaks_off: bool = False


async def send_stream(
    turn: RunningTurn | Replay,
    scope: Scope,
    send: Send,
    options: StreamOptions,
    head: StreamHead | None = None,
) -> None:
    """Send the events of a turn that this process runs, or that is over."""
    encoder = EventEncoder(turn.initial_response, options.include)
    head = head or StreamHead(send)
    try:
        relay = StreamRelay(scope, encoder.encode)
        await _write(turn, send, encoder, head, options, relay)
    except AntiphonError as error:
        goes_on = options.breaks_off and isinstance(error, TurnTakenOverError)
        if goes_on or not head.sent:
            raise
        await send_chunk(send, encoder.encode_failure(error))
    except Exception:
        if not head.sent:
            raise
        log.exception("the stream of %s failed", turn.response_id)
        await send_chunk(send, encoder.encode_error(server_failure()))
    await send_chunk(send, DONE, last=True)


async def _write(  # noqa: PLR0913, PLR0917
    turn: RunningTurn | Replay,
    send: Send,
    encoder: EventEncoder,
    head: StreamHead,
    options: StreamOptions,
    relay: StreamRelay,
) -> None:
    skip = options.after + 1
    number = skip if options.has_ids else None
    can_relay = skip == 0 and number is None
    last = b""
    keep_alive = None
    try:
        async for batch in turn.events(relay=relay):
            body = encoder.encode(batch)
            if skip > 0:
                last = body or last
                body, skip = skip_events(body, skip)
            if not head.sent:
                # Not before there is something to say: a turn that cannot be kept at
                # all still gets an honest HTTP status.
                await head.put()
            if keep_alive is None:
                keep_alive = KeepAlive(send, keep_alive_comment)
                keep_alive.start()
            if number is not None:
                body, number = _with_ids(body, number)
            if body:
                last = b""
                await send_chunk(keep_alive.send, body)
            if can_relay:
                relay.open(keep_alive)
            # A stream that waits for long holds nothing of what was sent.
            body = b""
    finally:
        if keep_alive is not None:
            keep_alive.stop()
    if options.needs_end and last:
        # Fewer events than the reader has: a turn that was interrupted keeps what was finished.
        end = last.split(EVENT_END)[-2] + EVENT_END
        await send_chunk(send, end if number is None else _with_ids(end, number)[0])


def skip_events(body: bytes, skip: int) -> tuple[bytes, int]:
    """A piece of a stream without its first events, and how many are still to be left out."""
    events = body.split(EVENT_END)[:-1]
    return b"".join(event + EVENT_END for event in events[skip:]), max(0, skip - len(events))


def _with_ids(body: bytes, number: int) -> tuple[bytes, int]:
    """Events with their ids, which count from ``number``, and the number of the next one."""
    events = body.split(EVENT_END)[:-1]
    shown = [b"id: %d\n%b\n\n" % (at, event) for at, event in enumerate(events, number)]
    return b"".join(shown), number + len(events)
