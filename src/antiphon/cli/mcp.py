"""``antiphon mcp``: serves MCP over stdio, and shuts down in order.

Nothing else is printed on standard output: it is the protocol's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.cli import terminal_output
from antiphon.cli.engine_runner import Flags, warm_default_model
from antiphon.cli.options import ApiKeyEnv, BaseUrl, Config, Model, Store
from antiphon.errors import ConfigError
from antiphon.settings import Settings, load_settings

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine


def mcp(
    root: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="A folder that images may be read from; may be given more than once. Folders"
            " that the client shares may be, too.",
        ),
    ] = None,
    model: Model = None,
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Serve the Model Context Protocol on standard input and output.

    For desktop applications and editors, which start it themselves. `antiphon serve` has
    the same at /mcp, over HTTP.
    """
    flags = {
        "model": model,
        "base_url": base_url,
        "api_key_env": api_key_env,
        "store": store,
        "config": config,
    }
    serve_stdio(flags, root or ())


def serve_stdio(flags: Flags, roots: Sequence[Path]) -> None:
    """Serve until standard input ends, or SIGINT or SIGTERM comes. Raises ``ConfigError``."""
    from antiphon.logging_setup import log_to_stderr  # loaded on first use

    settings = load_settings(flags)
    folders = [_resolve_folder(root) for root in roots]
    log_to_stderr(settings.log_level, settings.log_format)
    if sys.platform == "win32":
        asyncio.run(_run_engine(settings, folders))
    else:
        import uvloop  # loaded on first use

        uvloop.run(_run_engine(settings, folders))


async def _run_engine(settings: Settings, roots: Sequence[Path]) -> None:
    from antiphon.bootstrap import open_engine  # loaded on first use

    stop_signal = _stop_event()
    async with open_engine(settings) as engine:
        has_stdin_ended = await _serve(engine, roots, stop_signal)
    if not has_stdin_ended:
        # A thread waits for a line that may never come, nothing can wake it, and the
        # interpreter would wait for the thread. Everything is stored by now.
        sys.stderr.flush()
        os._exit(0)


async def _serve(engine: Engine, roots: Sequence[Path], stop_signal: asyncio.Event) -> bool:
    """Whether standard input ended; False: a signal came first."""
    from antiphon.bootstrap import mcp_app  # loaded on first use

    if sys.stdin.isatty():
        terminal_output.print_note(
            "antiphon speaks MCP here, to the program that starts it; Ctrl-C ends it"
        )
    serving = asyncio.create_task(mcp_app(engine, roots).serve_stdio())
    stopping = asyncio.create_task(stop_signal.wait())
    # A local default model loads before the client's first call, and expired turns are erased.
    work = (warm_default_model(engine), engine.run_retention_sweep(), engine.keep_choosing())
    background = [stopping, *map(asyncio.create_task, work)]
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        return serving.done()
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)


def _stop_event() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    if sys.platform != "win32":
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, event.set)
    return event


def _resolve_folder(root: Path) -> Path:
    try:
        return root.expanduser().resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"--root {root}: there is no such folder") from error
