"""Model registry: maps model names to models, with a default and a fallback upstream. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

from antiphon.errors import InvalidRequestError, ModelNotFoundError
from antiphon.turn.protocols import Model

#: How many names an error lists, and how much of an unknown one it repeats, in characters.
_MAX_LISTED = 20
_MAX_NAME_LENGTH = 200


class ModelRegistry:
    """Routes a model name to a model: configured ones first, then the fallback upstream."""

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        default: str | None = None,
        fallback: Model | None = None,
    ) -> None:
        self._models = dict(models)
        self.default = default
        self.catch_all = fallback
        #: The error message for a request without a model name, while there is no default.
        self.undecided = "Name a model: this server has no default one."

    def choose(self, name: str) -> None:
        """Set the default model."""
        self.default = name

    def get(self, name: str | None) -> tuple[str, Model]:
        """A model and its name; ``name`` None is the default model.

        Raises ``ModelNotFoundError``, or ``InvalidRequestError`` if none is named and none is
        the default.
        """
        wanted = name or self.default
        if wanted is None:
            raise InvalidRequestError(
                self.undecided,
                code="missing_required_parameter",
                param="model",
            )
        model = self._models.get(wanted, self.catch_all)
        if model is None:
            there = ", ".join([f"'{one}'" for one, _ in self.items()][:_MAX_LISTED])
            raise ModelNotFoundError(
                f"The model '{wanted[:_MAX_NAME_LENGTH]}' does not exist here: there is"
                f" {there or 'none'}.",
                param="model",
            )
        return wanted, model

    def items(self) -> list[tuple[str, Model]]:
        """The models to list, the default first."""
        listed = dict(self._models)
        first = self._models.get(self.default or "", self.catch_all)
        if self.default is not None and first is not None:
            listed = {self.default: first, **listed}
        return list(listed.items())

    def all(self) -> list[Model]:
        """Every model once, for closing them."""
        models = [*self._models.values(), *([self.catch_all] if self.catch_all else [])]
        return list(dict.fromkeys(models))
