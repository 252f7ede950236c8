"""A model behind any OpenAI-compatible ``/chat/completions`` endpoint.

The chat completions dialect: a call to a request's body, an answer's JSON to deltas. No I/O.

The request's messages arrive as JSON and are put into the body as they are, without the
reasoning that they may carry for models of another dialect. Answers
are read as the servers in use write them, which is not always as OpenAI does.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import msgspec

from antiphon.core.deltas import (
    AnnotationDelta,
    Delta,
    Finish,
    FinishReason,
    OutputTextDelta,
    ReasoningSummaryDelta,
    RefusalTextDelta,
    UsageUpdate,
)
from antiphon.core.reasoning_sidecar import strip_sidecars
from antiphon.core.turns import FunctionTool, Options, Usage
from antiphon.errors import ModelError
from antiphon.models.openai.logprobs_citations import citation_of, logprobs_of, wants_logprobs
from antiphon.models.openai.tool_call_assembly import Call, Calls, Function
from antiphon.models.openai.upstream_errors import UNREADABLE, Unreadable, broken_off
from antiphon.models.openai.upstream_model import UpstreamModel
from antiphon.models.retry import Failure
from antiphon.turn.protocols import ModelCall

_encode = msgspec.json.Encoder().encode
_DEFAULTS = Options()


class _Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """All of the request's body but ``model`` and ``messages``."""

    stream: bool = False
    stream_options: dict[str, bool] | None = None
    store: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None


class RequestWriter:
    """Writes request bodies for one endpoint.

    ``openai`` says that the endpoint is OpenAI's own. Then the limit of tokens goes
    as ``max_completion_tokens``, since its newer models refuse ``max_tokens``, and
    ``store: false`` is sent, since accounts may store by default. All others get
    ``max_tokens``, which every server knows, and no ``store``, which strict ones
    refuse and none acts on.
    """

    def __init__(self, *, upstream_name: str | None, openai: bool) -> None:
        self._name = upstream_name
        self._openai = openai
        self._plain = {stream: self._rest(_DEFAULTS, stream) for stream in (False, True)}

    def body(self, call: ModelCall) -> bytes:
        """The request's JSON."""
        options = call.options
        rest = (
            self._plain[call.stream] if options == _DEFAULTS else self._rest(options, call.stream)
        )
        name = _encode(self._name or call.model)
        messages = strip_sidecars(call.messages)
        return b"".join((b'{"model":', name, b',"messages":', messages, rest))

    def _rest(self, options: Options, stream: bool) -> bytes:
        tools = bool(options.tools)
        limit = options.max_output_tokens
        logprobs = wants_logprobs(options)
        body = _Body(
            stream=stream,
            stream_options={"include_usage": True} if stream else None,
            store=False if self._openai else None,
            temperature=options.temperature,
            top_p=options.top_p,
            max_tokens=None if self._openai else limit,
            max_completion_tokens=limit if self._openai else None,
            frequency_penalty=options.frequency_penalty,
            presence_penalty=options.presence_penalty,
            seed=options.seed,
            stop=options.stop,
            tools=[_tool(one) for one in options.tools] if tools else None,
            tool_choice=_tool_choice(options.tool_choice) if tools else None,
            parallel_tool_calls=False if tools and not options.parallel_tool_calls else None,
            response_format=_response_format(options.text_format),
            reasoning_effort=options.reasoning_effort,
            verbosity=options.verbosity,
            logprobs=logprobs,
            top_logprobs=options.top_logprobs if logprobs else None,
            service_tier=options.service_tier,
            prompt_cache_key=options.prompt_cache_key,
            safety_identifier=options.safety_identifier,
            user=options.user,
        )
        fields = _encode(body)[1:]
        return fields if fields == b"}" else b"," + fields


def _tool(tool: FunctionTool) -> dict[str, Any]:
    return {"type": "function", "function": tool}


def _tool_choice(choice: str) -> str | dict[str, Any] | None:
    if choice == "auto":
        return None
    if choice.startswith("function:"):
        return {"type": "function", "function": {"name": choice.removeprefix("function:")}}
    return choice


def _response_format(text_format: dict[str, Any] | None) -> dict[str, Any] | None:
    if text_format is None or text_format.get("type") == "text":
        return None
    if text_format.get("type") != "json_schema":
        return text_format
    schema = {key: value for key, value in text_format.items() if key != "type"}
    return {"type": "json_schema", "json_schema": schema}


class _Part(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: Any = None


class _Said(msgspec.Struct, gc=False):
    """A chunk's ``delta`` or an answer's ``message``."""

    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_text: Any = None
    thinking: Any = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    annotations: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Said | None = None
    message: _Said | None = None
    logprobs: Any = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Answer(msgspec.Struct, gc=False):
    """A chunk of a stream, or a whole completion."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode

_REASONS: dict[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class AnswerReader:
    """Reads one answer. ``feed`` it a stream's events or ``whole`` it a completion, then ``end``.

    None of them raises. ``trouble`` is set where the answer went wrong: an ``error``
    object as the upstream sent it (bytes), or the error itself. Deltas that were
    given before it are good.
    """

    def __init__(self) -> None:
        #: The stream said that it is over.
        self.done = False
        #: Why the model stopped, None until it says so.
        self.reason: str | None = None
        self.trouble: bytes | Failure | None = None
        self._usage: _Usage | None = None
        self._calls = Calls()
        #: Odds of tokens that belong to the next words: half a character has odds, too.
        self._logprobs: tuple[dict[str, Any], ...] = ()
        self._cited: list[dict[str, Any]] = []

    def feed(self, events: Iterable[bytes]) -> list[Delta]:
        """The deltas of a stream's events, which are their data."""
        out: list[Delta] = []
        for event in events:
            if event == b"[DONE]":
                self.done = True
                break
            if event and not event.isspace():
                self._take(event, out)
                if self.trouble is not None:
                    break
        return out

    def whole(self, body: bytes) -> list[Delta]:
        """The deltas of an answer that came in one piece."""
        out: list[Delta] = []
        self._take(body, out)
        self.done = True
        if self.trouble is None and not out and self.reason is None:
            self.trouble = Unreadable("it holds no answer", body)
        return out

    def end(self) -> list[Delta]:
        """What closes the answer: its tokens and its finish, or ``trouble``."""
        if self.trouble is not None:
            return []
        if self.reason is None and not self.done:
            self.trouble = broken_off()
            return []
        if self.reason == "error":
            self.trouble = Failure(ModelError("The upstream failed while it was answering."))
            return []
        reason = _REASONS.get(self.reason or "stop", "stop")
        if reason == "stop" and self._calls.any:
            # Some servers end an answer that calls tools as if it were any other.
            reason = "tool_calls"
        usage = [UsageUpdate(_tokens(self._usage))] if self._usage is not None else []
        return [*usage, Finish(reason)]

    def _take(self, data: bytes, out: list[Delta]) -> None:
        try:
            answer = _decode(data)
            if answer.usage is not None:
                self._usage = answer.usage
            for choice in answer.choices or ():
                if choice.index:
                    continue
                said = choice.delta or choice.message
                if isinstance(choice.logprobs, dict):
                    self._logprobs += logprobs_of(choice.logprobs.get("content"))
                if said is not None:
                    self._say(said, out)
                if choice.finish_reason:
                    self.reason = choice.finish_reason
        except UNREADABLE as error:
            self.trouble = Unreadable(str(error), data, error)
            return
        if answer.error is not None:
            self.trouble = data

    def _say(self, said: _Said, out: list[Delta]) -> None:
        for thought in (said.reasoning_content, said.reasoning, said.reasoning_text, said.thinking):
            # Servers in transition send the same words under two of these names.
            if thought and isinstance(thought, str):
                out.append(ReasoningSummaryDelta(thought))
                break
        content = said.content
        if isinstance(content, str):
            if content:
                if self._logprobs:
                    out.append(OutputTextDelta(content, self._logprobs))
                    self._logprobs = ()
                else:
                    out.append(OutputTextDelta(content))
        elif content:
            out.extend(_parts(content))
        if said.annotations:
            self._cite(said.annotations, out)
        if said.refusal:
            out.append(RefusalTextDelta(said.refusal))
        if said.tool_calls:
            out.extend(self._calls.pieces(said.tool_calls))
        if said.function_call is not None:
            out.extend(self._calls.pieces([Call(index=0, function=said.function_call)]))

    def _cite(self, annotations: Any, out: list[Delta]) -> None:
        for given in annotations if isinstance(annotations, list) else ():
            annotation = citation_of(given)
            # Some servers repeat all of them with each chunk.
            if annotation is not None and annotation not in self._cited:
                self._cited.append(annotation)
                out.append(AnnotationDelta(annotation))


def _parts(parts: list[_Part]) -> Iterable[Delta]:
    for part in parts:
        if part.text:
            yield OutputTextDelta(part.text)
        thinking = part.thinking
        if isinstance(thinking, str):
            yield ReasoningSummaryDelta(thinking)
        elif isinstance(thinking, list):
            for inner in thinking:
                if isinstance(inner, dict) and isinstance(inner.get("text"), str):
                    yield ReasoningSummaryDelta(inner["text"])


def _tokens(usage: _Usage) -> Usage:
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    cached = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
    details = usage.completion_tokens_details
    reasoning = (details and details.reasoning_tokens) or 0
    if usage.total_tokens == prompt + completion + reasoning:
        # xAI counts reasoning beside the completion, OpenAI within it.
        completion += reasoning
    return Usage(prompt, completion, cached or 0, reasoning)


class ChatCompletionsModel(UpstreamModel):
    """One endpoint that speaks chat completions; see ``UpstreamModel`` for what it is given."""

    path = "/chat/completions"

    @cached_property
    def _writer(self) -> RequestWriter:
        openai = _is_openai(self._url.host or "")
        return RequestWriter(upstream_name=self._upstream_name, openai=openai)

    def _body(self, call: ModelCall) -> bytes:
        return self._writer.body(call)

    def _reader(self, call: ModelCall) -> AnswerReader:
        return AnswerReader()


def _is_openai(host: str) -> bool:
    return host == "api.openai.com" or host.endswith((".api.openai.com", ".openai.azure.com"))
