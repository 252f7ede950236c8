"""The HTTP route table by path, as tests go through it."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from antiphon.api.http.routes import ROUTES


def _methods_by_path() -> dict[str, list[str]]:
    methods = defaultdict(list)
    for route in ROUTES:
        methods[route.path].append(route.method)
    return dict(methods)


#: Methods by the path's template, without HEAD, which each GET has.
METHODS_BY_PATH: Final = _methods_by_path()
