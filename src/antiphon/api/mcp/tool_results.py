"""Tool results: what each MCP tool returns, as structured content and as JSON text. Pure.

Error hints: what a calling model reads of an error, and what it may do next. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias

import msgspec

from antiphon.api.mcp.tool_schemas import replace_surrogates
from antiphon.core.items import Item, Message, Reasoning, message_text
from antiphon.core.turns import Response, Usage
from antiphon.errors import (
    AntiphonError,
    ContextLengthExceededError,
    ForbiddenError,
    HistoryChangedError,
    ImageInputUnsupportedError,
    InvalidImageError,
    InvalidRequestError,
    ModelError,
    ModelNotFoundError,
    NotFoundError,
    RateLimitError,
    ResponseInProgressError,
    StoreError,
    TurnInterruptedError,
    UpstreamRateLimitError,
)
from antiphon.turn.search_protocols import SearchHit

_START_NEW = (
    "Conversations expire and can be deleted: call stateful_chat without response_id to start"
    " a new one, or search_conversations to find another."
)
#: By what went wrong: the first that fits.
_HINTS: tuple[tuple[type[AntiphonError], str], ...] = (
    (ModelNotFoundError, "Call list_models to see which there are."),
    (
        ContextLengthExceededError,
        "Say it in fewer words, or start a new conversation: call stateful_chat without"
        " response_id and with a short summary in the prompt.",
    ),
    (ImageInputUnsupportedError, "Call list_models and name one that has images."),
    (InvalidImageError, "Send another image, or ask without it."),
    (ForbiddenError, "Ask the person to allow it."),
    (NotFoundError, _START_NEW),
    (ResponseInProgressError, "Wait a little, then try again with the same arguments."),
    (HistoryChangedError, "Try again with the same arguments."),
    (InvalidRequestError, "Mend the arguments and call the tool again."),
    (ModelError, "Try again with the same arguments; if it keeps failing, tell the person."),
    (TurnInterruptedError, "Try again with the same arguments."),
    (StoreError, "Nothing can be kept at the moment: tell the person."),
)
_STORED_HINT = "What was said is kept in {id}, and saying it again doubles nothing."


def error_hint(error: AntiphonError) -> str:
    """What happened, and what to do about it."""
    parts = [replace_surrogates(error.message)]
    if error.response_id is not None:
        parts.append(_STORED_HINT.format(id=error.response_id))
    if isinstance(error, UpstreamRateLimitError | RateLimitError):
        seconds = error.retry_after
        wait = "a little" if seconds is None else f"{max(1, round(seconds))} seconds"
        parts.append(f"Wait {wait}, then try again with the same arguments.")
    else:
        parts.extend([hint for kind, hint in _HINTS if isinstance(error, kind)][:1])
    return " ".join(parts)


_StoredUntil: TypeAlias = Annotated[
    str | None,
    msgspec.Meta(description="When the conversation expires unless it goes on; null: never."),
]
_ReasoningText: TypeAlias = Annotated[
    str | msgspec.UnsetType | None,
    msgspec.Meta(description="What the model thought before it answered; null: it did not say."),
]


class TokenUsage(msgspec.Struct, frozen=True):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int
    reasoning_tokens: int


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """``warnings`` say where something was not done as it was asked for."""

    warnings: tuple[str, ...] = ()


class ChatResult(ToolResult, frozen=True, kw_only=True):
    content: str
    status: str
    model: str
    usage: TokenUsage | None
    reasoning: _ReasoningText = msgspec.UNSET


class StatefulChatResult(ChatResult, frozen=True, kw_only=True):
    response_id: str
    stored_until: _StoredUntil
    continued_from: str | None


class RetrieveResult(StatefulChatResult, frozen=True, kw_only=True):
    created_at: str
    prompt: str
    error: str | None


class DeleteResult(ToolResult, frozen=True, kw_only=True):
    response_id: str
    deleted: bool


class ModelListEntry(msgspec.Struct, frozen=True):
    """``context_window`` is in tokens, null: unknown."""

    id: str
    owned_by: str
    images: bool
    context_window: int | None


class ModelListResult(ToolResult, frozen=True, kw_only=True):
    default: str | None
    models: tuple[ModelListEntry, ...]


class SearchResultEntry(msgspec.Struct, frozen=True):
    response_id: str
    created_at: str
    excerpt: str
    conversation: str | None


class SearchResult(ToolResult, frozen=True, kw_only=True):
    results: tuple[SearchResultEntry, ...]


def result_body(result: ToolResult) -> dict[str, Any]:
    """A result as it is shown: what was asked for comes before what is said about it."""
    body: dict[str, Any] = msgspec.to_builtins(result)
    body["warnings"] = body.pop("warnings")
    return body


def chat_result(response: Response, *, reasoning: bool = False) -> ChatResult:
    """An answer that nobody can go on from."""
    return ChatResult(
        content=messages_text(response.output),
        status=response.status,
        model=response.model,
        usage=_token_usage(response.end.usage if response.end else None),
        reasoning=reasoning_text(response.output) if reasoning else msgspec.UNSET,
        warnings=tuple(_incomplete_warnings(response)),
    )


def stateful_chat_result(response: Response, *, reasoning: bool) -> StatefulChatResult:
    """An answer that is stored."""
    return StatefulChatResult(
        **msgspec.structs.asdict(chat_result(response, reasoning=reasoning)),
        response_id=response.id,
        stored_until=_format_optional_time(response.expires_at),
        continued_from=response.previous_response_id,
    )


def retrieve_result(response: Response) -> RetrieveResult:
    """A stored turn, whole, whether it has ended or not."""
    error = response.end.error if response.end else None
    return RetrieveResult(
        **msgspec.structs.asdict(stateful_chat_result(response, reasoning=False)),
        created_at=format_time(response.created_at),
        prompt=messages_text(response.input),
        error=error.message if error else None,
    )


def search_result(hits: Iterable[SearchHit]) -> SearchResult:
    """What a search found."""
    return SearchResult(
        results=tuple(
            SearchResultEntry(
                hit.response_id, format_time(hit.created_at), hit.excerpt, hit.conversation
            )
            for hit in hits
        )
    )


def messages_text(items: Sequence[Item]) -> str:
    """All that messages say."""
    return "\n\n".join(
        filter(None, (message_text(item) for item in items if isinstance(item, Message)))
    )


def reasoning_text(items: Sequence[Item]) -> str | None:
    """What a model tells of its thoughts: in short, or as it thought them."""
    reasoning_items = (item for item in items if isinstance(item, Reasoning))
    parts = [part.text for item in reasoning_items for part in (item.summary or item.content)]
    return "\n\n".join(parts) or None


def format_time(seconds: float) -> str:
    """A time in UTC, to the second: ``2026-11-21T17:00:00Z``."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def _format_optional_time(seconds: float | None) -> str | None:
    return None if seconds is None else format_time(seconds)


def _token_usage(usage: Usage | None) -> TokenUsage | None:
    if usage is None:
        return None
    return TokenUsage(
        usage.input_tokens,
        usage.output_tokens,
        usage.input_tokens + usage.output_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
    )


def _incomplete_warnings(response: Response) -> Iterable[str]:
    """What keeps an answer from being whole."""
    if response.status == "incomplete":
        if response.end and response.end.reason == "max_output_tokens":
            yield "The answer was cut off because it got as long as it may be."
        else:
            yield "The answer is not whole: the model broke off."
    elif response.status == "cancelled":
        yield "The answer was stopped before it was whole."
    elif response.status == "in_progress":
        yield "The model is still writing: retrieve this response again later."
    elif response.status == "queued":
        yield "The turn before it has not been answered: retrieve this response again later."
