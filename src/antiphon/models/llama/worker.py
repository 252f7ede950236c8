"""The program of the embedded model's process: ``python -m antiphon.models.llama.worker``.

It loads one GGUF into llama.cpp and answers the frames of ``llama_frames`` that come on
its standard input. It lives as long as that pipe: when the parent dies in whatever way,
the pipe ends, and so does this process, at once; all that it cleans up is its folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import msgspec

from antiphon.errors import AntiphonError
from antiphon.models.llama.control_tokens import Markup
from antiphon.models.llama.frame_protocol import (
    Broken,
    FrameSplitter,
    Ready,
    Up,
    Wish,
    decode_down,
    encode_frame,
)
from antiphon.models.llama.generation import Answerer, Server, Setup
from antiphon.models.llama.gguf import read_facts
from antiphon.models.llama.tokenizer_client import Door

#: Small batches, so that a call can be stopped between them during prefill.
_BATCH = 256


class _Mouth:
    """Where frames go: what was standard output before llama.cpp could print to it."""

    def __init__(self, folder: str = "") -> None:
        self._folder = folder
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
                _leave(self._folder)


def _load(wish: Wish, window: int) -> tuple[Server, Door | None]:
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
        behind_a_key: Server = xllamacpp.Server(params)
        return behind_a_key, None
    # The server insists on a door. It gets one in a private folder, for this process alone.
    # A socket's path may be 100 bytes long; a relative one always fits.
    os.chdir(wish.folder)
    door = Door()
    params.hostnames = [door.path]
    server: Server = xllamacpp.Server(params)
    return server, door


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _serve(wish: Wish, mouth: _Mouth) -> None:
    path = Path(wish.path)
    try:
        facts = read_facts(path)
        window = min(wish.context, facts.context_length or wish.context)
        server, door = _load(wish, window)
    except AntiphonError as error:
        mouth.say(Broken(error.message))
        return
    except ImportError:
        mouth.say(Broken("The runtime is not installed; 'pip install antiphon[llama]' brings it."))
        return
    except RuntimeError:
        mouth.say(Broken(f"llama.cpp could not load {path.name}."))
        return
    setup = Setup(Markup(facts.control_tokens), window, wish.slots, wish.primer.encode())
    answerer = Answerer(server, door, setup, mouth.say)
    mouth.say(Ready(window))
    splitter = FrameSplitter()
    while data := os.read(0, 1 << 16):
        for body in splitter.feed(data):
            answerer.take(decode_down(body))


def _leave(folder: str) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    # llama.cpp's threads may be at work; an orderly exit under them would crash.
    os._exit(0)


def main() -> None:
    """Serve until standard input ends. The argument is a ``Wish`` as JSON."""
    # Ctrl-C in a terminal is for the parent, which decides what stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wish = msgspec.json.decode(sys.argv[1], type=Wish)
    # A polite kill ends the process as its pipe's end does.
    signal.signal(signal.SIGTERM, lambda *_: _leave(wish.folder))
    _serve(wish, _Mouth(wish.folder))
    _leave(wish.folder)


if __name__ == "__main__":
    main()
