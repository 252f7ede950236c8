"""A running child process with a loaded model in it, as its parent sees it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from antiphon.core.deltas import (
    Delta,
    Finish,
    OutputTextDelta,
    ReasoningSummaryDelta,
    ToolCallDelta,
    UsageUpdate,
)
from antiphon.core.turns import Options
from antiphon.errors import (
    AntiphonError,
    ContextLengthExceededError,
    ImageInputUnsupportedError,
    InvalidRequestError,
    ModelError,
    ModelUnavailableError,
)
from antiphon.models.llama.frame_protocol import (
    Ask,
    Broken,
    Called,
    Count,
    Counted,
    Cut,
    Done,
    Down,
    Drop,
    Failed,
    FrameSplitter,
    Ready,
    Said,
    Split,
    Up,
    Wish,
    decode_up,
    encode_frame,
)
from antiphon.turn.protocols import Token

#: Seconds that the child gets to end by itself.
_GRACE = 2.0
_STDERR_KEPT = 4096
_REASON_LENGTH = 300
#: The lines in which llama.cpp says what went wrong, and what it puts before them.
_TELLING = re.compile(r"error loading model: |GGML_ASSERT|GGML_ABORT|allocate|bad_alloc")
_PREFIX = re.compile(r"^[\d.]+ E |.*error loading model: ")


class Answer:
    """What has arrived of one call and not been taken yet."""

    def __init__(self, call: int) -> None:
        self.call = call
        self.over = False
        self._deltas: list[Delta] = []
        self._error: AntiphonError | None = None
        self._news = asyncio.Event()

    def put(self, *deltas: Delta) -> None:
        self._deltas += deltas
        self._news.set()

    def end(self, error: AntiphonError | None = None) -> None:
        self.over = True
        self._error = error
        self._news.set()

    async def take(self) -> Sequence[Delta]:
        """All that arrived since the last time; nothing at the end. Raises what ended it."""
        while not self._deltas and not self.over:
            self._news.clear()
            await self._news.wait()
        deltas, self._deltas = self._deltas, []
        if not deltas and self._error:
            raise self._error
        return deltas


class LlamaProcess:
    """Made by ``start``. Once ``alive`` is False it stays so; start another then."""

    def __init__(self, name: str, folder: str, process: asyncio.subprocess.Process) -> None:
        self.alive = True
        self.pid = process.pid
        self._name = name
        self._folder = folder
        self._process = process
        self._answers: dict[int, Answer] = {}
        self._counts: dict[int, asyncio.Future[Any]] = {}
        self._calls = 0
        self._printed = b""
        self._broken: str | None = None
        self._end = "its process ended"
        self._stopping = False
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, name: str, wish: Wish) -> LlamaProcess:
        """Start a child and wait until its model is loaded, or raise ``ModelUnavailableError``."""
        folder = tempfile.mkdtemp(prefix="antiphon-")
        try:
            process = await _spawn(name, msgspec.structs.replace(wish, folder=folder))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        child = cls(name, folder, process)
        try:
            await child._ready
        except BaseException:
            await child.stop(grace=0)
            raise
        return child

    def ask(self, messages: bytes, options: Options) -> Answer:
        """Begin a call. Whoever stops waiting for its answer must ``drop`` it."""
        self._calls += 1
        answer = Answer(self._calls)
        if self.alive:
            self._answers[answer.call] = answer
            self._send(Ask(answer.call, messages, msgspec.json.encode(options)))
        else:
            answer.end(self._crash())
        return answer

    async def count(self, messages: bytes) -> int | None:
        """The tokens of a context; None where they cannot be counted. May wait for no slot."""
        counted: int | None = await self._tokenizer(lambda call: Count(call, messages))
        return counted

    async def tokens(self, text: str) -> tuple[Token, ...] | None:
        """A text's own tokens; None where they cannot be told."""
        cut: tuple[Token, ...] | None = await self._tokenizer(lambda call: Split(call, text))
        return cut

    async def _tokenizer(self, asked: Callable[[int], Count | Split]) -> Any:
        if not self.alive:
            raise self._crash()
        self._calls += 1
        number = self._calls
        counted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._counts[number] = counted
        self._send(asked(number))
        try:
            return await counted
        finally:
            del self._counts[number]

    def drop(self, answer: Answer) -> None:
        """Stop a call's generation, if it is not over."""
        if self._answers.pop(answer.call, None) and self.alive:
            self._send(Drop(answer.call))

    async def stop(self, *, grace: float = _GRACE) -> None:
        """End the child: by closing its input, or after ``grace`` seconds by force."""
        self._stopping = True
        if self._reading.done():
            return
        self._hang_up()
        done, _ = await asyncio.wait({self._reading}, timeout=grace)
        if not done:
            self._kill()
            await self._reading

    def _hang_up(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _send(self, frame: Down) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(encode_frame(frame))

    async def _read(self) -> None:
        """Hand out frames until the child is gone, then tell all who still wait."""
        printed = asyncio.create_task(self._read_stderr())
        try:
            await self._read_frames()
        except asyncio.CancelledError:
            # The loop is about to close, and nobody called ``stop``.
            self._hang_up()
            self._kill()
            await self._process.wait()
            self._sweep()
            raise
        except msgspec.DecodeError:
            self._kill()
        finally:
            self.alive = False
        await printed
        code = await self._process.wait()
        self._sweep()
        self._end = self._broken or f"its process ended {_how(code)}"
        for answer in self._answers.values():
            answer.end(self._crash())
        self._answers.clear()
        for counted in self._counts.values():
            if not counted.done():
                counted.set_exception(self._crash())
        if not self._ready.done():
            self._ready.set_exception(self._load_error())

    def _sweep(self) -> None:
        # The child removes it when it ends, but may have been killed.
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _read_frames(self) -> None:
        stdout = self._process.stdout
        splitter = FrameSplitter()
        while stdout is not None and (data := await stdout.read(1 << 16)):
            for body in splitter.feed(data):
                self._take(decode_up(body))

    async def _read_stderr(self) -> None:
        stderr = self._process.stderr
        while stderr is not None and (data := await stderr.read(1 << 16)):
            self._printed = (self._printed + data)[-_STDERR_KEPT:]

    def _take(self, frame: Up) -> None:
        match frame:
            case Ready():
                if not self._ready.done():
                    self._ready.set_result(None)
            case Broken():
                self._broken = frame.message
            case Said():
                if answer := self._answers.get(frame.call):
                    answer.put(*_deltas(frame))
            case Called():
                if answer := self._answers.get(frame.call):
                    answer.put(ToolCallDelta(0, None, frame.name, frame.arguments))
            case Counted() | Cut():
                self._settle(frame.call, frame.tokens)
            case Done():
                if answer := self._answers.pop(frame.call, None):
                    answer.put(UsageUpdate(frame.usage), Finish(frame.reason))
                    answer.end()
            case Failed():
                self._fail(frame)

    def _fail(self, failed: Failed) -> None:
        if answer := self._answers.pop(failed.call, None):
            answer.end(self._error(failed))
        else:
            self._settle(failed.call, self._error(failed))

    def _settle(self, number: int, outcome: object) -> None:
        counted = self._counts.get(number)
        if counted is None or counted.done():
            return
        if isinstance(outcome, AntiphonError):
            counted.set_exception(outcome)
        else:
            counted.set_result(outcome)

    def _error(self, failed: Failed) -> AntiphonError:
        match failed.kind:
            case "context":
                return ContextLengthExceededError(
                    failed.message
                    or f"The conversation has {failed.used} tokens; "
                    f"the model '{self._name}' can see {failed.limit}.",
                    used=failed.used,
                    limit=failed.limit,
                )
            case "image":
                return ImageInputUnsupportedError(failed.message, param="input")
            case "invalid":
                return InvalidRequestError(failed.message, param=failed.param)
        return ModelError(f"The model '{self._name}' failed: {failed.message}")

    def _load_error(self) -> ModelUnavailableError:
        return ModelUnavailableError(f"The model '{self._name}' could not be loaded: {self._why()}")

    def _crash(self) -> ModelUnavailableError:
        if self._stopping:
            return ModelUnavailableError(f"The model '{self._name}' was shut down.")
        return ModelUnavailableError(
            f"The model '{self._name}' crashed: {self._why()}", code="model_crashed"
        )

    def _why(self) -> str:
        lines = self._printed.decode(errors="replace").splitlines()
        told = [line for line in lines if _TELLING.search(line)]
        reason = f" ({_PREFIX.sub('', told[-1])[:_REASON_LENGTH]})" if told else ""
        return f"{self._end.rstrip('.')}{reason}."


async def _spawn(name: str, wish: Wish) -> asyncio.subprocess.Process:
    # A session of its own keeps a terminal's Ctrl-C from the child, and -P keeps the modules
    # in the working folder out of it.
    command = (sys.executable, "-P", "-m", "antiphon.models.llama.worker")
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            msgspec.json.encode(wish).decode(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise ModelUnavailableError(
            f"No process could be started for the model '{name}': {error.strerror}."
        ) from error


def _deltas(said: Said) -> list[Delta]:
    deltas: list[Delta] = []
    if said.thought:
        deltas.append(ReasoningSummaryDelta(said.thought))
    if said.text:
        deltas.append(OutputTextDelta(said.text))
    return deltas


def _how(code: int) -> str:
    if code >= 0:
        return f"with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    hint = "; the machine may be out of memory" if name == "SIGKILL" else ""
    return f"by signal {name}{hint}"
