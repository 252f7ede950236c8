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
from antiphon.models.llama.chat_template import Line, body_of, read_talk, template_body, without
from antiphon.models.llama.control_tokens import Markup
from antiphon.models.llama.frame_protocol import (
    Ask,
    Called,
    Count,
    Counted,
    Cut,
    Done,
    Drop,
    Failed,
    Said,
    Split,
    Up,
)
from antiphon.models.llama.tokenizer_client import Door
from antiphon.models.llama.tool_calling import (
    GUESSES,
    ONE_TOKEN,
    argument_lines,
    argument_options,
    pick,
    takes_arguments,
    tools_in_question,
    topic_lines,
)

_LONGEST_MESSAGE = 400

Say = Callable[[Up], None]


class Server(Protocol):
    """What is used of ``xllamacpp.Server``."""

    def handle_chat_completions(self, body: bytes, callback: Callable[[bytes], bool]) -> object: ...


class Setup(msgspec.Struct, frozen=True):
    """What all calls share; ``window`` is in tokens."""

    markup: Markup
    window: int
    slots: int
    primer: bytes = b""


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Guess(msgspec.Struct):
    token: str
    logprob: float


class _Place(msgspec.Struct):
    top_logprobs: list[_Guess] = []


class _Guesses(msgspec.Struct):
    content: list[_Place] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None
    logprobs: _Guesses | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Cached = msgspec.field(default_factory=_Cached)


class _Error(msgspec.Struct):
    message: str = ""
    type: str = ""
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Error | None = None


_chunk = msgspec.json.Decoder(_Chunk)
_options = msgspec.json.Decoder(Options)


class _Call:
    """One question on its way through llama.cpp; the callback is the only way to stop it.

    ``stage`` is what llama.cpp is at: what it says then is the topic, the arguments of
    ``tool``, or the answer. ``usage`` is the sum of all stages: what the call cost.
    """

    def __init__(self, ask: Ask, say: Say) -> None:
        self.id = ask.call
        self.ask: Ask | None = ask
        self.stopped = False
        self.stage: Literal["topic", "arguments", "answer"] = "answer"
        self.tool: FunctionTool | None = None
        self.guesses: dict[str, float] = {}
        self._reason: Literal["stop", "length"] | None = None
        self._usage = Usage()
        self._failure: Failed | None = None
        self._say = say

    @property
    def over(self) -> bool:
        return self.stopped or self._failure is not None

    def hear(self, data: bytes) -> bool:
        """Take one chunk; True stops the generation."""
        if self.stopped:
            return True
        try:
            self._take(_chunk.decode(data))
        except Exception as error:  # noqa: BLE001 - the binding would drop it without a word
            self.fail("model", f"llama.cpp said what cannot be read: {error}")
        return self._failure is not None

    def begin_arguments(self, tool: FunctionTool) -> None:
        self.stage, self.tool, self._reason = "arguments", tool, None
        self._say(Called(self.id, tool.name))

    def write_none(self) -> None:
        """The tool takes no arguments: there is nothing to ask the model for."""
        self._say(Called(self.id, None, "{}"))
        self._reason = "stop"

    def begin_answer(self) -> None:
        self.stage, self._reason = "answer", None

    def fail(
        self,
        kind: Literal["context", "image", "invalid", "model"],
        message: str,
        *,
        param: str | None = None,
        used: int | None = None,
        limit: int | None = None,
    ) -> None:
        text = message[:_LONGEST_MESSAGE]
        self._failure = self._failure or Failed(self.id, kind, text, param, used, limit)

    def end(self) -> Up | None:
        """The call's last frame; None if nobody waits for it."""
        if self.stopped:
            return None
        if self._failure is None and self._reason is None:
            self.fail("model", "The model stopped in the middle of its answer.")
        reason = self._reason or "stop"
        called = self.stage == "arguments" and reason == "stop"
        return self._failure or Done(self.id, "tool_calls" if called else reason, self._usage)

    def _take(self, chunk: _Chunk) -> None:
        if error := chunk.error:
            if error.type == "exceed_context_size_error":
                self.fail("context", "", used=error.n_prompt_tokens, limit=error.n_ctx)
            else:
                self.fail("model", error.message)
        for choice in chunk.choices:
            self._take_choice(choice)
        if usage := chunk.usage:
            before = self._usage
            self._usage = Usage(
                input_tokens=before.input_tokens + usage.prompt_tokens,
                output_tokens=before.output_tokens + usage.completion_tokens,
                cached_tokens=before.cached_tokens + usage.prompt_tokens_details.cached_tokens,
            )

    def _take_choice(self, choice: _Choice) -> None:
        text = choice.delta.content or ""
        thought = choice.delta.reasoning_content or ""
        if self.stage == "topic":
            for place in (choice.logprobs and choice.logprobs.content) or ():
                for guess in place.top_logprobs:
                    self.guesses.setdefault(guess.token, guess.logprob)
        elif self.stage == "answer" and (text or thought):
            self._say(Said(self.id, text, thought))
        elif text:
            self._say(Called(self.id, None, text))
        if choice.finish_reason:
            self._reason = "length" if choice.finish_reason == "length" else "stop"


class Answerer:
    """Runs calls on the loaded model, ``slots`` at a time, the others in order of arrival.

    Tokens are counted beside them: by a thread of their own, through the ``door``.
    """

    def __init__(self, server: Server, door: Door | None, setup: Setup, say: Say) -> None:
        self._server = server
        self._door = door
        self._setup = setup
        self._say = say
        self._pool = ThreadPoolExecutor(setup.slots)
        self._counting = ThreadPoolExecutor(1)
        self._calls: dict[int, _Call] = {}

    def take(self, frame: Ask | Drop | Count | Split) -> None:
        if isinstance(frame, Ask):
            call = self._calls[frame.call] = _Call(frame, self._say)
            self._pool.submit(self._run, call)
        elif isinstance(frame, Count):
            self._counting.submit(self._count, frame)
        elif isinstance(frame, Split):
            self._counting.submit(self._split, frame)
        elif call_to_stop := self._calls.get(frame.call):
            call_to_stop.stopped = True

    def _run(self, call: _Call) -> None:
        ask, call.ask = call.ask, None
        if ask is not None and not call.stopped:
            self._answer(ask, call)
        del self._calls[call.id]
        if last := call.end():
            self._say(last)

    def _answer(self, ask: Ask, call: _Call) -> None:
        formatted = False
        try:
            options = _options.decode(ask.options)
            formatted = options.text_format is not None
            if options.tools:
                # Whom the example turns are about is no business of a tool.
                self._route(without(ask.messages, self._setup.primer), options, call)
            if call.over or call.tool is not None:
                return
            call.begin_answer()
            self._generate(read_talk(ask.messages, self._setup.primer).lines, options, call)
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
            _tell(error, call.fail)

    def _route(self, messages: bytes, options: Options, call: _Call) -> None:
        """Have the tool chosen and its arguments written, if there is one to be called."""
        talk = read_talk(messages)
        tools, must = tools_in_question(options, talk)
        if not tools:
            return
        chosen: FunctionTool | None = tools[0]
        if len(tools) > 1 or not must:
            call.stage = "topic"
            self._generate(topic_lines(tools, talk), ONE_TOKEN, call, guesses=GUESSES)
            if call.over:
                return
            chosen = pick(tools, talk, call.guesses, must=must)
        if chosen is not None:
            call.begin_arguments(chosen)
            if not takes_arguments(chosen):
                call.write_none()
                return
            filling = argument_options(chosen, options)
            self._generate(argument_lines(chosen, talk), filling, call)

    def _generate(
        self, lines: list[Line], options: Options, call: _Call, *, guesses: int = 0
    ) -> None:
        body = body_of(
            lines,
            options,
            markup=self._setup.markup,
            window=self._setup.window,
            guesses=guesses,
        )
        self._server.handle_chat_completions(body, call.hear)

    def _count(self, count: Count) -> None:
        tokens = None
        try:
            setup = self._setup
            lines = read_talk(count.messages, setup.primer).lines
            body = template_body(lines, markup=setup.markup, window=setup.window)
            if self._door is not None:
                tokens = self._door.count(body)
            self._say(Counted(count.call, tokens))
        except Exception as error:  # noqa: BLE001 - whatever it is, the process answers the next
            _tell(error, self._failing(count.call))

    def _split(self, split: Split) -> None:
        try:
            self._say(Cut(split.call, self._door.tokens(split.text) if self._door else None))
        except Exception as error:  # noqa: BLE001 - whatever it is, the process answers the next
            _tell(error, self._failing(split.call))

    def _failing(self, call: int) -> _Fail:
        def fail(kind: _Kind, message: str, **more: object) -> None:
            failed = Failed(call, kind, message[:_LONGEST_MESSAGE])
            self._say(msgspec.structs.replace(failed, **more))

        return fail


_Kind = Literal["context", "image", "invalid", "model"]


class _Fail(Protocol):
    def __call__(
        self,
        kind: _Kind,
        message: str,
        *,
        param: str | None = None,
        used: int | None = None,
        limit: int | None = None,
    ) -> None: ...


def _tell(error: Exception, fail: _Fail) -> None:
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
