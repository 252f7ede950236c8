"""Which model answers to which name. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from antiphon.errors import InvalidRequest, ModelNotFound
from antiphon.turn.ports import Model


class Catalog:
    """The configured models by name, a default, and perhaps an upstream for the rest."""

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        default: str | None = None,
        catch_all: Model | None = None,
    ) -> None:
        self._models = dict(models)
        self._default = default
        self._catch_all = catch_all

    def get(self, name: str | None) -> tuple[str, Model]:
        """A model and the name it is called by; None is the default one.

        Raises ``ModelNotFound``, or ``InvalidRequest`` if none is named and none is
        the default.
        """
        wanted = name or self._default
        if wanted is None:
            raise InvalidRequest(
                "Name a model: this server has no default one.",
                code="missing_required_parameter",
                param="model",
            )
        model = self._models.get(wanted, self._catch_all)
        if model is None:
            raise ModelNotFound(f"The model '{wanted}' does not exist here.", param="model")
        return wanted, model

    def names(self) -> list[tuple[str, Model]]:
        """The models that can be listed, the default first."""
        listed = dict(self._models)
        first = self._models.get(self._default or "", self._catch_all)
        if self._default is not None and first is not None:
            listed = {self._default: first, **listed}
        return list(listed.items())

    def all(self) -> list[Model]:
        """Every model once, to be closed."""
        models = [*self._models.values(), *([self._catch_all] if self._catch_all else [])]
        return list(dict.fromkeys(models))
