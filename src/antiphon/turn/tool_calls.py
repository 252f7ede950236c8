"""Runs the tool calls of one answer, side by side or one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

from antiphon.core.items import FunctionCall
from antiphon.turn.protocols import ToolSource

#: Told of a call and its output the moment it is there: no stop can come in between.
Take: TypeAlias = Callable[[FunctionCall, str], None]


async def run_calls(
    tools: ToolSource,
    calls: Sequence[FunctionCall],
    take: Take,
    *,
    parallel: bool,
    approved: bool = False,
) -> bool:
    """Run calls and hand on their outputs as they come. False: some are left open.

    Cancelling stops the calls that still run, and waits until they have. A tool source
    that raises, which it must not, stops the others too; an ``ExceptionGroup`` says so.
    """
    width = max(1, len(calls)) if parallel else 1
    whole = True

    async def run(call: FunctionCall) -> None:
        nonlocal whole
        output = await tools.answer(call, approved=approved)
        if output is None:
            whole = False
        else:
            take(call, output)

    for first in range(0, len(calls), width):
        async with asyncio.TaskGroup() as group:
            for call in calls[first : first + width]:
                group.create_task(run(call))
    return whole
