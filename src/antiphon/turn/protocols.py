"""Model and tool protocols: what a turn needs besides a store (``turn.store_protocols``)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from antiphon.core.deltas import Delta
from antiphon.core.items import FunctionCall, McpListTools
from antiphon.core.mcp_servers import ApprovalPolicy, McpServerRequest
from antiphon.core.turns import (
    FunctionTool,
    Options,
)
from antiphon.turn.message_rendering import join_pieces


class Token(msgspec.Struct, frozen=True):
    """A piece of a text. A character of several bytes may be cut into several."""

    id: int
    data: bytes


class ModelInfo(msgspec.Struct, frozen=True):
    """What a model can do. ``context_window`` is in tokens, None: unknown.

    ``runs_hosted_tools``: its upstream has tools of its own, such as ``web_search``.

    ``few_shot`` holds few-shot example turns as chat messages' JSON, comma-separated without
    brackets: shown to the model before the history, never stored.
    """

    name: str
    owned_by: str = "antiphon"
    context_window: int | None = None
    images: bool = True
    runs_hosted_tools: bool = False
    few_shot: bytes = b""


class ModelCall(msgspec.Struct, frozen=True):
    """One question to a model.

    ``model`` is the name that the user asked for. With ``stream`` False the answer may come in
    one batch.

    ``pieces`` are messages in the chat completions dialect, comma-separated without brackets, as
    the turns before said them: the same bytes in call after call, so that what is made of them can
    be remembered, and a call that is being answered holds no copy of a long history.

    ``gather_seconds`` is for a reader to whom each batch is dear: behind one with words, those of
    so many seconds may come in one.
    """

    model: str
    pieces: tuple[bytes, ...]
    options: Options
    stream: bool
    gather_seconds: float = 0.0

    @property
    def messages(self) -> bytes:
        """All of them as one JSON array, made anew each time."""
        return join_pieces(self.pieces)


class Model(Protocol):
    """Continues a context. Stateless; any number of calls may run at once.

    ``generate`` raises ``ModelError``, ``InvalidRequestError`` or ``ModelNotFoundError``, and
    closing or cancelling its iterator stops the work behind it at once.
    """

    @property
    def info(self) -> ModelInfo: ...

    def generate(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]: ...

    async def count_tokens(self, call: ModelCall) -> int | None:
        """How many tokens the call's context has, counted by the model's own tokenizer.

        None: the model has no tokenizer that can be asked.
        """
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Tokenizer(Protocol):
    """A model that can say which tokens a text has."""

    async def tokenize(self, model: str, text: str) -> Sequence[Token] | None:
        """The tokens of a text by itself; ``model`` is the name that the user asked for.

        None: the model does not show its tokens. Raises what ``Model.generate`` may.
        """
        ...


class ModelProvider(Protocol):
    """Finds models by name."""

    def get(self, name: str | None) -> tuple[str, Model]:
        """A model and the name it is called by; None is the default one.

        Raises ``ModelNotFoundError``.
        """
        ...

    def items(self) -> list[tuple[str, Model]]:
        """The configured models, the default first."""
        ...


class ToolErrorOutput(str):
    """A tool's output that says what went wrong: whoever shows it can tell it from others."""

    __slots__ = ()


class ToolExecutor(Protocol):
    """Runs the tool calls of a turn; any number at once."""

    async def call_tool(self, call: FunctionCall, *, approved: bool = False) -> str | None:
        """The output for the model to read, whatever happened: never raises, may be cancelled.

        None: the call is for somebody else to answer (a person who has to agree, a
        client), and is left open. ``approved``: the person has agreed. May be a
        ``ToolErrorOutput``.
        """
        ...


class McpToolset(ToolExecutor, Protocol):
    """The tools of MCP servers, for one turn.

    ``functions`` are what the model may call, ``tool_listings`` the items that list each server's
    tools, and ``approvals`` the approval policy of each server, by its label.
    """

    functions: tuple[FunctionTool, ...]
    tool_listings: tuple[McpListTools, ...]
    approvals: dict[str, ApprovalPolicy]

    def server_of(self, name: str) -> str | None:
        """The label of the server that a call by this name goes to; None: none of them."""
        ...

    async def aclose(self) -> None:
        """The turn is over. Never raises."""
        ...


class McpToolProvider(Protocol):
    """The way to MCP servers."""

    async def open_toolset(
        self, requests: Sequence[McpServerRequest], *, reserved_names: Collection[str] = ()
    ) -> McpToolset:
        """The tools that a turn asks for; ``reserved_names`` are those of its other tools.

        Raises ``InvalidRequestError`` and ``ToolServerUnavailableError``.
        """
        ...
