"""Names: what the tools of MCP servers are called where models see them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container

from antiphon.core.mcp_servers import JOINT

_STRANGE = re.compile(r"[^a-zA-Z0-9_-]")
#: What models take.
_MOST = 64


def prefix_of(label: str) -> str:
    """How all names of a server's tools begin: as long as the label and ``__``."""
    return _STRANGE.sub("_", label) + JOINT


def name_of(label: str, tool: str, taken: Container[str] = ()) -> str:
    """``<label>__<tool>``, of at most 64 letters of a-z, A-Z, 0-9, _ and -.

    A tool whose own name had to be changed, or is ``taken``, is told apart by a hash of
    what it is called. So a name means the same tool tomorrow, whatever else the server
    lists then: a person may have agreed to a call by its name.
    """
    plain = prefix_of(label) + _STRANGE.sub("_", tool)
    if len(plain) <= _MOST and plain == f"{label}{JOINT}{tool}" and plain not in taken:
        return plain
    mark = "_" + hashlib.sha256(f"{label}\0{tool}".encode("utf-8", "replace")).hexdigest()[:8]
    return plain[: _MOST - len(mark)] + mark
