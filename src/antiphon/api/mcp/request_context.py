"""What a call's context tells of who calls: its tenant, its place, its folders."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from antiphon.api.common.authentication import tenant_of
from antiphon.api.common.body import Scope
from antiphon.api.common.rate_limits import place_of
from antiphon.api.mcp.caller import Report
from antiphon.api.mcp.cancellation import CallKey
from antiphon.api.mcp.streamable_http import session_of

#: Seconds for a client to say which folders it shares.
_PATIENCE: Final = 10.0


class Remote:
    """What is known of a call; of its HTTP request, if it came by one."""

    def __init__(self, context: ServerRequestContext[Any, Any]) -> None:
        self._context = context

    def tenant(self) -> str:
        """Whose call it is: the site has checked its key."""
        return tenant_of(self._scope())

    def place(self) -> AbstractContextManager[None]:
        """A place among the turns that its key may have at once."""
        return place_of(self._scope())

    def key(self) -> CallKey | None:
        """What its caller knows the call by; None: nothing that could tell it from others."""
        session, request_id = session_of(self._scope()), self._context.request_id
        if session is None or request_id is None:
            return None
        return CallKey(self.tenant(), session, request_id)

    def _scope(self) -> Scope:
        request = self._context.request
        assert request is not None, "a call by HTTP has its request"
        scope: Scope = request.scope
        return scope

    def report(self) -> Report | None:
        """How to tell its progress; None: nobody asked."""
        context = self._context
        if not context.meta or context.meta.get("progress_token") is None:
            return None

        async def report(progress: float, message: str) -> None:
            await context.session.report_progress(progress, message=message)

        return report


class RootsNeeded(Exception):
    """The client has to be asked for its folders, and the call made again."""


class Roots:
    """The folders that a local caller may name images in.

    ``given`` are those of the command line; ``answer`` is what the client said, where it
    was asked by ``RootsNeeded``.
    """

    def __init__(
        self,
        context: ServerRequestContext[Any, Any],
        given: Sequence[Path],
        answer: types.InputResponse | None,
    ) -> None:
        self._context = context
        self._given = given
        self._answer = answer

    async def folders(self) -> list[Path]:
        """Those of the command line first. May raise ``RootsNeeded``."""
        return [*self._given, *await self._shared()]

    async def _shared(self) -> list[Path]:
        session = self._context.session
        capabilities = session.client_capabilities
        if capabilities is None or capabilities.roots is None:
            return []
        if self._answer is not None:
            return _paths(self._answer) if isinstance(self._answer, types.ListRootsResult) else []
        if self._context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            # There a server may not ask on its own.
            raise RootsNeeded
        try:
            answer = await session.send_request(
                types.ListRootsRequest(), types.ListRootsResult, _PATIENCE
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
