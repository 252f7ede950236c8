"""Asks a model to sum up turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

import msgspec

from antiphon.core.context_policies import Summarize
from antiphon.core.items import Compaction, Message, text_of
from antiphon.core.turns import Header, Usage
from antiphon.errors import ContextLengthExceeded, ModelError, ModelTimeout
from antiphon.turn.context_builder import Viewer
from antiphon.turn.message_rendering import Segment, render
from antiphon.turn.protocols import Model
from antiphon.turn.trimming import shorten
from antiphon.turn.turn_accumulator import Machine


class Digest(msgspec.Struct, frozen=True):
    """A summary, and what it took to make."""

    item: Compaction
    usage: Usage | None


async def digest(  # noqa: PLR0913
    covered: Sequence[Segment],
    kept: Sequence[Segment],
    policy: Summarize,
    header: Header,
    model: Model,
    *,
    check: Callable[[], Awaitable[None]] | None = None,
    seconds: float | None = None,
) -> Digest:
    """Have the model sum up ``covered``, with ``kept`` staying in view after it.

    ``check`` comes before each call of the model: what it raises keeps the words from it.
    Raises what the model raises; ``ModelError`` where it breaks off, declines, or says
    nothing, ``ModelTimeout`` after so many ``seconds``.
    """
    try:
        async with asyncio.timeout(seconds):
            machine = await _ask(covered, policy.prompt, header, model, check)
    except TimeoutError as late:
        raise ModelTimeout(
            f"The summary took longer than {seconds:g} seconds.", code="turn_timeout"
        ) from late
    # A refusal sums up nothing.
    words = [text_of(one.content) for one in machine.output if isinstance(one, Message)]
    text = "".join(words).strip()
    if not text:
        raise ModelError("The model was asked for a summary and gave none.")
    item = Compaction(
        text,
        kept=sum(one.turns for one in kept if one.kept is None),
        replaced=sum(one.turns for one in covered),
    )
    return Digest(item, machine.usage)


async def _ask(
    covered: Sequence[Segment],
    prompt: str,
    header: Header,
    model: Model,
    check: Callable[[], Awaitable[None]] | None,
) -> Machine:
    plain = msgspec.structs.replace(
        header.options, tools=(), tool_choice="auto", text_format=None, max_output_tokens=None
    )
    header = msgspec.structs.replace(header, options=plain)
    viewer = Viewer(header, model, ())
    segments: Sequence[Segment] = [*covered, render([Message("user", prompt)])]
    while True:
        machine = Machine()
        try:
            if check is not None:
                await check()
            call = viewer.call(segments, header, stream=False)
            async with aclosing(model.generate(call)) as batches:
                async for batch in batches:
                    machine.feed(batch)
        except ContextLengthExceeded as overflow:
            # Better a summary of the newer part than none.
            shorter = shorten(segments, overflow.used, overflow.limit)
            if sum(one.size for one in shorter) >= sum(one.size for one in segments):
                raise
            segments = shorter
        else:
            if machine.finish is None:
                raise ModelError("The model's summary broke off before its end.")
            machine.close(whole=True)
            return machine
