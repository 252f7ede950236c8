"""SDK package: makes ``xai_sdk`` importable without its clients, which take 0.2 s to load.

Its messages need nothing of them. They are loaded when something of the package is used that is no
message: whoever imports the SDK beside antiphon notices nothing.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGE = "xai_sdk"


class _PackageWithoutClients(ModuleType):
    """The package as it is before its own code has run, which runs for the first missing name."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self._lock = threading.RLock()
        self._has_run = False

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            if not self._has_run and not name.startswith("__"):
                self._has_run = True
                assert self.__spec__ is not None
                assert self.__spec__.loader is not None
                self.__spec__.loader.exec_module(self)
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}") from None


def add_sdk_package() -> None:
    """Have ``xai_sdk.proto`` load by itself. Raises ``ModuleNotFoundError``."""
    if _PACKAGE in sys.modules:
        return
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {_PACKAGE!r}", name=_PACKAGE)
    package = _PackageWithoutClients(spec)
    for name, value in vars(importlib.util.module_from_spec(spec)).items():
        setattr(package, name, value)
    sys.modules[_PACKAGE] = package
