"""gRPC interceptor: request id, authorization, rate limits, errors as statuses, metrics, access
log.

Errors become gRPC statuses, with their code, type and param in the trailing metadata. Each call is
counted once, as ``CANCELLED`` where the client left before its end.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import grpc

from antiphon.api.common.access_log import access_logger, request_id_for
from antiphon.api.common.authorization import Authorizer, Principal, check_single_headers
from antiphon.api.common.metrics import Metrics
from antiphon.errors import AntiphonError
from antiphon.logging_setup import request_id

log = logging.getLogger("antiphon.api.grpc")

Trailers: TypeAlias = list[tuple[str, str]]

#: Codes of what xAI's API tells in three words, whatever the request named the response for.
_MISSING_RESPONSE: Final = {"response_not_found", "previous_response_not_found"}
#: Bytes. A client gives up on headers beyond 8 KiB, and a byte may take three there.
_MAX_DETAILS_BYTES = 1500
_MAX_VALUE_LENGTH = 200


class RequestInterceptor:
    """gRPC interceptor: request id, authorization, errors as statuses, metrics, access log."""

    def __init__(
        self,
        authorizer: Authorizer,
        metrics: Metrics,
    ) -> None:
        self._authorizer = authorizer
        self._metrics = metrics

    async def intercept(
        self,
        path: str,
        context: Any,
        work: Callable[[Principal], Awaitable[bytes]],
        *,
        known_path: bool = True,
    ) -> bytes:
        """Run a call's handler, or abort the call with the status of its error.

        ``known_path``: the path is one of ours, so it may be a metrics label.
        """
        began = time.perf_counter()
        given = _metadata(context)
        metadata = dict(given)
        name = request_id_for(metadata.get(b"x-request-id"))
        request_id.set(name)
        trailers: Trailers = [("x-request-id", name)]
        status, tenant = "CANCELLED", "-"
        try:
            check_single_headers(given, metadata)
            caller = await self._authorize(metadata, trailers)
            tenant = caller.tenant or tenant
            answer = await work(caller)
            status = "OK"
            context.set_trailing_metadata(tuple(trailers))
        except AntiphonError as error:
            failure, status = error, error.grpc
        except asyncio.CancelledError:
            # The client is gone, or its deadline has passed.
            raise
        except Exception:
            log.exception("%s failed", path)
            failure = AntiphonError("The server failed on this request.")
            status = failure.grpc
        else:
            return answer
        finally:
            seconds = time.perf_counter() - began
            self._metrics.observe_call(path if known_path else None, status, seconds)
            if access_logger.isEnabledFor(logging.INFO):
                _log_access(path, status, seconds, tenant)
        await context.abort(
            grpc.StatusCode[failure.grpc],
            error_details(failure),
            (*trailers, *error_trailers(failure)),
        )
        raise AssertionError("abort raises")

    async def _authorize(self, metadata: Mapping[bytes, bytes], trailers: Trailers) -> Principal:
        """Admit a call; ``trailers`` get the headers of its rate limit."""
        return await self._authorizer.authorize(
            metadata,
            # Only a web page sends an origin. Its browser does not speak gRPC, but could be
            # made to send something that looks like it.
            local_headers=[one for one in metadata.items() if one[0] == b"origin"],
            add_header=lambda name, value: trailers.append((name.decode(), value.decode())),
        )


def error_details(error: AntiphonError) -> str:
    """An error's sentence, cut to what fits; xAI's own where its clients may compare it."""
    if error.code in _MISSING_RESPONSE:
        return "Response not found"
    whole = error.message.encode(errors="replace")
    if len(whole) <= _MAX_DETAILS_BYTES:
        return whole.decode()
    return whole[:_MAX_DETAILS_BYTES].decode(errors="ignore") + "..."


def error_trailers(error: AntiphonError) -> Trailers:
    """What programs may want to know of an error, besides its status."""
    trailers = [("x-error-code", error.code), ("x-error-type", error.type)]
    if error.param is not None:
        trailers.append(("x-error-param", error.param))
    if error.response_id is not None:
        # The turn is kept, as failed: to repeat it by itself is not the client's to do.
        trailers += [("x-response-id", error.response_id), ("grpc-retry-pushback-ms", "-1")]
    if error.retry_after is not None:
        trailers.append(("retry-after", str(max(1, math.ceil(error.retry_after)))))
    return [(name, ascii(value)[1:-1][:_MAX_VALUE_LENGTH]) for name, value in trailers]


def _metadata(context: Any) -> list[tuple[bytes, bytes]]:
    return [
        (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in context.invocation_metadata() or ()
    ]


def _log_access(path: str, status: str, seconds: float, tenant: str) -> None:
    fields = {
        "method": "gRPC",
        "path": ascii(path)[1:-1][:_MAX_VALUE_LENGTH],
        "status": status,
        "ms": round(seconds * 1000, 1),
        "tenant": tenant,
    }
    access_logger.info(
        "%(method)s %(path)s %(status)s %(ms).1fms %(tenant)s", fields, extra={"fields": fields}
    )
