"""Worker process of the embedded model: ``python -m antiphon.models.llama.worker``.

It loads one GGUF into llama.cpp and answers the frames of ``frame_protocol`` from its
standard input. It lives as long as that pipe: when the parent dies in whatever way, the pipe
ends, and the process exits at once after removing its folder. No signal but SIGKILL ends it: the
parent decides what stops when a terminal or a service manager signals all processes at once.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import select
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from antiphon.errors import AntiphonError
from antiphon.models.llama.chat_template import (
    DIALOGUE_STOPS,
    DIALOGUE_TEMPLATE,
    load_warning,
    system_role_of,
)
from antiphon.models.llama.control_tokens import ControlTokenEscaper
from antiphon.models.llama.cpu_count import count_cpus
from antiphon.models.llama.frame_protocol import (
    FrameSplitter,
    FromWorker,
    LoadFailed,
    LoadRequest,
    Ready,
    decode_to_worker,
    encode_frame,
)
from antiphon.models.llama.generation import GenerationConfig, GenerationRunner, LlamaServer
from antiphon.models.llama.gguf import GgufMetadata, read_metadata
from antiphon.models.llama.tokenizer_client import TokenizerClient

#: Small batches, so that a call can be stopped between them during prefill.
_BATCH_SIZE = 256
#: Linux: which signal a process gets when the thread that started it ends (``prctl(2)``).
_PR_SET_PDEATHSIG = 1


class _FrameWriter:
    """Writes frames to the original standard output, which llama.cpp must not print to."""

    def __init__(self, folder: str = "") -> None:
        self._folder = folder
        self._file: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
        self._lock = threading.Lock()
        os.dup2(2, 1)
        sys.stdout = sys.stderr

    def write(self, frame: FromWorker) -> None:
        data = encode_frame(frame)
        with self._lock:
            try:
                self._file.write(data)
            except OSError:
                _exit(self._folder)


def _load(
    load_request: LoadRequest, window: int, metadata: GgufMetadata
) -> tuple[LlamaServer, TokenizerClient | None]:
    os.environ["GGML_NO_BACKTRACE"] = "1"  # its backtrace would fork a debugger
    import xllamacpp  # type: ignore[import-untyped]  # loaded on first use

    params = xllamacpp.CommonParams()
    params.model.path = load_request.path
    params.n_parallel = load_request.slots
    params.n_ctx = load_request.slots * window
    params.kv_unified = False
    params.cache_ram_mib = load_request.cache_mib
    threads = max(1, count_cpus() - 1)
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_batch = params.n_ubatch = _BATCH_SIZE
    params.warmup = params.ui = params.endpoint_slots = params.fit_params = False
    params.prefill_assistant = False
    if metadata.chat_template is None:
        # llama.cpp's own choice would be ChatML, which this model would only imitate.
        params.chat_template = DIALOGUE_TEMPLATE
    params.n_threads_http = 1
    # Errors only: the parent reports the end of stderr when a load fails.
    params.verbosity = 1
    if sys.platform == "win32":
        params.api_keys = [secrets.token_hex(16)]
        keyed_server: LlamaServer = xllamacpp.Server(params)
        return keyed_server, None
    # llama.cpp's server must listen: on a socket in a private folder, for this process alone.
    # A socket's path may be 100 bytes long; a relative one always fits.
    os.chdir(load_request.folder)
    tokenizer = TokenizerClient()
    params.hostnames = [tokenizer.path]
    server: LlamaServer = xllamacpp.Server(params)
    return server, tokenizer


def _serve(load_request: LoadRequest, writer: _FrameWriter) -> None:
    path = Path(load_request.path)
    try:
        metadata = read_metadata(path)
        window = min(
            load_request.context_window, metadata.context_length or load_request.context_window
        )
        with _dying_with_parent():
            server, tokenizer = _load(load_request, window, metadata)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent reports it
        writer.write(LoadFailed(_load_failure(error, path)))
        return
    config = GenerationConfig(
        ControlTokenEscaper(metadata.control_tokens),
        window,
        load_request.slots,
        load_request.few_shot.encode(),
        system_role_of(metadata.chat_template),
        DIALOGUE_STOPS if metadata.chat_template is None else (),
    )
    runner = GenerationRunner(server, tokenizer, config, writer.write)
    writer.write(Ready(window, load_warning(metadata.chat_template, metadata.names, path.name)))
    splitter = FrameSplitter()
    while data := os.read(0, 1 << 16):
        for body in splitter.feed(data):
            runner.handle(decode_to_worker(body))


def _load_failure(error: Exception, path: Path) -> str:
    """Why a model could not be loaded."""
    match error:
        case AntiphonError():
            return error.message
        case ModuleNotFoundError(name="xllamacpp"):
            return "llama.cpp is not installed: `pip install 'antiphon[llama]'`"
        case ImportError():
            return f"llama.cpp cannot be used here: {error}."
        case RuntimeError():
            # Its own words are on standard error.
            return f"llama.cpp could not load {path.name}."
    return f"{path.name}: {type(error).__name__}: {error}."


@contextmanager
def _dying_with_parent() -> Iterator[None]:
    """Have the system end this process with its parent, on Linux.

    For what holds Python's lock for seconds, so that no thread could see the end of the pipe.
    """
    if sys.platform != "linux":
        yield
        return
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    pipe = select.poll()
    # Its end is seen without being asked for.
    pipe.register(0, 0)
    if pipe.poll(0):
        raise BrokenPipeError("The parent has ended.")
    try:
        yield
    finally:
        prctl(_PR_SET_PDEATHSIG, 0)


def _exit(folder: str) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    # llama.cpp's threads may be at work; an orderly exit under them would crash.
    os._exit(0)


def main() -> None:
    """Serve until standard input ends. The argument is a ``LoadRequest`` as JSON."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    load_request = msgspec.json.decode(sys.argv[1], type=LoadRequest)
    _serve(load_request, _FrameWriter(load_request.folder))
    _exit(load_request.folder)


if __name__ == "__main__":
    main()
