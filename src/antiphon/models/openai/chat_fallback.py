"""Chat fallback: a Responses API model that uses chat completions where the endpoint needs it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

from antiphon.core.deltas import Delta
from antiphon.errors import ModelError
from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.openai.responses import ResponsesModel
from antiphon.models.openai.upstream_errors import ENDPOINT_MISSING
from antiphon.turn.protocols import ModelCall, ModelInfo

log: Final = logging.getLogger("antiphon.models")


class ResponsesOrChatModel(ResponsesModel):
    """One endpoint, by the Responses API if it has that; arguments as ``UpstreamModel``.

    An endpoint that has no Responses API is called by chat completions from then on. A call
    with options that only chat completions have is, too.
    """

    def __init__(
        self, info: ModelInfo, base_url: str, api_key: str | None = None, **options: Any
    ) -> None:
        super().__init__(info, base_url, api_key, **options)
        self._chat = ChatCompletionsModel(info, base_url, api_key, **options)
        #: Whether the endpoint has turned out to have chat completions only.
        self._is_chat = False

    async def generate(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        if not (self._is_chat or _needs_chat(call)):
            try:
                async with aclosing(super().generate(call)) as batches:
                    async for batch in batches:
                        yield batch
                return
            except ModelError as error:
                if error.code != ENDPOINT_MISSING:
                    raise
                missing = error
            async with aclosing(self._chat.generate(call)) as batches:
                async for batch in batches:
                    self._remember(missing)
                    yield batch
            return
        async with aclosing(self._chat.generate(call)) as batches:
            async for batch in batches:
                yield batch

    async def close(self) -> None:
        await super().close()
        await self._chat.close()

    def _remember(self, missing: ModelError) -> None:
        if not self._is_chat:
            self._is_chat = True
            log.warning(
                "%s has no Responses API, so chat completions are used: %s",
                *(self.where, missing.message),
            )


def _needs_chat(call: ModelCall) -> bool:
    options = call.options
    return bool(options.stop or options.seed is not None) and not options.hosted_tools
