"""What a caller is told while a model writes."""

from __future__ import annotations

import asyncio

from antiphon.api.mcp.turn_execution import ProgressReporter
from antiphon.core.events import RawReasoningDelta, TextDelta


async def test_the_last_word_is_how_much_was_written() -> None:
    told: list[tuple[float, str]] = []

    async def report(amount: float, words: str) -> None:
        told.append((amount, words))

    async with ProgressReporter(report, "m") as progress:
        await asyncio.sleep(0)
        progress.observe([RawReasoningDelta(0, "Hm.")])
        progress.observe([TextDelta(1, "One "), TextDelta(1, "two")])
    assert told == [(1, "m was asked"), (2, "m has written 7 characters")]


async def test_a_caller_that_is_gone_harms_nothing() -> None:
    async def report(amount: float, words: str) -> None:
        raise ConnectionError

    try:
        async with ProgressReporter(report, "m"):
            await asyncio.sleep(0)
            raise KeyError
    except KeyError:
        pass


async def test_no_progress_is_sent_without_a_token() -> None:
    async with ProgressReporter(None, "m") as progress:
        progress.observe([TextDelta(0, "One")])
