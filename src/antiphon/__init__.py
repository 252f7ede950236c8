"""antiphon: durable memory for chat models."""

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

__version__ = "0.1.0"

__all__ = [
    "AntiphonError",
    "AsyncConversation",
    "AsyncStream",
    "ChatOptions",
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
