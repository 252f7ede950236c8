"""Worker supervision: starts, feeds and stops the embedded model's process, as its parent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
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
    CancelRequest,
    CountRequest,
    CountResult,
    FrameSplitter,
    FromWorker,
    GenerateRequest,
    GenerateResult,
    LoadFailed,
    LoadRequest,
    Ready,
    RequestFailed,
    TextChunk,
    TokenizeRequest,
    TokenizeResult,
    ToolCallChunk,
    ToWorker,
    decode_from_worker,
    encode_frame,
)
from antiphon.turn.protocols import Token

log = logging.getLogger("antiphon.models")

#: Seconds that the worker gets to end by itself.
_GRACE_SECONDS = 2.0
_STDERR_TAIL_BYTES = 4096
#: The exit status of a Python program that an exception has ended.
_EXCEPTION_STATUS = 1
_MAX_REASON_LENGTH = 300
#: The lines of llama.cpp's stderr that hold an error, and their prefixes.
_ERROR_LINE = re.compile(r"error loading model: |GGML_ASSERT|GGML_ABORT|allocate|bad_alloc")
_ERROR_LINE_PREFIX = re.compile(r"^[\d.]+ E |.*error loading model: ")


class GenerationStream:
    """Buffer of one call's deltas that arrived and were not read yet."""

    def __init__(self, request_id: int) -> None:
        self.request_id = request_id
        self.is_over = False
        self._deltas: list[Delta] = []
        self._error: AntiphonError | None = None
        self._updated = asyncio.Event()

    def put(self, *deltas: Delta) -> None:
        self._deltas += deltas
        self._updated.set()

    def end(self, error: AntiphonError | None = None) -> None:
        self.is_over = True
        self._error = error
        self._updated.set()

    async def read(self) -> Sequence[Delta]:
        """All deltas since the last read; none at the end. Raises the call's error."""
        while not self._deltas and not self.is_over:
            self._updated.clear()
            await self._updated.wait()
        deltas, self._deltas = self._deltas, []
        if not deltas and self._error:
            raise self._error
        return deltas


class LlamaProcess:
    """One worker, created by ``start``. Once ``is_alive`` is False it stays so."""

    def __init__(self, name: str, folder: str, process: asyncio.subprocess.Process) -> None:
        self.is_alive = True
        self.pid = process.pid
        #: The context window of a call, in tokens; known once the model is loaded.
        self.window: int | None = None
        self._name = name
        self._folder = folder
        self._process = process
        self._streams: dict[int, GenerationStream] = {}
        self._tokenizer_futures: dict[int, asyncio.Future[Any]] = {}
        self._last_request_id = 0
        self._stderr_tail = b""
        self._load_failure: str | None = None
        self._exit_reason = "its process ended"
        self._stopping = False
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._read_task = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, name: str, load_request: LoadRequest) -> LlamaProcess:
        """Start a worker and wait until its model is loaded, or raise ``ModelUnavailableError``."""
        folder = ""
        try:
            folder = tempfile.mkdtemp(prefix="antiphon-")
            process = await _spawn(msgspec.structs.replace(load_request, folder=folder))
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError | UnicodeEncodeError):
                raise ModelUnavailableError(
                    f"No process could be started for the model '{name}': {_start_failure(error)}."
                ) from error
            raise
        worker = cls(name, folder, process)
        try:
            await worker._ready
        except BaseException:
            await worker.stop(grace=0)
            raise
        return worker

    def start_generation(self, messages: bytes, options: Options) -> GenerationStream:
        """Begin a call. A caller that stops reading must ``cancel`` it."""
        self._last_request_id += 1
        stream = GenerationStream(self._last_request_id)
        if self.is_alive:
            self._streams[stream.request_id] = stream
            self._send(GenerateRequest(stream.request_id, messages, msgspec.json.encode(options)))
        else:
            stream.end(self._crash_error())
        return stream

    async def count_tokens(self, messages: bytes) -> int | None:
        """The number of tokens of a context, without a slot; None where it cannot be counted."""
        count: int | None = await self._request_tokenizer(
            lambda request_id: CountRequest(request_id, messages)
        )
        return count

    async def tokenize(self, text: str) -> tuple[Token, ...] | None:
        """A text's tokens; None on systems without the tokenizer's socket."""
        tokens: tuple[Token, ...] | None = await self._request_tokenizer(
            lambda request_id: TokenizeRequest(request_id, text)
        )
        return tokens

    async def _request_tokenizer(
        self, make_frame: Callable[[int], CountRequest | TokenizeRequest]
    ) -> Any:
        if not self.is_alive:
            raise self._crash_error()
        self._last_request_id += 1
        request_id = self._last_request_id
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._tokenizer_futures[request_id] = future
        self._send(make_frame(request_id))
        try:
            return await future
        finally:
            del self._tokenizer_futures[request_id]

    def cancel(self, stream: GenerationStream) -> None:
        """Stop a call's generation, if it is not over."""
        if self._streams.pop(stream.request_id, None) and self.is_alive:
            self._send(CancelRequest(stream.request_id))

    async def stop(self, *, grace: float = _GRACE_SECONDS) -> None:
        """End the worker: by closing its input, or after ``grace`` seconds by force."""
        self._stopping = True
        if self._read_task.done():
            return
        self._close_stdin()
        done, _ = await asyncio.wait({self._read_task}, timeout=grace)
        if not done:
            self._kill()
            await self._read_task

    def _close_stdin(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _send(self, frame: ToWorker) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(encode_frame(frame))

    async def _read(self) -> None:
        """Dispatch frames until the worker ends, then fail all calls that still wait."""
        stderr_task = asyncio.create_task(self._read_stderr())
        try:
            await self._read_frames()
        except asyncio.CancelledError:
            # The loop is about to close, and nobody called ``stop``.
            self._close_stdin()
            self._kill()
            await self._process.wait()
            self._remove_folder()
            raise
        except msgspec.DecodeError:
            self._kill()
        finally:
            self.is_alive = False
        await stderr_task
        code = await self._process.wait()
        self._remove_folder()
        self._exit_reason = self._load_failure or f"its process ended {_describe_exit(code)}"
        for stream in self._streams.values():
            stream.end(self._crash_error())
        self._streams.clear()
        for future in self._tokenizer_futures.values():
            if not future.done():
                future.set_exception(self._crash_error())
        if not self._ready.done():
            self._ready.set_exception(self._load_error())

    def _remove_folder(self) -> None:
        # The worker removes it when it ends, but may have been killed.
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _read_frames(self) -> None:
        stdout = self._process.stdout
        splitter = FrameSplitter()
        while stdout is not None and (data := await stdout.read(1 << 16)):
            for body in splitter.feed(data):
                self._handle_frame(decode_from_worker(body))

    async def _read_stderr(self) -> None:
        stderr = self._process.stderr
        while stderr is not None and (data := await stderr.read(1 << 16)):
            self._stderr_tail = (self._stderr_tail + data)[-_STDERR_TAIL_BYTES:]

    def _handle_frame(self, frame: FromWorker) -> None:
        match frame:
            case Ready():
                self.window = frame.window
                if frame.warning:
                    log.warning("The model '%s' %s", self._name, frame.warning)
                if not self._ready.done():
                    self._ready.set_result(None)
            case LoadFailed():
                self._load_failure = frame.message
            case TextChunk():
                if stream := self._streams.get(frame.request_id):
                    stream.put(*_deltas(frame))
            case ToolCallChunk():
                if stream := self._streams.get(frame.request_id):
                    stream.put(ToolCallDelta(0, None, frame.name, frame.arguments))
            case CountResult() | TokenizeResult():
                self._resolve_future(frame.request_id, frame.tokens)
            case GenerateResult():
                if stream := self._streams.pop(frame.request_id, None):
                    stream.put(UsageUpdate(frame.usage), Finish(frame.reason))
                    stream.end()
            case RequestFailed():
                self._handle_failure(frame)

    def _handle_failure(self, failure: RequestFailed) -> None:
        if stream := self._streams.pop(failure.request_id, None):
            stream.end(self._to_error(failure))
        else:
            self._resolve_future(failure.request_id, self._to_error(failure))

    def _resolve_future(self, request_id: int, outcome: object) -> None:
        future = self._tokenizer_futures.get(request_id)
        if future is None or future.done():
            return
        if isinstance(outcome, AntiphonError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _to_error(self, failure: RequestFailed) -> AntiphonError:
        match failure.kind:
            case "context":
                return ContextLengthExceededError(
                    failure.message
                    or f"The conversation has {failure.used} tokens; "
                    f"the model '{self._name}' can see {failure.limit}.",
                    used=failure.used,
                    limit=failure.limit,
                )
            case "image":
                return ImageInputUnsupportedError(failure.message, param="input")
            case "invalid":
                return InvalidRequestError(failure.message, param=failure.param)
        return ModelError(f"The model '{self._name}' failed: {failure.message}")

    def _load_error(self) -> ModelUnavailableError:
        return ModelUnavailableError(
            f"The model '{self._name}' could not be loaded: {self._failure_reason()}"
        )

    def _crash_error(self) -> ModelUnavailableError:
        if self._stopping:
            return ModelUnavailableError(f"The model '{self._name}' was shut down.")
        return ModelUnavailableError(
            f"The model '{self._name}' crashed: {self._failure_reason()}", code="model_crashed"
        )

    def _failure_reason(self) -> str:
        lines = self._stderr_tail.decode(errors="replace").splitlines()
        error_lines = [line for line in lines if _ERROR_LINE.search(line)]
        if not error_lines and self._process.returncode == _EXCEPTION_STATUS:
            # The end of Python's traceback.
            error_lines = [line for line in lines if line.strip()]
        reason = (
            f" ({_ERROR_LINE_PREFIX.sub('', error_lines[-1])[:_MAX_REASON_LENGTH]})"
            if error_lines
            else ""
        )
        return f"{self._exit_reason.rstrip('.')}{reason}."


def _start_failure(error: OSError | UnicodeEncodeError) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "the path of its file is not UTF-8, so rename that"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


async def _spawn(load_request: LoadRequest) -> asyncio.subprocess.Process:
    # A session of its own keeps a terminal's Ctrl-C from the worker, and -P keeps the modules
    # in the working folder out of it.
    command = (sys.executable, "-P", "-m", "antiphon.models.llama.worker")
    return await asyncio.create_subprocess_exec(
        *command,
        msgspec.json.encode(load_request).decode(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _deltas(chunk: TextChunk) -> list[Delta]:
    deltas: list[Delta] = []
    if chunk.reasoning:
        deltas.append(ReasoningSummaryDelta(chunk.reasoning))
    if chunk.text:
        deltas.append(OutputTextDelta(chunk.text))
    return deltas


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    hint = "; the machine may be out of memory" if name == "SIGKILL" else ""
    return f"by signal {name}{hint}"
