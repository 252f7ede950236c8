"""Error hints: what a calling model reads of an error, and what it may do next. Pure."""

from __future__ import annotations

from antiphon.api.mcp.tool_schemas import replace_surrogates
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
