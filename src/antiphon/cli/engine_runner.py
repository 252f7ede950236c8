"""Engine runner: opens the engine for one command and closes it, warms the default model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from antiphon.cli import terminal_output
from antiphon.cli.interrupt import InterruptHandler, run_interruptible
from antiphon.errors import AntiphonError, ConfigError
from antiphon.settings import Settings, load_settings

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine

T = TypeVar("T")
#: Options of a command line that are settings, by the setting's name; None: not given.
Flags: TypeAlias = Mapping[str, str | None]


def run_with_engine(
    flags: Flags, work: Callable[[Engine], Awaitable[T]], *, creates_store: bool = False
) -> T:
    """Open the engine on the store that ``flags`` name, await ``work``, close it.

    See ``load_store_settings``.
    """
    return run_with_settings(load_store_settings(flags, creates_store=creates_store), work)


def load_store_settings(flags: Flags, *, creates_store: bool = False) -> Settings:
    """The settings of a command that only uses a store: no model is called, and no key needed.

    Raises ``ConfigError`` where the command line names a file that is not there and the command
    does not create one.
    """
    settings = load_settings(flags, resolve_keys=False)
    if flags.get("store") is not None and not creates_store:
        require_store_file(settings.store)
    return settings


def require_store_file(name: str) -> None:
    """Raise ``ConfigError`` where a store is a file that is not there: its name is mistyped."""
    scheme, _, path = name.partition(":")
    if scheme == "sqlite" and not Path(path).exists():
        raise ConfigError(f"There is no store {path}: `antiphon chat` or `serve` creates one.")


def run_with_settings(settings: Settings, work: Callable[[Engine], Awaitable[T]]) -> T:
    """Open the engine with ``settings``, await ``work``, close it."""
    from antiphon.bootstrap import open_engine  # loaded on first use

    async def run(_: InterruptHandler) -> T:
        async with open_engine(settings) as engine:
            return await work(engine)

    return run_interruptible(run)


async def warm_default_model(engine: Engine) -> None:
    """Load the default model ahead of the first turn; a failure is printed, not raised."""
    if engine.settings.model is None:
        return
    try:
        await engine.warm()
    except AntiphonError as error:
        # Each turn that needs the model reports it too.
        terminal_output.print_error(error.message)
