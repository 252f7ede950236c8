"""Speaks MCP on standard input and output, and stops in good order.

Nothing is printed on standard output here: it is the protocol's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from antiphon.bootstrap import Engine, mcp_app, open_engine
from antiphon.cli import terminal_output
from antiphon.errors import AntiphonError, ConfigError
from antiphon.logging_setup import log_to_stderr
from antiphon.settings import Settings, load_settings

if sys.platform != "win32":
    import uvloop


def serve_stdio(flags: Mapping[str, str | None], roots: Sequence[Path]) -> None:
    """Serve until standard input ends, or SIGINT or SIGTERM comes. Raises ``ConfigError``."""
    settings = load_settings(flags)
    folders = [_resolve_folder(root) for root in roots]
    log_to_stderr(settings.log_level, settings.log_format)
    run = asyncio.run if sys.platform == "win32" else uvloop.run
    run(_run_engine(settings, folders))


async def _run_engine(settings: Settings, roots: Sequence[Path]) -> None:
    stopped = _stop_event()
    async with open_engine(settings) as engine:
        ended = await _serve(engine, roots, stopped)
    if not ended:
        # A thread waits for a line that may never come, nothing can wake it, and the
        # interpreter would wait for the thread. All that had to be kept is kept.
        sys.stderr.flush()
        os._exit(0)


async def _serve(engine: Engine, roots: Sequence[Path], stopped: asyncio.Event) -> bool:
    """Whether standard input ended; False: a signal came first."""
    if sys.stdin.isatty():
        terminal_output.print_note(
            "antiphon speaks MCP here, to the program that starts it; Ctrl-C ends it"
        )
    serving = asyncio.create_task(mcp_app(engine, roots).serve_stdio())
    stopping = asyncio.create_task(stopped.wait())
    # A local default model loads while the client is still on its way; and what has expired
    # is erased meanwhile.
    works = (_warm(engine), engine.run_retention_sweep(), engine.keep_choosing())
    beside = [stopping, *(asyncio.create_task(work) for work in works)]
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        return serving.done()
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


def _stop_event() -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    if sys.platform != "win32":
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
    return stopped


async def _warm(engine: Engine) -> None:
    if engine.settings.model is None:
        return
    try:
        await engine.warm()
    except AntiphonError as error:
        # Each turn that needs the model says so too.
        terminal_output.print_error(error.message)


def _resolve_folder(root: Path) -> Path:
    try:
        return root.expanduser().resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"--root {root}: there is no such folder") from error
