"""Unpassed fields: logs, once each, fields of requests that a model's API has no place for."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

log = logging.getLogger("antiphon")

#: How many names are remembered: they are the clients' choice.
_MAX_NAMES: Final = 100
_LONGEST_NAME: Final = 64


class UnpassedFields:
    """The fields that one model was sent and could not be passed."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._names: set[str] = set()

    def report(self, names: Iterable[str]) -> None:
        """Log those names that were not logged before."""
        for name in names:
            short = name[:_LONGEST_NAME]
            if short not in self._names and len(self._names) < _MAX_NAMES:
                self._names.add(short)
                log.warning("the model %s takes no field %r: it is left out", self._model, short)
