"""The program of the embedded model's process: ``python -m antiphon.models.llama_child``.

It loads one GGUF into llama.cpp and answers the frames of ``llama_frames`` that come on
its standard input. It lives as long as that pipe: when the parent dies in whatever way,
the pipe ends, and so does this process, at once and without cleaning up.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import msgspec

from antiphon.core.turns import Options, Usage
from antiphon.errors import AntiphonError, ContextLengthExceeded, ImageInputUnsupported
from antiphon.models.gguf import read_facts
from antiphon.models.llama_frames import (
    Ask,
    Broken,
    Done,
    Drop,
    Failed,
    FrameSplitter,
    Ready,
    Said,
    Up,
    Wish,
    decode_down,
    encode_frame,
)
from antiphon.models.llama_prompt import chat_body
from antiphon.models.markup import Markup

#: Small batches, so that a call can be stopped between them during prefill.
_BATCH = 256
_DOOR = "door.sock"
_LONGEST_MESSAGE = 400


class _Server(Protocol):
    """What is used of ``xllamacpp.Server``."""

    def handle_chat_completions(self, body: bytes, callback: Callable[[bytes], bool]) -> object: ...


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


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


class _Mouth:
    """Where frames go: what was standard output before llama.cpp could print to it."""

    def __init__(self) -> None:
        self._file: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
        self._lock = threading.Lock()
        os.dup2(2, 1)
        sys.stdout = sys.stderr

    def say(self, frame: Up) -> None:
        data = encode_frame(frame)
        with self._lock:
            try:
                self._file.write(data)
            except OSError:
                os._exit(0)


class _Call:
    """One question on its way through llama.cpp; the callback is the only way to stop it."""

    def __init__(self, ask: Ask, mouth: _Mouth) -> None:
        self.id = ask.call
        self.ask: Ask | None = ask
        self.stopped = False
        self.reason: Literal["stop", "length"] | None = None
        self.usage = Usage()
        self.failure: Failed | None = None
        self._mouth = mouth

    def hear(self, data: bytes) -> bool:
        """Take one chunk; True stops the generation."""
        if self.stopped:
            return True
        try:
            self._take(_chunk.decode(data))
        except Exception as error:  # noqa: BLE001 - the binding would drop it without a word
            self.fail("model", f"llama.cpp said what cannot be read: {error}")
        return self.failure is not None

    def fail(
        self, kind: Literal["context", "image", "invalid", "model"], message: str, **more: Any
    ) -> None:
        self.failure = Failed(self.id, kind, message[:_LONGEST_MESSAGE], **more)

    def _take(self, chunk: _Chunk) -> None:
        if error := chunk.error:
            if error.type == "exceed_context_size_error":
                self.fail("context", "", used=error.n_prompt_tokens, limit=error.n_ctx)
            else:
                self.fail("model", error.message)
        for choice in chunk.choices:
            text, thought = choice.delta.content, choice.delta.reasoning_content
            if text or thought:
                self._mouth.say(Said(self.id, text or "", thought or ""))
            if choice.finish_reason:
                self.reason = "length" if choice.finish_reason == "length" else "stop"
        if usage := chunk.usage:
            self.usage = Usage(
                input_tokens=usage.prompt_tokens,
                output_tokens=usage.completion_tokens,
                cached_tokens=usage.prompt_tokens_details.cached_tokens,
            )

    def end(self) -> Up | None:
        """The call's last frame; None if nobody waits for it."""
        if self.stopped:
            return None
        if self.failure is None and self.reason is None:
            self.fail("model", "The model stopped in the middle of its answer.")
        return self.failure or Done(self.id, self.reason or "stop", self.usage)


class _Answerer:
    """Runs calls on the loaded model, ``slots`` at a time, the others in order of arrival."""

    def __init__(
        self, server: _Server, markup: Markup, window: int, slots: int, mouth: _Mouth
    ) -> None:
        self._server = server
        self._markup = markup
        self._window = window
        self._mouth = mouth
        self._pool = ThreadPoolExecutor(slots)
        self._calls: dict[int, _Call] = {}

    def take(self, frame: Ask | Drop) -> None:
        if isinstance(frame, Ask):
            call = self._calls[frame.call] = _Call(frame, self._mouth)
            self._pool.submit(self._run, call)
        elif call_to_stop := self._calls.get(frame.call):
            call_to_stop.stopped = True

    def _run(self, call: _Call) -> None:
        ask, call.ask = call.ask, None
        if ask is not None and not call.stopped:
            self._answer(ask, call)
        del self._calls[call.id]
        if last := call.end():
            self._mouth.say(last)

    def _answer(self, ask: Ask, call: _Call) -> None:
        formatted = False
        try:
            options = _options.decode(ask.options)
            formatted = options.text_format is not None
            body = chat_body(ask.messages, options, markup=self._markup, window=self._window)
            self._server.handle_chat_completions(body, call.hear)
        except ContextLengthExceeded as error:
            call.fail("context", error.message, used=error.used, limit=error.limit)
        except ImageInputUnsupported as error:
            call.fail("image", error.message)
        except AntiphonError as error:
            call.fail("invalid", error.message, param=error.param)
        except ValueError as error:
            # llama.cpp raises it for a schema it cannot follow and for what its template refuses.
            reason = str(error).rpartition("generation failed: ")[2]
            if formatted:
                call.fail("invalid", f"The text format: {reason}", param="text.format")
            else:
                call.fail("model", f"The model's chat template: {reason}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the process answers the next
            call.fail("model", str(error))


def _load(wish: Wish, window: int) -> _Server:
    os.environ["GGML_NO_BACKTRACE"] = "1"  # its backtrace would fork a debugger
    import xllamacpp  # type: ignore[import-untyped]  # loaded on first use

    params = xllamacpp.CommonParams()
    params.model.path = wish.path
    params.n_parallel = wish.slots
    params.n_ctx = wish.slots * window
    params.kv_unified = False
    params.cache_ram_mib = wish.cache_mib
    threads = max(1, _cores() - 1)
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_batch = params.n_ubatch = _BATCH
    params.warmup = params.ui = params.endpoint_slots = params.fit_params = False
    params.prefill_assistant = False
    params.n_threads_http = 1
    # Errors only: the parent keeps the end of what is printed, to say why a load failed.
    params.verbosity = 1
    if sys.platform == "win32":
        params.api_keys = [secrets.token_hex(16)]
        behind_a_key: _Server = xllamacpp.Server(params)
        return behind_a_key
    # The server insists on a door. It gets one in a private folder, bricked up behind it.
    # A socket's path may be 100 bytes long; a relative one always fits.
    os.chdir(wish.folder)
    params.hostnames = [_DOOR]
    server: _Server = xllamacpp.Server(params)
    os.unlink(_DOOR)
    os.chdir("/")
    os.rmdir(wish.folder)
    return server


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _serve(wish: Wish, mouth: _Mouth) -> None:
    path = Path(wish.path)
    try:
        facts = read_facts(path)
        window = min(wish.context, facts.context_length or wish.context)
        server = _load(wish, window)
    except AntiphonError as error:
        mouth.say(Broken(error.message))
        return
    except ImportError:
        mouth.say(Broken("The runtime is not installed; 'pip install antiphon[llama]' brings it."))
        return
    except RuntimeError:
        mouth.say(Broken(f"llama.cpp could not load {path.name}."))
        return
    answerer = _Answerer(server, Markup(facts.control_tokens), window, wish.slots, mouth)
    mouth.say(Ready(window))
    splitter = FrameSplitter()
    while data := os.read(0, 1 << 16):
        for body in splitter.feed(data):
            answerer.take(decode_down(body))


def main() -> None:
    """Serve until standard input ends. The argument is a ``Wish`` as JSON."""
    # Ctrl-C in a terminal is for the parent, which decides what stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(msgspec.json.decode(sys.argv[1], type=Wish), _Mouth())
    # llama.cpp's threads may be at work; an orderly exit under them would crash.
    os._exit(0)


if __name__ == "__main__":
    main()
