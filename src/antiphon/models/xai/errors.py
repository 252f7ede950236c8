"""What goes wrong with a gRPC call, in the words of our error tree. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from antiphon.models.openai.upstream_errors import Translator
from antiphon.models.retry import Failure, retry_after

_Status = grpc.StatusCode

#: What HTTP status a gRPC status is as good as; all others are 500.
_STATUSES = {
    _Status.INVALID_ARGUMENT: 400,
    _Status.OUT_OF_RANGE: 400,
    _Status.FAILED_PRECONDITION: 400,
    _Status.ALREADY_EXISTS: 400,
    _Status.UNAUTHENTICATED: 401,
    _Status.PERMISSION_DENIED: 403,
    _Status.NOT_FOUND: 404,
    _Status.UNIMPLEMENTED: 405,
    _Status.RESOURCE_EXHAUSTED: 429,
    _Status.UNAVAILABLE: 503,
    _Status.DEADLINE_EXCEEDED: 504,
}
_TOO_BIG = "message larger than max"
#: The milliseconds that a server asks a client to wait, by gRPC's own rules; below 0: for ever.
_PUSHBACK = "grpc-retry-pushback-ms"


def failure_of(raised: grpc.aio.AioRpcError, errors: Translator, now: float) -> Failure:
    """The failure behind a call that ended with an error. ``now``: seconds since 1970."""
    status = raised.code()
    trailers = _texts(raised.trailing_metadata())
    pause = retry_after(trailers, now)
    pushback = _pushback(trailers)
    if pushback is not None and pushback >= 0:
        pause = max(pause or 0.0, pushback)
    details = raised.details() or ""
    # gRPC has no other status for a message that is too big.
    code = 413 if _TOO_BIG in details else _STATUSES.get(status, 500)
    failure = errors.refused(
        code,
        f"answered {status.name}",
        details,
        code=trailers.get("x-error-code", ""),
        param=trailers.get("x-error-param", ""),
        pause=pause,
    )
    if pushback is not None and pushback < 0:
        # The server does not want to be asked again.
        failure.transient = False
    return failure


def _texts(metadata: grpc.aio.Metadata | None) -> Mapping[str, str]:
    """Metadata by name, with the name of the one header that is looked up as HTTP has it."""
    texts = {name: value for name, value in metadata or () if isinstance(value, str)}
    if "retry-after" in texts:
        texts["Retry-After"] = texts["retry-after"]
    return texts


def _pushback(trailers: Mapping[str, str]) -> float | None:
    """In seconds; None: nothing is said."""
    try:
        return int(trailers[_PUSHBACK]) / 1000
    except (KeyError, ValueError):
        return None
