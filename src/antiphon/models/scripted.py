"""Scripted model: replays a script, for tests, demos and benchmarks. Deterministic, no network.

    model = ScriptedModel(
        [
            "Hello Alice!",                                   # one reply for each call
            say("par", "ts", delay=0.01),
            think("Weather, then.") + calls(call("get_weather", {"city": "Tokyo"})),
            say("It is", " sunny") + fail(UpstreamRateLimitError("Slow down.", retry_after=1)),
            say("One moment") + hang(),                       # until it is cancelled
        ]
    )

A reply is steps, and ``+`` puts replies one after another. Unless it fails, hangs or
is ``cut``, a reply ends with its tokens and its finish, which need not be written
down. Tokens are words: of all messages' texts for the input, of what the reply says
(arguments included) for the output.

A function instead of a list makes each reply from the messages of the call. Without a
script the model echoes, and reports how many messages it got.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from antiphon.core.deltas import (
    Delta,
    Finish,
    FinishReason,
    OutputTextDelta,
    ReasoningSummaryDelta,
    RefusalTextDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.reasoning_sidecar import strip_sidecars
from antiphon.core.turns import Usage
from antiphon.errors import AntiphonError, ModelError
from antiphon.turn.protocols import ModelCall, ModelInfo


class Pause(msgspec.Struct, frozen=True):
    """Wait for ``seconds``."""

    seconds: float


class Wait(msgspec.Struct, frozen=True):
    """Set ``waiting``, then wait for ``resume``."""

    resume: asyncio.Event
    waiting: asyncio.Event | None = None


class Fail(msgspec.Struct, frozen=True):
    """End with an error."""

    error: AntiphonError


class Cut(msgspec.Struct, frozen=True):
    """End here, without a finish."""


Step: TypeAlias = Delta | Pause | Wait | Fail | Cut


class ScriptedReply(msgspec.Struct, frozen=True):
    """The steps of one call."""

    steps: tuple[Step, ...]

    def __add__(self, other: ScriptedReply) -> ScriptedReply:
        return ScriptedReply(self.steps + other.steps)


_TEXT_DELTAS = (OutputTextDelta, ReasoningSummaryDelta, RefusalTextDelta)

Messages: TypeAlias = list[dict[str, Any]]
Script: TypeAlias = Sequence[ScriptedReply | str] | Callable[[Messages], ScriptedReply | str]


def say(*parts: str, delay: float = 0.0) -> ScriptedReply:
    """Text in these parts, with ``delay`` seconds before each."""
    return _with_delays([OutputTextDelta(part) for part in parts], delay)


def think(*parts: str, delay: float = 0.0) -> ScriptedReply:
    """Reasoning in these parts."""
    return _with_delays([ReasoningSummaryDelta(part) for part in parts], delay)


def refuse(*parts: str, delay: float = 0.0) -> ScriptedReply:
    """A refusal in these parts."""
    return _with_delays([RefusalTextDelta(part) for part in parts], delay)


def call(
    name: str, arguments: dict[str, Any] | str, *, call_id: str | None = None, pieces: int = 3
) -> list[ToolCallDelta]:
    """One tool call for ``calls``, its arguments in so many fragments.

    ``call_id`` None: the model makes one from the numbers of the call to it and of
    the tool call, such as ``call_1_0``. An empty one: the model gives none.
    """
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    size = max(1, -(-len(text) // pieces))
    first, *others = [text[start : start + size] for start in range(0, len(text), size)] or [""]
    return [
        ToolCallDelta(0, call_id, name, first),
        *(ToolCallDelta(0, arguments=one) for one in others),
    ]


def calls(*tool_calls: list[ToolCallDelta], delay: float = 0.0) -> ScriptedReply:
    """Tool calls side by side: first fragments first, then second ones, and so on."""
    numbered = [
        [msgspec.structs.replace(piece, index=index) for piece in pieces]
        for index, pieces in enumerate(tool_calls)
    ]
    longest = max((len(pieces) for pieces in numbered), default=0)
    deltas = [
        pieces[start] for start in range(longest) for pieces in numbered if start < len(pieces)
    ]
    return _with_delays(deltas, delay)


def report_usage(usage: Usage) -> ScriptedReply:
    """These tokens instead of counted words."""
    return ScriptedReply((UsageUpdate(usage),))


def finish(reason: FinishReason) -> ScriptedReply:
    """This finish instead of ``stop`` or ``tool_calls``."""
    return ScriptedReply((Finish(reason),))


def fail(error: AntiphonError) -> ScriptedReply:
    """End with ``error``, after whatever the reply said before."""
    return ScriptedReply((Fail(error),))


def cut() -> ScriptedReply:
    """End without a finish, as a model must not."""
    return ScriptedReply((Cut(),))


def wait(resume: asyncio.Event, waiting: asyncio.Event | None = None) -> ScriptedReply:
    """Wait for ``resume``; ``waiting`` is set as soon as the model waits."""
    return ScriptedReply((Wait(resume, waiting),))


def hang(waiting: asyncio.Event | None = None) -> ScriptedReply:
    """Say nothing more until the call is cancelled."""
    return wait(asyncio.Event(), waiting)


class ScriptedModel:
    """Plays ``script``; one reply for each call, in the order in which calls begin.

    ``calls`` holds every call, for tests to read its messages; ``cancelled``
    is set when a call was stopped before its end. Raises ``ModelError``
    (``script_exhausted``) for a call that the script has no reply for.
    """

    def __init__(self, script: Script | None = None, *, info: ModelInfo | None = None) -> None:
        self._script = _echo if script is None else script
        self._info = info or ModelInfo("scripted")
        self.calls: list[ModelCall] = []
        self.cancelled = asyncio.Event()

    @property
    def info(self) -> ModelInfo:
        return self._info

    def context(self, number: int = -1) -> Messages:
        """The messages of a call, the last one by default."""
        return _messages(self.calls[number])

    async def generate(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        """Play the next reply: a batch for each delta, or all in one if not streamed."""
        self.calls.append(call)
        number = len(self.calls)
        reply = self._reply(call, number)
        batch: list[Delta] = []
        try:
            for step in reply.steps:
                delta = await _perform(step)
                if isinstance(delta, Cut):
                    break
                if delta is None:
                    continue
                batch.append(_with_id(delta, number))
                if call.stream:
                    yield batch
                    batch = []
            else:
                batch += _final_deltas(reply, call)
            if batch:
                yield batch
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def count_tokens(self, call: ModelCall) -> int | None:
        """The words that the call's own usage would report as its input."""
        return _count_input_words(_messages(call))

    async def close(self) -> None:
        """Nothing to close."""

    def _reply(self, call: ModelCall, number: int) -> ScriptedReply:
        if callable(self._script):
            reply = self._script(_messages(call))
        elif number <= len(self._script):
            reply = self._script[number - 1]
        else:
            raise ModelError(f"The script has no reply for call {number}.", code="script_exhausted")
        return say(reply) if isinstance(reply, str) else reply


async def _perform(step: Step) -> Delta | Cut | None:
    match step:
        case Pause(seconds):
            await asyncio.sleep(seconds)
        case Wait(opened, reached):
            if reached is not None:
                reached.set()
            await opened.wait()
        case Fail(error):
            raise error
        case _:
            return step
    return None


def _with_delays(deltas: Sequence[Delta], delay: float) -> ScriptedReply:
    if not delay:
        return ScriptedReply(tuple(deltas))
    return ScriptedReply(tuple(step for delta in deltas for step in (Pause(delay), delta)))


def _with_id(delta: Delta, number: int) -> Delta:
    if isinstance(delta, ToolCallDelta) and delta.name is not None and delta.call_id is None:
        return msgspec.structs.replace(delta, call_id=f"call_{number}_{delta.index}")
    return delta


def _final_deltas(reply: ScriptedReply, call: ModelCall) -> list[Delta]:
    """Tokens and finish, as far as the reply does not bring its own."""
    kinds = {type(step) for step in reply.steps}
    final: list[Delta] = []
    if UsageUpdate not in kinds:
        final.append(
            UsageUpdate(Usage(_count_input_words(_messages(call)), _count_output_words(reply)))
        )
    if Finish not in kinds:
        final.append(Finish("tool_calls" if ToolCallDelta in kinds else "stop"))
    return final


def _messages(call: ModelCall) -> Messages:
    messages: Messages = msgspec.json.decode(strip_sidecars(call.messages))
    return messages


def _message_text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content)
    return content or ""


def _count_input_words(messages: Messages) -> int:
    return sum(len(_message_text(message).split()) for message in messages)


def _count_output_words(reply: ScriptedReply) -> int:
    prose = [
        step
        for step in reply.steps
        if isinstance(step, OutputTextDelta | ReasoningSummaryDelta | RefusalTextDelta)
    ]
    texts = ["".join(one.text for one in prose if type(one) is kind) for kind in _TEXT_DELTAS]
    arguments = [step.arguments for step in reply.steps if isinstance(step, ToolCallDelta)]
    return sum(len(text.split()) for text in (*texts, "".join(arguments)))


def _echo(messages: Messages) -> ScriptedReply:
    user_texts = [_message_text(message) for message in messages if message.get("role") == "user"]
    answer = f"You said: {user_texts[-1] if user_texts else ''}"
    if len(user_texts) > 1:
        answer += f"\nBefore that you said: {user_texts[-2]}"
    answer += f"\n(I was shown {len(messages)} messages.)"
    return say(*answer.splitlines(keepends=True))
