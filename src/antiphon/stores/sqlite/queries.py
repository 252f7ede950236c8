"""Named queries: a ``.sql`` file holds blocks, each headed by ``-- name: its_name``.

A query takes its values in order, as ``?`` and a tuple: that is the fastest. One that needs a
value twice takes all of them by name, as ``:name`` and a dict. Not as ``?1``, of which
Python 3.12.0 to 3.12.3 warn.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

_MARK = "-- name: "


def read_sql(path: str) -> str:
    """The text of a ``.sql`` file of this package; ``path`` is relative to it."""
    return resources.files(__package__).joinpath(path).read_text(encoding="utf-8")


def named(text: str) -> dict[str, str]:
    """The queries of a file by name, without comments. ValueError: a name comes twice."""
    queries: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(_MARK):
            name = line.removeprefix(_MARK).strip()
            if name in queries:
                raise ValueError(f"two queries are named {name!r}")
            lines = queries[name] = []
        elif line.strip() and not line.lstrip().startswith("--"):
            lines.append(line)
    return {name: "\n".join(body) for name, body in queries.items()}


#: Those of turns.
SQL: Final = named(read_sql("turns.sql"))
