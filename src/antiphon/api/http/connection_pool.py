"""Connection pool: the HTTP connections of one server, of which it closes some that wait."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from antiphon.core.connection_limits import ConnectionLimits

#: Seconds during which a new connection is not closed for another: it has had no time to ask.
_MIN_AGE: Final = 1.0


class PooledConnection(Protocol):
    """A connection: how long it exists, whether it waits, and how it is closed."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    #: Seconds for which it may wait for its next request.
    timeout_keep_alive: int

    def age(self) -> float: ...

    def is_waiting(self) -> bool: ...

    def timeout_keep_alive_handler(self) -> None: ...


class ConnectionPool:
    """The HTTP connections of one server: closes some that wait, where there are too many.

    First those on which no request was admitted, and the oldest first.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._unadmitted: dict[PooledConnection, None] = {}
        self._admitted: dict[PooledConnection, None] = {}
        #: Since when each waits for its next request, the longest first; and when that is looked
        #: at next: a timer for each answer would cost as much as decoding its request.
        self._idle: dict[PooledConnection, float] = {}
        self._idle_timer: asyncio.TimerHandle | None = None

    def add(self, new: PooledConnection, total: int) -> bool:
        """Add a connection, the ``total``-th of all. False: there is no room for it."""
        limits = self.limits
        excess = len(self._unadmitted) + 1 - limits.max_connections_without_key
        if excess > 0:
            total -= _close_waiting(self._unadmitted, excess, _MIN_AGE)
        if total > limits.max_connections:
            # Some more than necessary, so that not each new connection looks through all.
            excess = total - limits.max_connections + limits.max_connections // 64
            closed = _close_waiting(self._unadmitted, excess, 0.0)
            closed += _close_waiting(self._admitted, excess - closed, 0.0)
            if total - closed > limits.max_connections:
                return False
        self._unadmitted[new] = None
        return True

    def admit(self, connection: PooledConnection) -> None:
        """A request on a connection was admitted."""
        self.discard(connection)
        self._admitted[connection] = None

    def discard(self, connection: PooledConnection) -> None:
        """Remove a connection that is closed."""
        self._unadmitted.pop(connection, None)
        self._admitted.pop(connection, None)
        self._idle.pop(connection, None)

    def set_idle(self, connection: PooledConnection) -> None:
        """A connection waits for its next request: it is closed if none comes in time."""
        loop = connection.loop
        self._idle[connection] = loop.time()
        if self._idle_timer is None:
            timeout = connection.timeout_keep_alive
            self._idle_timer = loop.call_later(timeout, self._close_idle, loop, timeout)

    def set_busy(self, connection: PooledConnection) -> None:
        """Something came on a connection."""
        self._idle.pop(connection, None)

    def _close_idle(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self._idle_timer = None
        due = loop.time() - timeout
        for connection, since in list(self._idle.items()):
            if since > due:
                self._idle_timer = loop.call_at(since + timeout, self._close_idle, loop, timeout)
                return
            del self._idle[connection]
            connection.timeout_keep_alive_handler()


def _close_waiting(connections: dict[PooledConnection, None], count: int, min_age: float) -> int:
    """Close the oldest that wait, at most ``count`` of them; how many were closed."""
    closed: list[PooledConnection] = []
    for one in connections:
        if len(closed) >= count or one.age() < min_age:
            break
        if one.is_waiting():
            closed.append(one)
    for one in closed:
        del connections[one]
        one.transport.abort()
    return len(closed)
