"""antiphon: durable memory for chat models."""

from antiphon.chat.blocking import Conversation
from antiphon.chat.conversation import AsyncConversation
from antiphon.chat.reply import Reply
from antiphon.core import events
from antiphon.core.context_policies import Summarize, TokenBudget, Window
from antiphon.core.turns import Usage
from antiphon.errors import (
    AntiphonError,
    ConfigError,
    ConflictError,
    ContextLengthExceededError,
    InvalidOutputError,
    InvalidRequestError,
    ModelError,
    ModelNotFoundError,
    NotFoundError,
    StoreError,
    UpstreamRateLimitError,
)
from antiphon.settings import Settings, load_settings
from antiphon.tools.function_tool import Tool, tool
from antiphon.tools.tool_context import ToolContext

__version__ = "0.1.0"

__all__ = [
    "AntiphonError",
    "AsyncConversation",
    "ConfigError",
    "ConflictError",
    "ContextLengthExceededError",
    "Conversation",
    "InvalidOutputError",
    "InvalidRequestError",
    "ModelError",
    "ModelNotFoundError",
    "NotFoundError",
    "Reply",
    "Settings",
    "StoreError",
    "Summarize",
    "TokenBudget",
    "Tool",
    "ToolContext",
    "UpstreamRateLimitError",
    "Usage",
    "Window",
    "events",
    "load_settings",
    "tool",
]
