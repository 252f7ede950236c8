"""Model fallback: other models answer where one cannot be reached or is over its limits."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from antiphon.core.deltas import AnsweringModel, Delta
from antiphon.errors import (
    AntiphonError,
    ModelError,
    ModelTimeoutError,
    ModelUnavailableError,
    UpstreamRateLimitError,
)
from antiphon.turn.protocols import Model, ModelCall, ModelInfo, Token, Tokenizer

log = logging.getLogger("antiphon")

#: Failures of the upstream itself. Others, such as a wrong key, are for a person to see.
_UPSTREAM_CODES = frozenset(
    {ModelError.default_code, "upstream_disconnected", "upstream_payment_required"}
)


def is_fallback_error(error: AntiphonError) -> bool:
    """Whether another model may answer where one fails so before its first word. Pure."""
    if isinstance(error, ModelUnavailableError | ModelTimeoutError | UpstreamRateLimitError):
        return True
    return type(error) is ModelError and error.code in _UPSTREAM_CODES


class FallbackModel:
    """A model and those that answer in its place, in order, each under its name.

    Once one has said something, its failure is the turn's. A fallback's own fallbacks are not
    asked. The models are closed by whoever made them, but for the first.
    """

    def __init__(self, models: Sequence[tuple[str, Model]]) -> None:
        self._models = tuple(models)
        #: The model that is asked first.
        self.first = models[0][1]

    @property
    def info(self) -> ModelInfo:
        return self.first.info

    async def generate(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        """The answer of the first model that gives one; whose it is comes before its words.

        Where none does, the last failure is raised, and its message names those before it.
        """
        failures: list[str] = []
        for position, (name, model) in enumerate(self._models):
            is_last = position == len(self._models) - 1
            own = call if position == 0 else msgspec.structs.replace(call, model=name)
            has_output = False
            try:
                async with aclosing(model.generate(own)) as batches:
                    async for batch in batches:
                        if position and not has_output:
                            yield [AnsweringModel(name)]
                        has_output = True
                        yield batch
            except AntiphonError as error:
                if has_output:
                    raise
                if is_last or not is_fallback_error(error):
                    error.message = " ".join((error.message, *failures))
                    error.args = (error.message,)
                    raise
                failures.append(f"Before that '{name}' failed: {error.message}")
                other = self._models[position + 1][0]
                log.warning("%s is asked in place of %s: %s", other, name, error.message)
            else:
                return

    async def count_tokens(self, call: ModelCall) -> int | None:
        """By the first model's tokenizer."""
        return await self.first.count_tokens(call)

    async def tokenize(self, model: str, text: str) -> Sequence[Token] | None:
        """The first model's tokens."""
        return await self.first.tokenize(model, text) if isinstance(self.first, Tokenizer) else None

    async def close(self) -> None:
        """Close the first model."""
        await self.first.close()
