"""Connection limits: how much, and for how long, the servers read from their clients.

Their defaults are far above what clients send, and below what makes a server full of slow clients
useless to others.
"""

from __future__ import annotations

from typing import Annotated

import msgspec


class ConnectionLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of the connections to the server; times are in seconds.

    ``header_timeout`` is for a whole header, ``body_timeout`` for any progress of a body.
    ``max_connections_without_key`` counts the connections on which no request was admitted yet:
    beyond it the oldest of them is closed.
    """

    max_header_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 64 * 1024
    max_headers: Annotated[int, msgspec.Meta(ge=8)] = 100
    header_timeout: Annotated[float, msgspec.Meta(gt=0)] = 20.0
    body_timeout: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    max_connections: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    max_connections_without_key: Annotated[int, msgspec.Meta(ge=1)] = 1_000
