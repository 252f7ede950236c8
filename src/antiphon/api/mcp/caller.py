"""Who calls a tool, as much as tools have to know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeAlias

import msgspec

from antiphon.core.turns import DEFAULT_TENANT
from antiphon.turn.running_turns import RunningTurn

#: Tells a caller how far things are: a number that only grows, and a few words.
ProgressFn: TypeAlias = Callable[[float, str], Awaitable[None]]
#: The folders that a caller shares.
Folders: TypeAlias = Callable[[], Awaitable[Sequence[Path]]]


def _untracked(turn: RunningTurn) -> AbstractContextManager[None]:
    return nullcontext()


class McpCaller(msgspec.Struct, frozen=True):
    """``report`` None: nobody asked to be told. ``folders`` None: it is on another machine,
    so no path of its means anything here. ``place`` is entered to start a turn, and may
    raise ``RateLimitError``; ``waiting`` while a turn is waited for.
    """

    tenant: str = DEFAULT_TENANT
    report_progress: ProgressFn | None = None
    folders: Folders | None = None
    concurrency_slot: Callable[[], AbstractContextManager[None]] = nullcontext
    track_turn: Callable[[RunningTurn], AbstractContextManager[None]] = _untracked
