"""Runs calls on a loaded llama.cpp: what is asked for, in one or two stages, and its tokens.

A call that may use tools begins with a question for one token, which tool it is for, and
goes on with that tool's arguments or with an answer in words.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Protocol

import msgspec

from antiphon.core.turns import FunctionTool, Options, Usage
from antiphon.errors import AntiphonError, ContextLengthExceededError, ImageInputUnsupportedError
from antiphon.models.llama.chat_template import (
    PromptMessage,
    parse_prompt,
    prompt_body,
    remove_few_shot,
    template_body,
)
from antiphon.models.llama.control_tokens import ControlTokenEscaper
from antiphon.models.llama.frame_protocol import (
    CancelRequest,
    CountRequest,
    CountResult,
    FromWorker,
    GenerateRequest,
    GenerateResult,
    RequestFailed,
    TextChunk,
    TokenizeRequest,
    TokenizeResult,
    ToolCallChunk,
)
from antiphon.models.llama.tokenizer_client import TokenizerClient
from antiphon.models.llama.tool_calling import (
    ONE_TOKEN,
    TOP_LOGPROBS,
    argument_messages,
    argument_options,
    candidate_tools,
    choose_tool,
    has_parameters,
    topic_messages,
)

_MAX_ERROR_LENGTH = 400

SendFrame = Callable[[FromWorker], None]


class LlamaServer(Protocol):
    """What is used of ``xllamacpp.Server``."""

    def handle_chat_completions(self, body: bytes, callback: Callable[[bytes], bool]) -> object: ...


class GenerationConfig(msgspec.Struct, frozen=True):
    """What all calls share; ``window`` is in tokens."""

    escaper: ControlTokenEscaper
    window: int
    slots: int
    few_shot: bytes = b""


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _TopLogprob(msgspec.Struct):
    token: str
    logprob: float


class _TokenLogprob(msgspec.Struct):
    top_logprobs: list[_TopLogprob] = []


class _Logprobs(msgspec.Struct):
    content: list[_TokenLogprob] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _PromptTokensDetails(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptTokensDetails = msgspec.field(
        default_factory=_PromptTokensDetails
    )


class _Error(msgspec.Struct):
    message: str = ""
    type: str = ""
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Error | None = None


_chunk_decoder = msgspec.json.Decoder(_Chunk)
_options_decoder = msgspec.json.Decoder(Options)


class _Generation:
    """One question on its way through llama.cpp; the callback is the only way to stop it.

    ``stage`` is what llama.cpp is at: what it says then is the topic, the arguments of
    ``tool``, or the answer. ``usage`` is the sum of all stages: what the call cost.
    """

    def __init__(self, request: GenerateRequest, send: SendFrame) -> None:
        self.id = request.request_id
        self.request: GenerateRequest | None = request
        self.cancelled = False
        self.stage: Literal["topic", "arguments", "answer"] = "answer"
        self.tool: FunctionTool | None = None
        self.logprobs: dict[str, float] = {}
        self._finish_reason: Literal["stop", "length"] | None = None
        self._usage = Usage()
        self._error: RequestFailed | None = None
        self._send = send

    @property
    def is_over(self) -> bool:
        return self.cancelled or self._error is not None

    def on_chunk(self, data: bytes) -> bool:
        """Take one chunk; True stops the generation."""
        if self.cancelled:
            return True
        try:
            self._apply_chunk(_chunk_decoder.decode(data))
        except Exception as error:  # noqa: BLE001 - the binding would drop it without a word
            self.fail("model", f"llama.cpp said what cannot be read: {error}")
        return self._error is not None

    def start_arguments(self, tool: FunctionTool) -> None:
        self.stage, self.tool, self._finish_reason = "arguments", tool, None
        self._send(ToolCallChunk(self.id, tool.name))

    def write_empty_arguments(self) -> None:
        """The tool takes no arguments: there is nothing to ask the model for."""
        self._send(ToolCallChunk(self.id, None, "{}"))
        self._finish_reason = "stop"

    def start_answer(self) -> None:
        self.stage, self._finish_reason = "answer", None

    def fail(
        self,
        kind: Literal["context", "image", "invalid", "model"],
        message: str,
        *,
        param: str | None = None,
        used: int | None = None,
        limit: int | None = None,
    ) -> None:
        text = message[:_MAX_ERROR_LENGTH]
        self._error = self._error or RequestFailed(self.id, kind, text, param, used, limit)

    def final_frame(self) -> FromWorker | None:
        """The call's last frame; None if nobody waits for it."""
        if self.cancelled:
            return None
        if self._error is None and self._finish_reason is None:
            self.fail("model", "The model stopped in the middle of its answer.")
        reason = self._finish_reason or "stop"
        called = self.stage == "arguments" and reason == "stop"
        return self._error or GenerateResult(
            self.id, "tool_calls" if called else reason, self._usage
        )

    def _apply_chunk(self, chunk: _Chunk) -> None:
        if error := chunk.error:
            if error.type == "exceed_context_size_error":
                self.fail("context", "", used=error.n_prompt_tokens, limit=error.n_ctx)
            else:
                self.fail("model", error.message)
        for choice in chunk.choices:
            self._apply_choice(choice)
        if usage := chunk.usage:
            self._usage += Usage(
                input_tokens=usage.prompt_tokens,
                output_tokens=usage.completion_tokens,
                cached_tokens=usage.prompt_tokens_details.cached_tokens,
            )

    def _apply_choice(self, choice: _Choice) -> None:
        text = choice.delta.content or ""
        thought = choice.delta.reasoning_content or ""
        if self.stage == "topic":
            for place in (choice.logprobs and choice.logprobs.content) or ():
                for guess in place.top_logprobs:
                    self.logprobs.setdefault(guess.token, guess.logprob)
        elif self.stage == "answer" and (text or thought):
            self._send(TextChunk(self.id, text, thought))
        elif text:
            self._send(ToolCallChunk(self.id, None, text))
        if choice.finish_reason:
            self._finish_reason = "length" if choice.finish_reason == "length" else "stop"


class GenerationRunner:
    """Runs calls on the loaded model, ``slots`` at a time, the others in order of arrival.

    Tokens are counted beside them: by a thread of their own, through the ``door``.
    """

    def __init__(
        self,
        server: LlamaServer,
        tokenizer: TokenizerClient | None,
        config: GenerationConfig,
        send: SendFrame,
    ) -> None:
        self._server = server
        self._tokenizer = tokenizer
        self._config = config
        self._send = send
        self._pool = ThreadPoolExecutor(config.slots)
        self._tokenizer_pool = ThreadPoolExecutor(1)
        self._generations: dict[int, _Generation] = {}

    def handle(
        self, frame: GenerateRequest | CancelRequest | CountRequest | TokenizeRequest
    ) -> None:
        if isinstance(frame, GenerateRequest):
            call = self._generations[frame.request_id] = _Generation(frame, self._send)
            self._pool.submit(self._run, call)
        elif isinstance(frame, CountRequest):
            self._tokenizer_pool.submit(self._count, frame)
        elif isinstance(frame, TokenizeRequest):
            self._tokenizer_pool.submit(self._tokenize, frame)
        elif call_to_stop := self._generations.get(frame.request_id):
            call_to_stop.cancelled = True

    def _run(self, call: _Generation) -> None:
        ask, call.request = call.request, None
        if ask is not None and not call.cancelled:
            self._generate_answer(ask, call)
        del self._generations[call.id]
        if last := call.final_frame():
            self._send(last)

    def _generate_answer(self, ask: GenerateRequest, call: _Generation) -> None:
        formatted = False
        try:
            options = _options_decoder.decode(ask.options)
            formatted = options.text_format is not None
            if options.tools:
                # Whom the example turns are about is no business of a tool.
                self._call_tool(remove_few_shot(ask.messages, self._config.few_shot), options, call)
            if call.is_over or call.tool is not None:
                return
            call.start_answer()
            self._generate(
                parse_prompt(ask.messages, self._config.few_shot).messages, options, call
            )
        except ValueError as error:
            # llama.cpp raises it for a schema it cannot follow and for what its template refuses.
            reason = str(error).rpartition("generation failed: ")[2]
            if call.tool is not None:
                message = f"The parameters of the tool '{call.tool.name}': {reason}"
                call.fail("invalid", message, param="tools")
            elif formatted and call.stage == "answer":
                call.fail("invalid", f"The text format: {reason}", param="text.format")
            else:
                call.fail("model", f"The model's chat template: {reason}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the process answers the next
            _send_exception(error, call.fail)

    def _call_tool(self, messages: bytes, options: Options, call: _Generation) -> None:
        """Have the tool chosen and its arguments written, if there is one to be called."""
        talk = parse_prompt(messages)
        tools, must = candidate_tools(options, talk)
        if not tools:
            return
        chosen: FunctionTool | None = tools[0]
        if len(tools) > 1 or not must:
            call.stage = "topic"
            self._generate(topic_messages(tools, talk), ONE_TOKEN, call, top_logprobs=TOP_LOGPROBS)
            if call.is_over:
                return
            chosen = choose_tool(tools, talk, call.logprobs, required=must)
        if chosen is not None:
            call.start_arguments(chosen)
            if not has_parameters(chosen):
                call.write_empty_arguments()
                return
            filling = argument_options(chosen, options)
            self._generate(argument_messages(chosen, talk), filling, call)

    def _generate(
        self,
        lines: list[PromptMessage],
        options: Options,
        call: _Generation,
        *,
        top_logprobs: int = 0,
    ) -> None:
        body = prompt_body(
            lines,
            options,
            escaper=self._config.escaper,
            window=self._config.window,
            top_logprobs=top_logprobs,
        )
        self._server.handle_chat_completions(body, call.on_chunk)

    def _count(self, count: CountRequest) -> None:
        tokens = None
        try:
            setup = self._config
            lines = parse_prompt(count.messages, setup.few_shot).messages
            body = template_body(lines, escaper=setup.escaper, window=setup.window)
            if self._tokenizer is not None:
                tokens = self._tokenizer.count_tokens(body)
            self._send(CountResult(count.request_id, tokens))
        except Exception as error:  # noqa: BLE001 - whatever it is, the process answers the next
            _send_exception(error, self._error_sender(count.request_id))

    def _tokenize(self, split: TokenizeRequest) -> None:
        try:
            self._send(
                TokenizeResult(
                    split.request_id,
                    self._tokenizer.tokenize(split.text) if self._tokenizer else None,
                )
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the process answers the next
            _send_exception(error, self._error_sender(split.request_id))

    def _error_sender(self, call: int) -> _SendError:
        def fail(kind: _ErrorKind, message: str, **more: object) -> None:
            failed = RequestFailed(call, kind, message[:_MAX_ERROR_LENGTH])
            self._send(msgspec.structs.replace(failed, **more))

        return fail


_ErrorKind = Literal["context", "image", "invalid", "model"]


class _SendError(Protocol):
    def __call__(
        self,
        kind: _ErrorKind,
        message: str,
        *,
        param: str | None = None,
        used: int | None = None,
        limit: int | None = None,
    ) -> None: ...


def _send_exception(error: Exception, fail: _SendError) -> None:
    """Say what went wrong in the frames' words."""
    match error:
        case ContextLengthExceededError():
            fail("context", error.message, used=error.used, limit=error.limit)
        case ImageInputUnsupportedError():
            fail("image", error.message)
        case AntiphonError() if error.status < 500:
            fail("invalid", error.message, param=error.param)
        case _:
            fail("model", str(error))
