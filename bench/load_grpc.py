"""The load generator of gRPC streams: the same scripts, a connection each, no message classes.

A reply is the messages of one stream, each behind its length in four bytes, so that they are
decoded when the clock has stopped. gRPC's own asyncio client takes several times the work of
``bench.load`` for each message: read a rate beside the server's CPU time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import grpc

from bench.load import BenchError, Script, Tally
from bench.processes import Server

STREAM: Final = "/xai_api.Chat/GetCompletionChunk"
#: Seconds that a run may take beyond its deadline before it counts as hung.
_PATIENCE = 120.0
_LENGTH = 4
# Otherwise all channels to one address share a connection.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))


async def over_grpc(
    server: Server, scripts: Sequence[Script], seconds: float | None, mark: bytes | None
) -> Tally:
    """Act out all scripts at once, a channel each; like ``bench.load.drive``.

    Raises ``BenchError`` at the first stream that fails.
    """
    tally = Tally()
    address = f"127.0.0.1:{server.grpc_port}"
    channels = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in scripts]
    try:
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        begun = time.perf_counter()
        deadline = begun + seconds if seconds is not None else float("inf")
        async with asyncio.timeout((seconds or 0.0) + _PATIENCE):
            await asyncio.gather(
                *(
                    _act(channel.unary_stream(STREAM), script, tally, deadline, mark)
                    for channel, script in zip(channels, scripts, strict=True)
                )
            )
        tally.seconds = time.perf_counter() - begun
    except grpc.aio.AioRpcError as error:
        raise BenchError(f"{error.code().name}: {error.details()}") from error
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))
    return tally


async def _act(
    method: Any, script: Script, tally: Tally, deadline: float, mark: bytes | None
) -> None:
    request = next(script)
    while True:
        sent = time.perf_counter()
        waiting = mark is not None
        pieces: list[bytes] = []
        async for message in method(request):
            pieces.append(len(message).to_bytes(_LENGTH, "big"))
            pieces.append(message)
            if waiting and mark is not None and mark in message:
                waiting = False
                tally.firsts.append(time.perf_counter() - sent)
        now = time.perf_counter()
        tally.latencies.append(now - sent)
        try:
            request = script.send(b"".join(pieces))
        except StopIteration:
            return
        if now >= deadline:
            return


def messages_in(reply: bytes) -> Iterator[bytes]:
    """The messages of a reply."""
    place = 0
    while place < len(reply):
        begins = place + _LENGTH
        place = begins + int.from_bytes(reply[place:begins], "big")
        yield reply[begins:place]
