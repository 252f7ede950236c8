"""Turns: the request, the stored header, the end and the response; usage and conversations.

Field names, defaults and meanings are those of the OpenAI Responses API; times
are in seconds since 1970 (UTC), lengths in tokens.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from antiphon.core.context_policies import ContextPolicy
from antiphon.core.items import FunctionCall, Item, McpApproval, open_calls
from antiphon.core.mcp_servers import McpServerRequest

TurnStatus: TypeAlias = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]
#: The same of a turn that may not have begun yet.
ResponseStatus: TypeAlias = TurnStatus | Literal["queued"]
#: The owner of everything where no keys are configured.
DEFAULT_TENANT = ""
#: What ``Options.include`` may ask for: reasoning as its model wants it back, and tokens' odds.
INCLUDE_ENCRYPTED_REASONING = "reasoning.encrypted_content"
INCLUDE_LOGPROBS = "message.output_text.logprobs"


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Token usage. ``cached_tokens`` of the input were not computed again."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    def cost(self, input_price: float, cached_price: float, output_price: float) -> float:
        """The price of the tokens, in the currency of the prices; these are per million tokens."""
        return (
            (self.input_tokens - self.cached_tokens) * input_price
            + self.cached_tokens * cached_price
            + self.output_tokens * output_price
        ) / 1_000_000


class FunctionTool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A function that the client runs; ``parameters`` is a JSON schema.

    ``name`` is what models call it. In a ``namespace`` its client calls it ``local_name``.
    ``is_custom``: its input is one text instead of JSON, and ``format`` says of which form
    (``core.tool_definitions``). ``is_search``: it finds more tools, and its calls are items of
    their own (``core.foreign_items``).
    """

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    namespace: str | None = None
    local_name: str | None = None
    is_custom: bool = False
    format: dict[str, Any] | None = None
    is_search: bool = False


class McpTool(msgspec.Struct, frozen=True, omit_defaults=True):
    """An MCP server whose tools the model may call, as it was asked for.

    Without what it is reached with: headers and keys are for the turn, not for the store.
    ``allowed_tools`` None: all. ``require_approval``: "always", "never", or the tools that
    need it; ``exempt`` are those that never do. ``server_url`` is only where the server is.
    """

    server_label: str
    server_url: str | None = None
    server_description: str | None = None
    allowed_tools: tuple[str, ...] | None = None
    require_approval: Literal["always", "never"] | tuple[str, ...] = "always"
    exempt: tuple[str, ...] = ()


class ItemReference(msgspec.Struct, frozen=True):
    """An item that a request names instead of sending it.

    It belongs before the input item at ``position``; those of one position stay in their
    order. ``param`` is where in the request it was named.
    """

    id: str
    position: int
    param: str


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
    #: What the namespaces of ``tools`` are for, by their names.
    namespaces: dict[str, str] = {}
    mcp_servers: tuple[McpTool, ...] = ()
    #: Tools that the upstream runs itself, e.g. ``web_search``, as the request defines them.
    hosted_tools: tuple[dict[str, Any], ...] = ()
    #: "auto", "none", "required", the name of one function behind "function:", or the type of
    #: one hosted tool behind "hosted:"
    tool_choice: str = "auto"
    #: The functions that may be called, where not all: ``tools`` stay as they are.
    #: ``label__*`` are all of an MCP server.
    allowed_tools: tuple[str, ...] | None = None
    max_tool_calls: int | None = None
    parallel_tool_calls: bool = True
    #: The Responses API's ``text.format``: text, json_object or json_schema.
    text_format: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    reasoning_effort: str | None = None
    reasoning_summary: str | None = None
    top_logprobs: int | None = None
    include: tuple[str, ...] = ()
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    truncation: Literal["auto", "disabled"] = "disabled"
    metadata: dict[str, str] = {}
    user: str | None = None
    #: Fields that only the upstream knows the meaning of (``core.extra_fields``).
    extra: dict[str, Any] = {}


#: The settings of a turn for which none was asked.
NO_OPTIONS = Options()


class IdempotencyReservation(msgspec.Struct, frozen=True):
    """An ``Idempotency-Key`` that a request has reserved, and that request's hash."""

    key: str
    fingerprint: bytes


class TurnRequest(msgspec.Struct, frozen=True):
    """What an interface asks of ``TurnService``.

    ``model`` None is the server's default. ``sibling_of`` is in place of a previous response: the
    turn continues what that one continues, and belongs to its chat. ``conversation`` is in place
    of a previous response: the turn goes on from its head, and moves it; ``on_busy`` says what to
    do where another turn runs on it, or where the previous response of a background turn has not
    been answered (``turn.queued_turns``). ``stream`` says whether someone wants to
    read along; without it a model may answer in one piece. ``emit_created`` False: who reads
    along is shown nothing before the first words. ``context_policies`` say what of a
    long history is sent. ``compact_threshold``: where the context has more tokens, the turn begins
    with a summary of those before it, which is its first item; 0: the model's context window
    decides. ``approved_calls`` are calls of the previous response that a person
    has agreed to: their tools are run first. ``on_decided``: it decides on calls of the previous
    response; where another response has, it is refused, with "retry" unless that one failed or was
    stopped. None: whether it does follows from its input. ``timeout`` is in seconds and covers the
    whole turn, its tools included. ``references`` are items that the input shall hold
    besides; ``item_ids`` are the ids that its items came with. ``mcp`` are the MCP servers that
    the options name, with what they are reached by.
    ``generate`` False: no model is called, and the turn has no output.
    ``reservation`` is of the request's ``Idempotency-Key``: its record is completed with the turn.
    ``chat_completion``: it came as a chat completion, whose input is the whole history; where the
    turn is stored, the part that is stored already is found (``core.chain_fingerprints``), and
    ``fingerprint`` is then that of the history. ``call_id`` is what a call gets in place of its
    model's id: clients of ``functions`` send no ids back. ``key_id`` is the id of the API key that
    the request came with. ``gather_seconds``: for so long words of the model may gather before they
    are an event.
    """

    input: tuple[Item, ...]
    model: str | None = None
    previous_response_id: str | None = None
    sibling_of: str | None = None
    conversation: str | None = None
    on_busy: Literal["refuse", "queue"] = "refuse"
    instructions: str | None = None
    options: Options = NO_OPTIONS
    store: bool = True
    stream: bool = False
    emit_created: bool = True
    background: bool = False
    tenant: str = DEFAULT_TENANT
    context_policies: tuple[ContextPolicy, ...] = ()
    compact_threshold: int | None = None
    approved_calls: tuple[FunctionCall, ...] = ()
    on_decided: Literal["refuse", "retry"] | None = None
    max_tool_rounds: int = 10
    timeout: float | None = None
    references: tuple[ItemReference, ...] = ()
    item_ids: tuple[ItemReference, ...] = ()
    mcp: tuple[McpServerRequest, ...] = ()
    reservation: IdempotencyReservation | None = None
    chat_completion: bool = False
    fingerprint: bytes | None = None
    generate: bool = True
    call_id: str | None = None
    key_id: str | None = None
    gather_seconds: float = 0.0

    @property
    def can_run(self) -> bool:
        """Whether ``TurnService.run`` may run its turn: its caller alone waits for it, and nobody
        else may decide on the same calls.
        """
        if self.stream or self.background or self.conversation:
            return False
        return not self.is_decision

    @property
    def is_decision(self) -> bool:
        """Whether it says what a person has decided on calls that waited."""
        return self.on_decided is not None or McpApproval in map(type, self.input)


class TurnError(msgspec.Struct, frozen=True):
    """Why a turn failed, as it is kept and shown."""

    code: str
    message: str


class RestartOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a background turn needs besides its header to be run again by another process.

    The fields are those of ``TurnRequest``. ``waits``: the turn begins once the one before it has
    been answered.
    """

    stream: bool = False
    compact_threshold: int | None = None
    max_tool_rounds: int = 10
    timeout: float | None = None
    waits: bool = False


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is stored of a turn's request besides its input items.

    ``restart`` None: where its process dies, the turn ends.
    """

    model: str
    instructions: str | None = None
    options: Options = Options()
    conversation: str | None = None
    background: bool = False
    #: It was made as a chat completion.
    chat_completion: bool = False
    restart: RestartOptions | None = None
    #: Of the API key that it was requested with; None: it came without a key.
    key_id: str | None = None


def with_metadata(header: Header, metadata: dict[str, str]) -> Header:
    """A header with other metadata."""
    options = msgspec.structs.replace(header.options, metadata=metadata)
    return msgspec.structs.replace(header, options=options)


class End(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a turn ended. ``reason`` is the Responses API's ``incomplete_details.reason``.

    ``usage`` is all that the turn's calls to the model cost. ``tokens`` is how many its
    own words take in a context, as far as the model's reports tell; None: unknown.
    ``trace`` is in what pieces a streamed turn came, and ``logprob_counts`` how many of its tokens'
    logprobs came with each piece of text (``core.replay_trace``); ``rhythm`` is when its events
    came (``core.replay_trace.RhythmRecorder``). ``context_turns`` is how many
    earlier turns the last call contained (``turn.trimming.newest_turns``); None: all of them; below
    0: none, and so many exchanges of its own input were left out (``turn.exchanges``).
    ``model`` is the one that answered, None: the one that was requested. ``cost`` is what ``usage``
    cost by the model's price at that time, None: it has none. ``approvals`` are the ids of the
    calls that a person has to agree to.
    """

    status: TurnStatus
    ended_at: float
    usage: Usage | None = None
    error: TurnError | None = None
    reason: str | None = None
    tokens: int | None = None
    trace: tuple[int, ...] = ()
    logprob_counts: tuple[int, ...] = ()
    context_turns: int | None = None
    model: str | None = None
    cost: float | None = None
    approvals: tuple[str, ...] = ()
    rhythm: tuple[int, ...] = ()


class Response(msgspec.Struct, frozen=True):
    """A turn as its users see it. ``end`` None: it is still running, or ``is_queued``.

    ``expires_at`` None: never, or not asked for.
    """

    id: str
    created_at: float
    header: Header
    input: tuple[Item, ...]
    output: tuple[Item, ...] = ()
    end: End | None = None
    previous_response_id: str | None = None
    store: bool = True
    expires_at: float | None = None
    is_queued: bool = False

    @property
    def model(self) -> str:
        """The model that answered last, or else the one that was requested."""
        return (self.end.model if self.end else None) or self.header.model

    @property
    def status(self) -> ResponseStatus:
        if self.end is None:
            return "queued" if self.is_queued else "in_progress"
        return self.end.status

    @property
    def open_calls(self) -> tuple[FunctionCall, ...]:
        """The calls that wait for a decision or an output; of a turn that did not complete, none:
        nobody will see to them.
        """
        if self.status != "completed":
            return ()
        return open_calls((*self.input, *self.output))


class ConversationRecord(msgspec.Struct, frozen=True):
    """A named head over a chain.

    ``head`` is the newest response that counts, None: nothing was said yet. ``active_response_id``
    is the newest turn that was begun on it, or None: until that turn has ended well, ``head`` stays
    (``turn.store_protocols``).
    """

    id: str
    created_at: float
    metadata: dict[str, str] = {}
    head: str | None = None
    active_response_id: str | None = None
