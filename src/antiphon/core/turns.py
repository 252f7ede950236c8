"""A turn: what is asked for, how it stands, and how it ended.

Field names, defaults and meanings are those of the OpenAI Responses API; times
are in seconds since 1970 (UTC), lengths in tokens.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from antiphon.core.items import FunctionCall, Item
from antiphon.core.policies import Policy

TurnStatus: TypeAlias = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]
#: The owner of everything where no keys are configured.
NOBODY = ""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens. ``cached_tokens`` of the input were not computed again."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class FunctionTool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A function that the client runs; ``parameters`` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Options(msgspec.Struct, frozen=True, omit_defaults=True):
    """The settings of one turn. None means: the model's own default."""

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[FunctionTool, ...] = ()
    #: "auto", "none", "required", or the name of one function behind "function:"
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    #: The Responses API's ``text.format``: text, json_object or json_schema.
    text_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    truncation: Literal["auto", "disabled"] = "disabled"
    metadata: dict[str, str] = {}
    user: str | None = None


class TurnRequest(msgspec.Struct, frozen=True):
    """What an interface asks of ``TurnService``.

    ``model`` None is the server's default. ``stream`` says whether someone wants to
    read along; without it a model may answer in one piece. ``context`` says what of a
    long history is shown. ``approved`` are calls of the previous response that a person
    has agreed to: their tools are run first. ``timeout`` is in seconds and covers the
    whole turn, its tools included.
    """

    input: tuple[Item, ...]
    model: str | None = None
    previous_response_id: str | None = None
    instructions: str | None = None
    options: Options = Options()
    store: bool = True
    stream: bool = False
    tenant: str = NOBODY
    context: tuple[Policy, ...] = ()
    approved: tuple[FunctionCall, ...] = ()
    max_tool_rounds: int = 10
    timeout: float | None = None


class TurnError(msgspec.Struct, frozen=True):
    """Why a turn failed, as it is kept and shown."""

    code: str
    message: str


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is stored of a turn's request besides its input items."""

    model: str
    instructions: str | None = None
    options: Options = Options()


class End(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a turn ended. ``reason`` is the Responses API's ``incomplete_details.reason``.

    ``usage`` is all that the turn's calls to the model cost. ``tokens`` is how many its
    own words take in a context, as far as the model's reports tell; None: unknown.
    """

    status: TurnStatus
    ended_at: float
    usage: Usage | None = None
    error: TurnError | None = None
    reason: str | None = None
    tokens: int | None = None


class Response(msgspec.Struct, frozen=True):
    """A turn as its users see it. ``end`` None: it is still running."""

    id: str
    created_at: float
    header: Header
    input: tuple[Item, ...]
    output: tuple[Item, ...] = ()
    end: End | None = None
    previous_response_id: str | None = None
    store: bool = True

    @property
    def status(self) -> TurnStatus:
        return self.end.status if self.end else "in_progress"
