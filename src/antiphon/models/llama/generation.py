"""Generation: runs calls on a loaded llama.cpp, in one stage or, with tools, in two.

A call with tools begins with a prompt for one token, which chooses the tool, and goes on with
that tool's arguments or with an answer in words.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Protocol

import msgspec

from antiphon.core.turns import FunctionTool, Options, Usage
from antiphon.errors import AntiphonError, ContextLengthExceededError, ImageInputUnsupportedError
from antiphon.models.llama.chat_template import (
    SYSTEM_ROLES,
    PromptMessage,
    SystemRole,
    check_length,
    fit_roles,
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
from antiphon.models.llama.repetition import RepetitionDetector
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
    """Settings of all calls; ``window`` is in tokens."""

    escaper: ControlTokenEscaper
    window: int
    slots: int
    few_shot: bytes = b""
    #: What the chat template takes of system messages.
    system_role: SystemRole = "any"
    #: What ends every answer in words, besides the stop texts of its call.
    stops: tuple[str, ...] = ()


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


class _PromptProgress(msgspec.Struct):
    total: int = 0
    cache: int = 0


class _Chunk(msgspec.Struct):
    prompt_progress: _PromptProgress | None = None
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Error | None = None


_chunk_decoder = msgspec.json.Decoder(_Chunk)
_options_decoder = msgspec.json.Decoder(Options)


class _Generation:
    """State of one call in llama.cpp; only the callback can stop it.

    ``stage`` says what the output is: the topic, the arguments of ``tool``, or the answer.
    The usage is the sum of all stages.
    """

    def __init__(self, request: GenerateRequest, send: SendFrame) -> None:
        self.id = request.request_id
        self.request: GenerateRequest | None = request
        self.cancelled = False
        self.stage: Literal["topic", "arguments", "answer"] = "answer"
        self.tool: FunctionTool | None = None
        self.logprobs: dict[str, float] = {}
        self._finish_reason: Literal["stop", "length"] | None = None
        #: Looks at an answer in words; JSON has a grammar and a limit of its own.
        self.repetition: RepetitionDetector | None = None
        #: Whether the answer goes on behind a speaker's name, after a space.
        self.starts_inline = False
        self._usage = Usage()
        #: Of the stage that runs: llama.cpp reports no usage where it is stopped.
        self._stage_usage = Usage()
        self._error: RequestFailed | None = None
        self._send = send

    @property
    def is_over(self) -> bool:
        return self.cancelled or self._error is not None

    def on_chunk(self, data: bytes) -> bool:
        """Apply one chunk; True stops the generation."""
        if self.cancelled:
            return True
        try:
            self._apply_chunk(_chunk_decoder.decode(data))
        except Exception as error:  # noqa: BLE001 - the binding would drop it silently
            self.fail("model", f"llama.cpp said what cannot be read: {error}")
        return self._error is not None or self._is_endless

    @property
    def _is_endless(self) -> bool:
        return self.repetition is not None and self.repetition.is_endless

    def start_arguments(self, tool: FunctionTool) -> None:
        self.stage, self.tool, self._finish_reason = "arguments", tool, None
        self._send(ToolCallChunk(self.id, tool.name))

    def write_empty_arguments(self) -> None:
        """Send empty arguments, without the model: the tool takes none."""
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
        """The call's last frame; None for a cancelled call."""
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
        if chunk.prompt_progress is not None:
            progress = chunk.prompt_progress
            self._stage_usage = Usage(progress.total, 0, cached_tokens=progress.cache)
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
        if self._is_endless:
            return
        if self.starts_inline and self.stage == "answer":
            text = text.lstrip()
            self.starts_inline = not text
        reasoning = choice.delta.reasoning_content or ""
        if self.stage == "topic":
            for position in (choice.logprobs and choice.logprobs.content) or ():
                for alternative in position.top_logprobs:
                    self.logprobs.setdefault(alternative.token, alternative.logprob)
        elif self.stage == "answer" and (text or reasoning):
            self._send(TextChunk(self.id, text, reasoning))
            self._stage_usage += Usage(0, 1)
            if self.repetition is not None and self.repetition.feed(text or reasoning):
                # As if the limit had been reached: that is where it would have ended.
                self._finish_reason = "length"
                self._usage += self._stage_usage
        elif text:
            self._send(ToolCallChunk(self.id, None, text))
        if choice.finish_reason:
            self._finish_reason = "length" if choice.finish_reason == "length" else "stop"


class GenerationRunner:
    """Runs calls on the loaded model, ``slots`` at a time, the others in order of arrival.

    Tokens are counted beside them: by a thread of their own, through ``tokenizer``.
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
            generation = self._generations[frame.request_id] = _Generation(frame, self._send)
            self._pool.submit(self._run, generation)
        elif isinstance(frame, CountRequest):
            self._tokenizer_pool.submit(self._count, frame)
        elif isinstance(frame, TokenizeRequest):
            self._tokenizer_pool.submit(self._tokenize, frame)
        elif generation_to_stop := self._generations.get(frame.request_id):
            generation_to_stop.cancelled = True

    def _run(self, generation: _Generation) -> None:
        request, generation.request = generation.request, None
        if request is not None and not generation.cancelled:
            self._generate_answer(request, generation)
        del self._generations[generation.id]
        if final_frame := generation.final_frame():
            self._send(final_frame)

    def _generate_answer(self, request: GenerateRequest, generation: _Generation) -> None:
        has_text_format = False
        try:
            options = _options_decoder.decode(request.options)
            has_text_format = options.text_format is not None
            if options.tools:
                # The people of the example turns must not become arguments of a tool.
                self._call_tool(
                    remove_few_shot(request.messages, self._config.few_shot), options, generation
                )
            if generation.is_over or generation.tool is not None:
                return
            generation.start_answer()
            if not has_text_format:
                generation.repetition = RepetitionDetector()
                generation.starts_inline = bool(self._config.stops)
            prompt = parse_prompt(request.messages, self._config.few_shot)
            self._generate(prompt.messages, options, generation)
        except ValueError as error:
            # llama.cpp raises it for a schema it does not support and for messages that its
            # template rejects.
            reason = str(error).rpartition("generation failed: ")[2]
            if generation.tool is not None:
                message = f"The parameters of the tool '{generation.tool.name}': {reason}"
                generation.fail("invalid", message, param="tools")
            elif has_text_format and generation.stage == "answer":
                generation.fail("invalid", f"The text format: {reason}", param="text.format")
            else:
                generation.fail("model", f"The model's chat template: {reason}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the process answers the next
            _send_exception(error, generation.fail)

    def _call_tool(self, messages: bytes, options: Options, generation: _Generation) -> None:
        """Choose a tool and generate its arguments, if one is to be called."""
        prompt = parse_prompt(messages)
        tools, required = candidate_tools(options, prompt)
        if not tools:
            return
        tool: FunctionTool | None = tools[0]
        if len(tools) > 1 or not required:
            generation.stage = "topic"
            self._generate(
                topic_messages(tools, prompt), ONE_TOKEN, generation, top_logprobs=TOP_LOGPROBS
            )
            if generation.is_over:
                return
            tool = choose_tool(tools, prompt, generation.logprobs, required=required)
        if tool is not None:
            generation.start_arguments(tool)
            if not has_parameters(tool):
                generation.write_empty_arguments()
                return
            tool_options = argument_options(tool, options)
            self._generate(argument_messages(tool, prompt), tool_options, generation)

    def _generate(
        self,
        prompt_messages: list[PromptMessage],
        options: Options,
        generation: _Generation,
        *,
        top_logprobs: int = 0,
    ) -> None:
        config, first = self._config, SYSTEM_ROLES.index(self._config.system_role)
        for system_role in SYSTEM_ROLES[first:]:
            body = prompt_body(
                fit_roles(prompt_messages, system_role),
                options,
                escaper=config.escaper,
                window=config.window,
                top_logprobs=top_logprobs,
                stops=config.stops,
            )
            try:
                self._server.handle_chat_completions(body, generation.on_chunk)
            except ValueError:
                # The template may refuse the messages in words of its own: next in a plainer form.
                if system_role == SYSTEM_ROLES[-1]:
                    raise
            else:
                return

    def _count(self, count: CountRequest) -> None:
        tokens = None
        try:
            config = self._config
            prompt = parse_prompt(count.messages, config.few_shot)
            prompt_messages = fit_roles(prompt.messages, config.system_role)
            body = template_body(prompt_messages, escaper=config.escaper, window=config.window)
            if self._tokenizer is not None:
                tokens = self._tokenizer.count_tokens(body)
            self._send(CountResult(count.request_id, tokens))
        except Exception as error:  # noqa: BLE001 - whatever it is, the process answers the next
            _send_exception(error, self._error_sender(count.request_id))

    def _tokenize(self, split: TokenizeRequest) -> None:
        try:
            # One long text would have all others, and all contexts, wait to be counted.
            check_length("The text", len(split.text), self._config.window)
            self._send(
                TokenizeResult(
                    split.request_id,
                    self._tokenizer.tokenize(split.text) if self._tokenizer else None,
                )
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the process answers the next
            _send_exception(error, self._error_sender(split.request_id))

    def _error_sender(self, request_id: int) -> _SendError:
        def fail(kind: _ErrorKind, message: str, **more: object) -> None:
            failed = RequestFailed(request_id, kind, message[:_MAX_ERROR_LENGTH])
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
    """Send an exception as a ``RequestFailed`` frame."""
    match error:
        case ContextLengthExceededError():
            fail("context", error.message, used=error.used, limit=error.limit)
        case ImageInputUnsupportedError():
            fail("image", error.message)
        case AntiphonError() if error.status < 500:
            fail("invalid", error.message, param=error.param)
        case _:
            fail("model", str(error))
