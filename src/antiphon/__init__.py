"""antiphon: durable memory for chat models."""

from antiphon.chat import AsyncConversation, Conversation, Reply
from antiphon.core.turns import Usage
from antiphon.errors import (
    AntiphonError,
    ConfigError,
    Conflict,
    ContextLengthExceeded,
    InvalidRequest,
    ModelError,
    ModelNotFound,
    NotFound,
    RateLimited,
    StoreError,
)
from antiphon.settings import Settings, load_settings

__version__ = "0.1.0"

__all__ = [
    "AntiphonError",
    "AsyncConversation",
    "ConfigError",
    "Conflict",
    "ContextLengthExceeded",
    "Conversation",
    "InvalidRequest",
    "ModelError",
    "ModelNotFound",
    "NotFound",
    "RateLimited",
    "Reply",
    "Settings",
    "StoreError",
    "Usage",
    "load_settings",
]
