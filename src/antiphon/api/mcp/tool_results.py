"""What each tool gives back, as structured content and as its JSON text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias

import msgspec

from antiphon.core.items import Item, Message, Reasoning, message_text
from antiphon.core.turns import Response, Usage
from antiphon.turn.store_protocols import SearchHit

_Until: TypeAlias = Annotated[
    str | None,
    msgspec.Meta(description="When the conversation expires unless it goes on; null: never."),
]
_Thoughts: TypeAlias = Annotated[
    str | msgspec.UnsetType | None,
    msgspec.Meta(description="What the model thought before it answered; null: it did not say."),
]


class Tokens(msgspec.Struct, frozen=True):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int
    reasoning_tokens: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """``warnings`` say where something was not done as it was asked for."""

    warnings: tuple[str, ...] = ()


class Answer(Result, frozen=True, kw_only=True):
    content: str
    status: str
    model: str
    usage: Tokens | None
    reasoning: _Thoughts = msgspec.UNSET


class StatefulAnswer(Answer, frozen=True, kw_only=True):
    response_id: str
    stored_until: _Until
    continued_from: str | None


class Turn(StatefulAnswer, frozen=True, kw_only=True):
    created_at: str
    prompt: str
    error: str | None


class Deleted(Result, frozen=True, kw_only=True):
    response_id: str
    deleted: bool


class ListedModel(msgspec.Struct, frozen=True):
    """``context_window`` is in tokens, null: unknown."""

    id: str
    owned_by: str
    images: bool
    context_window: int | None


class ModelList(Result, frozen=True, kw_only=True):
    default: str | None
    models: tuple[ListedModel, ...]


class Found(msgspec.Struct, frozen=True):
    response_id: str
    created_at: str
    excerpt: str
    conversation: str | None


class FoundList(Result, frozen=True, kw_only=True):
    results: tuple[Found, ...]


def body_of(result: Result) -> dict[str, Any]:
    """A result as it is shown: what was asked for comes before what is said about it."""
    body: dict[str, Any] = msgspec.to_builtins(result)
    body["warnings"] = body.pop("warnings")
    return body


def answer_of(response: Response, *, reasoning: bool = False) -> Answer:
    """An answer that nobody can go on from."""
    return Answer(
        content=content_of(response.output),
        status=response.status,
        model=response.header.model,
        usage=_tokens(response.end.usage if response.end else None),
        reasoning=reasoning_of(response.output) if reasoning else msgspec.UNSET,
        warnings=tuple(_shortfalls(response)),
    )


def stateful_answer_of(response: Response, *, reasoning: bool) -> StatefulAnswer:
    """An answer that is stored."""
    return StatefulAnswer(
        **msgspec.structs.asdict(answer_of(response, reasoning=reasoning)),
        response_id=response.id,
        stored_until=_moment(response.expires_at),
        continued_from=response.previous_response_id,
    )


def turn_of(response: Response) -> Turn:
    """A stored turn, whole, whether it has ended or not."""
    error = response.end.error if response.end else None
    return Turn(
        **msgspec.structs.asdict(stateful_answer_of(response, reasoning=False)),
        created_at=moment(response.created_at),
        prompt=content_of(response.input),
        error=error.message if error else None,
    )


def found_of(hits: Iterable[SearchHit]) -> FoundList:
    """What a search found."""
    return FoundList(
        results=tuple(
            Found(hit.response_id, moment(hit.created_at), hit.excerpt, hit.conversation)
            for hit in hits
        )
    )


def content_of(items: Sequence[Item]) -> str:
    """All that messages say."""
    return "\n\n".join(
        filter(None, (message_text(item) for item in items if isinstance(item, Message)))
    )


def reasoning_of(items: Sequence[Item]) -> str | None:
    """What a model tells of its thoughts: in short, or as it thought them."""
    told = (item for item in items if isinstance(item, Reasoning))
    parts = [part.text for item in told for part in (item.summary or item.content)]
    return "\n\n".join(parts) or None


def moment(seconds: float) -> str:
    """A time in UTC, to the second: ``2026-11-21T17:00:00Z``."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else moment(seconds)


def _tokens(usage: Usage | None) -> Tokens | None:
    if usage is None:
        return None
    return Tokens(
        usage.input_tokens,
        usage.output_tokens,
        usage.input_tokens + usage.output_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
    )


def _shortfalls(response: Response) -> Iterable[str]:
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
