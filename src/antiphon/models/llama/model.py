"""Embedded model: a GGUF file run by llama.cpp in a worker process of its own.

llama.cpp aborts on unexpected input, and any user may bring any GGUF. In a worker process
that costs the turns that are running, never the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from antiphon.core.deltas import Delta
from antiphon.core.turns import Options
from antiphon.errors import ModelUnavailableError
from antiphon.models.llama.frame_protocol import LoadRequest
from antiphon.models.llama.sampling import sampling_fields
from antiphon.models.llama.worker_supervisor import LlamaProcess
from antiphon.models.unpassed_fields import UnpassedFields
from antiphon.turn.protocols import ModelCall, ModelInfo, Token


class LlamaModel:
    """A GGUF file as a ``Model``.

    ``slots`` calls run at once and further ones wait in order; each sees ``context_window``
    tokens, or as many as the model was trained on if that is less, which ``info`` says once the
    file has been loaded. ``cache_mib`` bounds
    the prompt cache of earlier conversations, so that their next turn costs its new tokens
    only. ``defaults`` stand in for the temperature and top_p that a call leaves open, and
    for the limit of an answer in words.

    Without a ``path`` every call fails and says how to get the weights.
    The file is loaded on first use, or by ``warm``. If its process dies, the calls that
    were running fail with ``model_crashed`` and the next one starts another process.
    """

    def __init__(  # noqa: PLR0913 - keyword options with defaults
        self,
        info: ModelInfo,
        path: Path | None,
        *,
        slots: int = 2,
        context_window: int = 8192,
        cache_mib: int = 512,
        defaults: Options | None = None,
    ) -> None:
        window = min(context_window, info.context_window or context_window)
        self._info = msgspec.structs.replace(info, context_window=window)
        self._load_request = (
            _build_load_request(info, path, slots, context_window, cache_mib) if path else None
        )
        self._defaults = defaults or Options()
        self._unpassed_fields = UnpassedFields(info.name)
        self._process_task: asyncio.Task[LlamaProcess] | None = None
        self._closed = False

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def state(self) -> Literal["idle", "loading", "ready"]:
        """Whether the model is in memory, for a progress display."""
        if self._process_task is None or _has_ended(self._process_task):
            return "idle"
        return "ready" if self._process_task.done() else "loading"

    @property
    def pid(self) -> int | None:
        """The worker's process id, None while there is none."""
        return (
            self._process_task.result().pid
            if self._process_task and self.state == "ready"
            else None
        )

    async def warm(self) -> None:
        """Load the model now. Raises ``ModelUnavailableError`` if it cannot be loaded."""
        await self._get_process()

    async def generate(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        """Continue a context. Raises what ``Model.generate`` may, and nothing else.

        With tools, one of them may be called instead. The usage is what all stages of that
        cost: the choice of a tool has a prompt of its own.
        """
        if call.options.extra:
            self._unpassed_fields.report(sampling_fields(call.options.extra)[1])
        process = await self._get_process()
        stream = process.start_generation(call.messages, self._with_defaults(call.options))
        try:
            while deltas := await stream.read():
                yield deltas
        finally:
            process.cancel(stream)

    async def count_tokens(self, call: ModelCall) -> int | None:
        """The tokens of a context, as ``generate`` shows it; loads the model if need be.

        Choosing a tool, and writing its arguments, has other prompts, which do not count.
        None on Windows. Raises what ``generate`` may, but no context is too long to count
        unless it is absurd.
        """
        return await (await self._get_process()).count_tokens(call.messages)

    async def tokenize(self, model: str, text: str) -> tuple[Token, ...] | None:
        """The tokens of a text by itself; loads the model if need be. None on Windows.

        Raises what ``generate`` may.
        """
        return await (await self._get_process()).tokenize(text)

    async def close(self) -> None:
        """Stop all calls and end the worker; safe to call twice."""
        self._closed = True
        start_task, self._process_task = self._process_task, None
        if start_task is None or _has_ended(start_task):
            return
        if not start_task.done():
            start_task.cancel()
            await asyncio.wait({start_task})
        else:
            await start_task.result().stop()

    def _with_defaults(self, options: Options) -> Options:
        defaults = self._defaults
        return msgspec.structs.replace(
            options,
            temperature=_value_or_default(options.temperature, defaults.temperature),
            top_p=_value_or_default(options.top_p, defaults.top_p),
            max_output_tokens=options.max_output_tokens
            or (None if options.text_format else defaults.max_output_tokens),
            extra={**defaults.extra, **options.extra},
        )

    async def _get_process(self) -> LlamaProcess:
        """The running worker; calls that come while it loads wait for the same one."""
        if self._closed:
            raise ModelUnavailableError(f"The model '{self._info.name}' was shut down.")
        if self._load_request is None:
            raise ModelUnavailableError(
                f"The weights of the model '{self._info.name}' are not on this machine; "
                "'antiphon model pull' fetches them."
            )
        if self._process_task is None or _has_ended(self._process_task):
            self._process_task = asyncio.create_task(
                LlamaProcess.start(self._info.name, self._load_request)
            )
        start_task = self._process_task
        # A cancelled caller does not stop the load: others wait for it, or will.
        await asyncio.wait({start_task})
        if start_task.cancelled():
            raise ModelUnavailableError(f"The model '{self._info.name}' was shut down.")
        if error := start_task.exception():
            # Each caller gets an error object of its own: handlers above modify it.
            raise ModelUnavailableError(str(error)) from error
        process = start_task.result()
        if process.window not in (None, self._info.context_window):
            self._info = msgspec.structs.replace(self._info, context_window=process.window)
        return process


def _build_load_request(
    info: ModelInfo, path: Path, slots: int, context: int, cache_mib: int
) -> LoadRequest:
    return LoadRequest(
        str(path.absolute()), slots, context, cache_mib, few_shot=info.few_shot.decode()
    )


def _value_or_default(value: float | None, default: float | None) -> float | None:
    return default if value is None else value


def _has_ended(start_task: asyncio.Task[LlamaProcess]) -> bool:
    """Whether the start failed, or the process that it started has ended."""
    if start_task.get_loop().is_closed():
        return True
    if not start_task.done():
        return False
    if start_task.cancelled() or start_task.exception() is not None:
        return True
    return not start_task.result().is_alive
