"""antiphon: durable memory for chat models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.chat.blocking import Conversation
    from antiphon.chat.conversation import AsyncConversation
    from antiphon.chat.options import ChatOptions, SendOptions
    from antiphon.chat.reply import ConversationUsage, Reply, TurnUsage
    from antiphon.chat.stream import AsyncStream, Stream
    from antiphon.core import events
    from antiphon.core.context_policies import Summarize, TokenBudget, Window
    from antiphon.core.items import (
        Compaction,
        ErasedItem,
        ForeignItem,
        FunctionCall,
        FunctionCallOutput,
        InputImage,
        InputText,
        Item,
        McpApproval,
        McpListTools,
        Message,
        OutputText,
        Reasoning,
        Refusal,
    )
    from antiphon.core.turns import Usage
    from antiphon.errors import (
        AntiphonError,
        ConfigError,
        ConflictError,
        ContextLengthExceededError,
        ConversationLockedError,
        HistoryChangedError,
        ImageInputUnsupportedError,
        InvalidImageError,
        InvalidOutputError,
        InvalidRequestError,
        ModelError,
        ModelNotFoundError,
        ModelTimeoutError,
        ModelUnavailableError,
        NotFoundError,
        ResponseInProgressError,
        StoreError,
        TurnInterruptedError,
        UpstreamRateLimitError,
    )
    from antiphon.settings import Settings, load_settings
    from antiphon.tools.function_tool import Tool, tool
    from antiphon.tools.tool_context import ToolContext
    from antiphon.turn.chat_protocols import ChatRecord
    from antiphon.turn.search_protocols import SearchHit

__version__ = "0.1.0"

#: Where public names are. They are loaded on first use: the command line needs few of them.
_NAMES_BY_MODULE = {
    "antiphon.chat.blocking": ("Conversation",),
    "antiphon.chat.conversation": ("AsyncConversation",),
    "antiphon.chat.options": (
        "ChatOptions",
        "SendOptions",
    ),
    "antiphon.chat.reply": (
        "ConversationUsage",
        "Reply",
        "TurnUsage",
    ),
    "antiphon.chat.stream": (
        "AsyncStream",
        "Stream",
    ),
    "antiphon.core.context_policies": (
        "Summarize",
        "TokenBudget",
        "Window",
    ),
    "antiphon.core.items": (
        "Compaction",
        "ErasedItem",
        "ForeignItem",
        "FunctionCall",
        "FunctionCallOutput",
        "InputImage",
        "InputText",
        "Item",
        "McpApproval",
        "McpListTools",
        "Message",
        "OutputText",
        "Reasoning",
        "Refusal",
    ),
    "antiphon.core.turns": ("Usage",),
    "antiphon.errors": (
        "AntiphonError",
        "ConfigError",
        "ConflictError",
        "ContextLengthExceededError",
        "ConversationLockedError",
        "HistoryChangedError",
        "ImageInputUnsupportedError",
        "InvalidImageError",
        "InvalidOutputError",
        "InvalidRequestError",
        "ModelError",
        "ModelNotFoundError",
        "ModelTimeoutError",
        "ModelUnavailableError",
        "NotFoundError",
        "ResponseInProgressError",
        "StoreError",
        "TurnInterruptedError",
        "UpstreamRateLimitError",
    ),
    "antiphon.settings": (
        "Settings",
        "load_settings",
    ),
    "antiphon.tools.function_tool": (
        "Tool",
        "tool",
    ),
    "antiphon.tools.tool_context": ("ToolContext",),
    "antiphon.turn.chat_protocols": ("ChatRecord",),
    "antiphon.turn.search_protocols": ("SearchHit",),
}
_MODULES = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

__all__ = [
    "AntiphonError",
    "AsyncConversation",
    "AsyncStream",
    "ChatOptions",
    "ChatRecord",
    "Compaction",
    "ConfigError",
    "ConflictError",
    "ContextLengthExceededError",
    "Conversation",
    "ConversationLockedError",
    "ConversationUsage",
    "ErasedItem",
    "ForeignItem",
    "FunctionCall",
    "FunctionCallOutput",
    "HistoryChangedError",
    "ImageInputUnsupportedError",
    "InputImage",
    "InputText",
    "InvalidImageError",
    "InvalidOutputError",
    "InvalidRequestError",
    "Item",
    "McpApproval",
    "McpListTools",
    "Message",
    "ModelError",
    "ModelNotFoundError",
    "ModelTimeoutError",
    "ModelUnavailableError",
    "NotFoundError",
    "OutputText",
    "Reasoning",
    "Refusal",
    "Reply",
    "ResponseInProgressError",
    "SearchHit",
    "SendOptions",
    "Settings",
    "StoreError",
    "Stream",
    "Summarize",
    "TokenBudget",
    "Tool",
    "ToolContext",
    "TurnInterruptedError",
    "TurnUsage",
    "UpstreamRateLimitError",
    "Usage",
    "Window",
    "events",
    "load_settings",
    "tool",
]


def __getattr__(name: str) -> Any:
    if name == "events":
        return import_module("antiphon.core.events")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
