"""What every call passes before it gets to its method, and what becomes of its errors.

1. A name: the client's ``x-request-id`` or a new one, in the trailing metadata and the log.
2. Who may: without keys this machine only, with keys whoever has one.
3. How much: the same accounts as over HTTP.

Errors become gRPC's statuses, with their code, type and param in the trailing metadata. Each
call is counted once, as ``CANCELLED`` where nobody waited for its end.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, TypeAlias

import grpc
import msgspec

from antiphon.api.common.access_log import access, request_id_for
from antiphon.api.common.authentication import Keyring, credential_of
from antiphon.api.common.local_only import check_local
from antiphon.api.common.metrics import Metrics
from antiphon.api.common.rate_limits import Account, Limiter, Place
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import AntiphonError, RateLimitError, UpstreamRateLimitError
from antiphon.logging_setup import request_id
from antiphon.turn.store_protocols import ApiKey

log = logging.getLogger("antiphon.api.grpc")

Trailers: TypeAlias = list[tuple[str, str]]

#: Codes of what xAI's API tells in three words, whatever the request named the response for.
_MISSING_RESPONSE: Final = {"response_not_found", "previous_response_not_found"}
#: Bytes. A client gives up on headers beyond 8 KiB, and a byte may take three there.
_LONGEST_DETAILS = 1500
_LONGEST_VALUE = 200


class Caller(msgspec.Struct, frozen=True):
    """Who calls. ``key`` None: there are no keys; ``account`` None: there are no limits."""

    tenant: str = DEFAULT_TENANT
    key: ApiKey | None = None
    account: Account | None = None
    credential: bytes = b""

    def place(self) -> AbstractContextManager[None]:
        """A place for one turn. To enter it raises ``RateLimitError``."""
        return nullcontext() if self.account is None else Place(self.account)


class Door:
    """Stands before the methods. ``limiter`` None: there are no limits."""

    def __init__(self, keyring: Keyring, metrics: Metrics, limiter: Limiter | None = None) -> None:
        self._keyring = keyring
        self._metrics = metrics
        self._limiter = limiter

    async def run(
        self,
        path: str,
        context: Any,
        work: Callable[[Caller], Awaitable[bytes]],
        *,
        known: bool = True,
    ) -> bytes:
        """Do a call's work, or end it with the status that fits.

        ``known``: the path is one of ours, so it may be counted by its name.
        """
        began = time.perf_counter()
        metadata = _metadata(context)
        name = request_id_for(metadata.get(b"x-request-id"))
        request_id.set(name)
        trailers: Trailers = [("x-request-id", name)]
        status, tenant = "CANCELLED", "-"
        try:
            caller = await self._admit(metadata, trailers)
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
            self._metrics.call(path if known else None, status, seconds)
            if access.isEnabledFor(logging.INFO):
                _log_access(path, status, seconds, tenant)
        await context.abort(
            grpc.StatusCode[failure.grpc], details_of(failure), (*trailers, *trailers_of(failure))
        )
        raise AssertionError("abort raises")

    async def _admit(self, metadata: Mapping[bytes, bytes], trailers: Trailers) -> Caller:
        """Let a call in, or raise why not; ``trailers`` get what its answer shall carry."""
        credential, key = credential_of(metadata), None
        if await self._keyring.in_force(credential):
            key = await self._keyring.key(credential)
        else:
            # Only a web page says where it comes from. Its browser knows no gRPC, but
            # could be made to send something that looks like it.
            check_local({"headers": [one for one in metadata.items() if one[0] == b"origin"]})
        account = None
        if self._limiter is not None:
            account = self._limiter.account(key)
            try:
                account.spend()
            finally:
                trailers += [(one.decode(), two.decode()) for one, two in account.headers()]
        return Caller(key.tenant if key else DEFAULT_TENANT, key, account, credential)


def details_of(error: AntiphonError) -> str:
    """An error's sentence, cut to what fits; xAI's own where its clients may compare it."""
    if error.code in _MISSING_RESPONSE:
        return "Response not found"
    whole = error.message.encode(errors="replace")
    if len(whole) <= _LONGEST_DETAILS:
        return whole.decode()
    return whole[:_LONGEST_DETAILS].decode(errors="ignore") + "..."


def trailers_of(error: AntiphonError) -> Trailers:
    """What programs may want to know of an error, besides its status."""
    trailers = [("x-error-code", error.code), ("x-error-type", error.type)]
    if error.param is not None:
        trailers.append(("x-error-param", error.param))
    if error.response_id is not None:
        # The turn is kept, as failed: to repeat it by itself is not the client's to do.
        trailers += [("x-response-id", error.response_id), ("grpc-retry-pushback-ms", "-1")]
    if isinstance(error, UpstreamRateLimitError | RateLimitError) and error.retry_after is not None:
        trailers.append(("retry-after", str(max(1, math.ceil(error.retry_after)))))
    return [(name, ascii(value)[1:-1][:_LONGEST_VALUE]) for name, value in trailers]


def _metadata(context: Any) -> dict[bytes, bytes]:
    return {
        name.encode(): value if isinstance(value, bytes) else value.encode()
        for name, value in context.invocation_metadata() or ()
    }


def _log_access(path: str, status: str, seconds: float, tenant: str) -> None:
    fields = {
        "method": "gRPC",
        "path": ascii(path)[1:-1][:_LONGEST_VALUE],
        "status": status,
        "ms": round(seconds * 1000, 1),
        "tenant": tenant,
    }
    access.info(
        "%(method)s %(path)s %(status)s %(ms).1fms %(tenant)s", fields, extra={"fields": fields}
    )
