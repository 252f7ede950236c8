"""What a turn needs from outside: a store to keep it and a model to continue it.

Tokens: the pieces that a model cuts a text into.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from antiphon.core.deltas import Delta
from antiphon.core.images import Blob
from antiphon.core.items import FunctionCall, McpListTools
from antiphon.core.mcp_servers import ApprovalPolicy, McpServerRequest
from antiphon.core.turns import (
    ConversationRecord,
    End,
    FunctionTool,
    Header,
    IdempotencyReservation,
    Options,
)


class Token(msgspec.Struct, frozen=True):
    """A piece of a text. A character of several bytes may be cut into several."""

    id: int
    data: bytes


class Head(msgspec.Struct, frozen=True):
    """Where a response lies in the store.

    ``thread`` and ``seq`` are its place, ``tree`` the thread its whole family of
    branches began with, and ``epoch`` counts what was erased from that family: a
    cached history is good for as long as the epoch stays.
    ``running`` is True while the turn has no end and its process is alive. ``stamp`` is the
    time that its age counts from: that of the latest turn in its chain.
    """

    response_id: str
    tenant: str
    thread: int
    seq: int
    tree: int
    epoch: int
    is_running: bool
    timestamp: float = 0.0


class NewTurn(msgspec.Struct, frozen=True):
    """A turn about to run: ``input`` holds encoded items (``core.items``).

    ``blobs`` are the images that those items refer to, by hash (``core.images``). A store
    keeps each once for a tenant, however many turns refer to it.
    ``parent`` is the response that it continues, ``sources`` are others whose words it holds,
    each as it was before its words were read: ``begin`` fails with ``HistoryChangedError`` where
    one is gone, or something was erased from its family since.
    ``is_awaited`` False: nobody waits for the beginning alone, so that a store may keep it a
    few milliseconds later, in one go with the end of a quick turn.
    ``conversation`` is the one it goes on, as its maker saw it: ``begin`` moves it on, and
    fails with ``ConversationLockedError`` where it has moved in the meantime. ``founds``: it is
    made with the turn. ``claim``: the receipt is settled with the turn, by the id of what
    it makes, the conversation where it founds one and else the turn (``turn.store_protocols``);
    ``ConflictError`` where it cannot be.
    """

    response_id: str
    tenant: str
    created_at: float
    header: Header
    input: Sequence[bytes]
    parent: Head | None = None
    sources: Sequence[Head] = ()
    is_awaited: bool = True
    blobs: Sequence[Blob] = ()
    conversation: ConversationRecord | None = None
    creates_conversation: bool = False
    reservation: IdempotencyReservation | None = None

    @property
    def result_id(self) -> str:
        """The id of what a request that led to this turn has made."""
        if self.creates_conversation and self.conversation is not None:
            return self.conversation.id
        return self.response_id


class StoredTurn(msgspec.Struct, frozen=True):
    """A turn as it lies in the store. ``end`` None: it is still running.

    ``blobs`` holds the bytes of the images that the turn refers to, by hash. ``expires_at``
    is None where it is kept for ever, and in a ``chain``, which nobody asks for it.
    """

    response_id: str
    created_at: float
    header: Header
    input: tuple[bytes, ...]
    output: tuple[bytes, ...]
    end: End | None
    previous_response_id: str | None = None
    blobs: Mapping[str, bytes] = {}
    expires_at: float | None = None


class Window(msgspec.Struct, frozen=True):
    """A part of a chain: at most ``limit`` turns, in one direction.

    It begins with the response ``at``, None: with the chain's end, or its beginning where
    ``newest_first`` is False.
    """

    limit: int
    at: str | None = None
    newest_first: bool = True


class RecentThread(msgspec.Struct, frozen=True):
    """One line of a list of conversations: the newest turn of a thread.

    ``opening`` is the encoded first input item of the whole chain, ``turns`` the
    chain's length (turns since erased included).
    """

    response_id: str
    created_at: float
    model: str
    turns: int
    first_item: bytes | None


class Store(Protocol):
    """Keeps turns. Appends only; what it has confirmed survives a power cut.

    ``begin`` and ``write`` take effect in the order they are called, and return at
    once with a future that is done when the data is on disk, or fails with
    ``StoreError``: waiting is the caller's choice. A response of another tenant is
    the same as none, and so is one that has expired (``core.retention``): it and all its
    descendants are too old. Every other failure is a ``StoreError`` too.
    """

    def begin(self, turn: NewTurn) -> asyncio.Future[None]:
        """Keep a turn's request and input. Continues the parent's thread, or branches off it.

        Fails with ``HistoryChangedError`` where something was erased from what the turn was made
        of (``NewTurn.parent``), and on a conversation with ``ConversationLockedError`` or
        ``NotFoundError``, too: nothing is kept of it then.
        """
        ...

    def write(
        self, response_id: str, items: Sequence[bytes], end: End | None = None
    ) -> asyncio.Future[None]:
        """Append output items to a turn that this store began, and end it if ``end`` is given.

        The first end counts: whatever comes after it is dropped.
        """
        ...

    async def head(self, tenant: str, response_id: str) -> Head | None:
        """Where a response lies: one indexed read, at any length of the chain."""
        ...

    async def turn(self, tenant: str, response_id: str) -> StoredTurn | None:
        """One turn, whole."""
        ...

    async def chain(self, head: Head) -> list[StoredTurn]:
        """A response and its ancestors, oldest first, without those that were deleted."""
        ...

    async def window(self, head: Head, window: Window) -> list[StoredTurn]:
        """A part of what ``chain`` gives, read without the rest.

        Nothing where ``Window.at`` is no turn of the chain, or was deleted.
        """
        ...

    async def recent_threads(self, tenant: str, limit: int) -> list[RecentThread]:
        """The newest turn of each of the ``limit`` latest threads, newest first."""
        ...

    async def delete(self, tenant: str, response_id: str, *, cascade: bool = False) -> bool:
        """Erase a turn (with ``cascade``, its descendants too). False: there was none."""
        ...

    async def close(self) -> None:
        """Write what was promised, then let go of everything. Safe to call twice."""
        ...


class ModelInfo(msgspec.Struct, frozen=True):
    """What a model can do. ``context_window`` is in tokens, None: unknown.

    ``primer`` holds example turns as chat messages' JSON, comma-separated without
    brackets: shown to the model before the history, never stored.
    """

    name: str
    owned_by: str = "antiphon"
    context_window: int | None = None
    images: bool = True
    few_shot: bytes = b""


class ModelCall(msgspec.Struct, frozen=True):
    """One question to a model.

    ``model`` is the name that the user asked for, ``messages`` a JSON array in the
    chat completions dialect. With ``stream`` False the answer may come in one batch.
    """

    model: str
    messages: bytes
    options: Options
    stream: bool


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
        client), and is left open. ``approved``: the person has agreed. May be a ``ToolErrorOutput``.
        """
        ...


class McpToolset(ToolExecutor, Protocol):
    """The tools of MCP servers, for one turn.

    ``functions`` is what the model is told of, ``listed`` what is shown of each server, and
    ``approvals`` which tools of a server need a person's word, by its label.
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
        """The tools that a turn asks for; ``taken`` are names that it has for others.

        Raises ``InvalidRequestError`` and ``ToolServerUnavailableError``.
        """
        ...
