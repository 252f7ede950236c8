"""MCP request context: the caller of a tool, with its tenant, rate limit, progress and roots."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mcp_types as types
import msgspec
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.types import Scope

from antiphon.api.common.authentication import key_id_of, tenant_of
from antiphon.api.common.rate_limits import concurrency_slot
from antiphon.api.mcp.streamable_http import CallKey, session_id
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.turn.running_turns import RunningTurn

#: Seconds for a client to say which folders it shares.
_ROOTS_TIMEOUT: Final = 10.0


#: Tells a caller how far things are: a number that only grows, and a few words.
ProgressFn: TypeAlias = Callable[[float, str], Awaitable[None]]
#: The folders that a caller shares.
Folders: TypeAlias = Callable[[], Awaitable[Sequence[Path]]]


def _untracked(turn: RunningTurn) -> AbstractContextManager[None]:
    return nullcontext()


class McpCaller(msgspec.Struct, frozen=True):
    """The caller of a tool.

    ``report_progress`` None: no progress is requested. ``folders`` None: the caller is on another
    machine, so its paths mean nothing here. ``concurrency_slot`` is entered to start a turn, and
    may raise ``RateLimitError``; ``track_turn`` while a turn is awaited.
    """

    tenant: str = DEFAULT_TENANT
    key_id: str | None = None
    report_progress: ProgressFn | None = None
    folders: Folders | None = None
    concurrency_slot: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    track_turn: Callable[[RunningTurn], AbstractContextManager[None]] = _untracked


class RequestInfo:
    """What is known of a call; of its HTTP request, if it came by one."""

    def __init__(self, context: ServerRequestContext[Any, Any]) -> None:
        self._context = context

    def tenant(self) -> str:
        """Whose call it is: the site has checked its key."""
        return tenant_of(self._scope())

    def key_id(self) -> str | None:
        """The id of its key."""
        return key_id_of(self._scope())

    def concurrency_slot(self) -> AbstractAsyncContextManager[None]:
        """A place among the turns that its key may have at once."""
        return concurrency_slot(self._scope())

    def call_key(self) -> CallKey | None:
        """What its caller knows the call by; None: nothing that could tell it from others."""
        session, request_id = session_id(self._scope()), self._context.request_id
        if session is None or request_id is None:
            return None
        return CallKey(self.tenant(), session, request_id)

    def _scope(self) -> Scope:
        request = self._context.request
        assert request is not None, "a call by HTTP has its request"
        scope: Scope = request.scope
        return scope

    def progress_fn(self) -> ProgressFn | None:
        """How to tell its progress; None: nobody asked."""
        context = self._context
        if not context.meta or context.meta.get("progress_token") is None:
            return None

        async def report(progress: float, message: str) -> None:
            await context.session.report_progress(progress, message=message)

        return report


class RootsRequired(Exception):
    """The client has to be asked for its folders, and the call made again."""


class Roots:
    """The folders that a local caller may name images in.

    ``command_line_roots`` are those of the command line; ``client_response`` is the client's
    answer to ``RootsRequired``, if there was one.
    """

    def __init__(
        self,
        context: ServerRequestContext[Any, Any],
        command_line_roots: Sequence[Path],
        client_response: types.InputResponse | None,
    ) -> None:
        self._context = context
        self._command_line_roots = command_line_roots
        self._client_response = client_response

    async def folders(self) -> list[Path]:
        """Those of the command line first. May raise ``RootsRequired``."""
        return [*self._command_line_roots, *await self._client_folders()]

    async def _client_folders(self) -> list[Path]:
        session = self._context.session
        capabilities = session.client_capabilities
        if capabilities is None or capabilities.roots is None:
            return []
        if self._client_response is not None:
            return (
                _paths(self._client_response)
                if isinstance(self._client_response, types.ListRootsResult)
                else []
            )
        if self._context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            # There a server may not ask on its own.
            raise RootsRequired
        try:
            answer = await session.send_request(
                types.ListRootsRequest(), types.ListRootsResult, _ROOTS_TIMEOUT
            )
        except MCPError:
            return []
        return _paths(answer)


def _paths(answer: types.ListRootsResult) -> list[Path]:
    found = []
    for root in answer.roots:
        parts = urlsplit(str(root.uri))
        if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
            found.append(Path(url2pathname(parts.path)))
    return found
