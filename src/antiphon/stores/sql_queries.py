"""SQL queries: the blocks of a ``.sql`` file by name.

Each is headed by ``-- name: its_name``, which is the format of aiosql; comments are left out.
"""

from __future__ import annotations

from typing import Final

_NAME_PREFIX: Final = "-- name: "


def parse_queries(text: str) -> dict[str, str]:
    """The queries of a file by name, without comments. ValueError: a name comes twice."""
    queries: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(_NAME_PREFIX):
            name = line.removeprefix(_NAME_PREFIX).strip()
            if name in queries:
                raise ValueError(f"two queries are named {name!r}")
            lines = queries[name] = []
        elif line.strip() and not line.lstrip().startswith("--"):
            lines.append(line)
    return {name: "\n".join(body) for name, body in queries.items()}
