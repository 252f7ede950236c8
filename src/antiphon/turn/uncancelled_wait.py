"""Uncancelled wait: waits for a write to its end, whatever cancels the task meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any


async def wait_uncancelled(write: asyncio.Future[Any]) -> None:
    """Wait for the disk to the end. Raises what the write raises.

    A loop that ends cancels all that runs in it, and then waits for it: whoever reads the turn
    would wait for its end for ever.
    """
    while not write.done():
        # It is cancelled in place of the write.
        waiter: asyncio.Future[None] = write.get_loop().create_future()
        write.add_done_callback(partial(_wake, waiter))
        with contextlib.suppress(asyncio.CancelledError):
            await waiter
    write.result()


def _wake(waiter: asyncio.Future[None], _: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_result(None)
