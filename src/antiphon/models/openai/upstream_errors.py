"""Upstream errors: maps exceptions, HTTP statuses and error bodies to our errors. No I/O.

Secrets (the API key, a proxy's password) are redacted from every text of the upstream.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping, Sequence
from functools import cache

from antiphon.core.http_proxies import Proxy
from antiphon.core.secrets import secret_pattern
from antiphon.errors import (
    AntiphonError,
    BodyTooLargeError,
    ContextLengthExceededError,
    InvalidRequestError,
    ModelError,
    ModelNotFoundError,
    ModelTimeoutError,
    ModelUnavailableError,
    UpstreamRateLimitError,
)
from antiphon.models.openai.context_overflow import find_context_overflow
from antiphon.models.openai.provider_errors import ProviderError, parse_provider_error
from antiphon.models.retry import AttemptError, retry_after

#: The error code of a path that the upstream does not have.
ENDPOINT_MISSING = "upstream_not_found"
#: The code for a call that the model itself has written wrongly: it may do better the next time.
TOOL_USE_FAILED = "tool_use_failed"
_INVALID_RESPONSE_CODE = "upstream_invalid_response"
_DISCONNECTED_CODE = "upstream_disconnected"
#: The length limit of an upstream's text in an error message, in characters.
_MAX_MESSAGE_LENGTH = 1000
#: How much of an unreadable answer is quoted, in characters.
_QUOTED = 200
#: The length of a key's prefix that identifies it, in characters.
_KEY_PREFIX_LENGTH = 8

_INVALID_KEY = re.compile(
    r"(incorrect|invalid|malformed|missing|\bno) api[ _]key"
    r"|api[ _]key (is |was )?(not valid|invalid|missing|required)"
    r"|authentication[ _](fails|failed|error)",
    re.IGNORECASE,
)
#: What says that an account is empty, so that no attempt helps; a rate says when to try again.
_EMPTY_ACCOUNT = re.compile(
    r"insufficient_(quota|balance|credits?|funds)|exceeded_current_quota|credit_balance|arrearage"
    r"|overdue|payment required|out of credits?|(requires|need) more credits"
    r"|exceeded your current quota(?!.*(retry|try again))"
    r"|(balance|credits?)\b.{0,30}\b(insufficient|too low|exhausted|empty|used up)"
    r"|insufficient (account )?(balance|credits?|funds)|余额不足|欠费|请充值",
    re.IGNORECASE | re.DOTALL,
)
#: What says that requests come too fast, whatever the status.
_TOO_FAST = re.compile(
    r"throttling|too many requests|rate[ _]limit[ _](reached|exceeded)", re.IGNORECASE
)
#: What says that the model is missing, in a refusal of the request as such.
_MISSING_MODEL = re.compile(
    r"\bmodel\b.{0,80}\b(not found|(does not|doesn't|not) exist|decommissioned)\b"
    r"|\bnot a valid model\b|\bmodel\W+\S{1,80}\W+is not available\b"
    r"|\b(invalid|unknown) model\b(?! (output|response|input|param|type))|_?model_not_(found|exist)"
    r"|\binvalid_model\b|\bmodel_decommissioned\b",
    re.IGNORECASE,
)

#: Statuses below 500 by which servers and gateways say that they cannot answer now: a conflict, a
#: connection or a dependency that is not there, too early, no capacity (Groq), cancelled.
_BUSY_STATUSES = (409, 421, 424, 425, 498, 499)


class Unreadable(AttemptError):
    """A malformed answer, or a malformed piece of one.

    ``data`` is raw: ``ErrorMapper.unreadable`` redacts it before any of it is shown.
    """

    def __init__(self, reason: str, data: bytes, cause: BaseException | None = None) -> None:
        error = ModelError(
            f"The upstream's answer cannot be read: {reason}.", code=_INVALID_RESPONSE_CODE
        )
        error.__cause__ = cause
        super().__init__(error)
        self.data = data


@cache
def client_errors() -> tuple[type[Exception], ...]:
    """All that the HTTP client and the system below it raise.

    ``RuntimeError`` for a connection that was closed on our side. Caught around calls of the client
    alone, because from our own code the last two are bugs and not errors of the upstream.
    """
    import aiohttp  # loaded on first use
    from aiohttp.http import HttpProcessingError  # loaded on first use

    return (aiohttp.ClientError, HttpProcessingError, OSError, ValueError, RuntimeError)


def _sentence(text: str) -> str:
    """A text that another sentence can follow."""
    return text if text.endswith((".", "!", "?", "。")) else f"{text}."


def incomplete_stream() -> AttemptError:
    """The failure for a stream that ended before its answer."""
    text = "The upstream's answer broke off before its end."
    return AttemptError(ModelError(text, code=_DISCONNECTED_CODE), transient=True)


def cut_call(name: str) -> AttemptError:
    """The failure for an answer that ended within the arguments of a call."""
    text = f"The upstream's answer broke off within the arguments of its call of {name!r}."
    return AttemptError(ModelError(text, code=_DISCONNECTED_CODE), transient=True)


#: HTTP statuses by parts of an error's name, in lower case. The first match counts.
_STATUS_BY_ERROR_NAME = [
    (429, "rate_limit"),
    (429, "ratelimit"),
    (429, "too_many_requests"),
    (429, "resource_exhausted"),
    (429, "insufficient_quota"),
    (429, "toomanyrequests"),
    (429, "throttl"),
    (401, "api_key"),
    (401, "authentication"),
    (401, "unauthenticated"),
    (401, "unauthorized"),
    (403, "permission"),
    (404, "model_not_found"),
    # Invalid requests, prompts and images.
    (400, "invalid_"),
    (400, "bad_request"),
    (400, "badrequest"),
    (400, "context"),
    (400, "image"),
    (400, "unsupported"),
    (503, "overloaded"),
    (503, "unavailable"),
    (504, "timeout"),
    (504, "deadline"),
]


class ErrorMapper:
    """Maps errors of one upstream to ``AttemptError``.

    ``upstream`` is its name in messages; ``secret`` is the API key, which is redacted, as are
    the credentials for ``proxy``. ``proxy_may_answer``: a response may be the proxy's own and
    look like one of the upstream.
    """

    def __init__(
        self,
        upstream: str,
        secret: str | None,
        proxy: Proxy | None = None,
        *,
        proxy_may_answer: bool = False,
        other_secrets: Sequence[str] = (),
    ) -> None:
        self._upstream = upstream
        #: The upstream with its proxy, and the name of the one that answers.
        self._route = f"{upstream} (by the proxy {proxy.address})" if proxy else upstream
        self._responder = self._route if proxy_may_answer else upstream
        self._proxy_name = f"The proxy {proxy.address}" if proxy else "The proxy"
        secrets = [*_proxy_secrets(proxy), *other_secrets, secret or ""]
        patterns = []
        if secret and len(secret) > _KEY_PREFIX_LENGTH:
            # Upstreams also quote a key in part, or with its middle masked.
            patterns.append(re.escape(secret[:_KEY_PREFIX_LENGTH]) + r"[^\s\"'<>,;()]*")
        self._secret_pattern = secret_pattern(secrets, patterns)

    def from_exception(self, raised: Exception) -> AttemptError:
        """The failure for an exception that is one of ``client_errors``."""
        import aiohttp  # loaded on first use
        from aiohttp.http import HttpProcessingError  # loaded on first use

        failure = self._map_exception(raised)
        if not isinstance(raised, (aiohttp.ClientResponseError, HttpProcessingError)):
            # Those quote the request's headers or the answer, and with them the key.
            failure.error.__cause__ = raised
        return failure

    def from_response(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> AttemptError:
        """The failure for an HTTP error response. ``now``: seconds since 1970."""
        if 300 <= status < 400:
            target = self._redact(headers.get("Location", "elsewhere"))
            error = ModelError(
                f"{self._responder} redirects to {target};"
                " set that as the base URL if you trust it.",
                code="upstream_redirect",
            )
            return AttemptError(error)
        if status == 407:
            return self._map_proxy_status(status)
        delay = retry_after(headers, now)
        failure = self._map_provider_error(
            status, parse_provider_error(body), f"answered {status}", delay
        )
        if headers.get("x-should-retry") == "false":
            failure.transient = False
        return failure

    def from_error_event(self, event: bytes) -> AttemptError:
        """The failure for an ``error`` object inside a successful response."""
        provider_error = parse_provider_error(event)
        return self._map_provider_error(
            _infer_status(provider_error), provider_error, "broke off with an error", None
        )

    def unreadable(self, failure: Unreadable) -> AttemptError:
        """The same failure, with the beginning of what the upstream sent in its message."""
        quoted = self._quote(failure.data)
        if quoted:
            failure.error.message += f" It begins: {quoted}"
        return failure

    def with_plain_words(self, failure: AttemptError, words: bytes) -> AttemptError:
        """The same failure, with what the upstream sent in place of an event, if it is a text."""
        quoted = self._quote(words)
        if quoted.startswith("<"):
            failure.error.message += " It sent an HTML page."
        elif " " in quoted and not quoted.startswith(":"):
            failure.error.message += f" It sent: {quoted}"
        return failure

    def _quote(self, data: bytes) -> str:
        text = self._redact(data.decode(errors="replace"))
        return text if len(text) <= _QUOTED else text[:_QUOTED] + "…"

    def from_status(  # noqa: PLR0913
        self,
        status: int,
        action: str,
        message: str,
        *,
        code: str,
        param: str,
        retry_after: float | None,
    ) -> AttemptError:
        """The failure for an error of another protocol, by its equivalent HTTP status."""
        return self._map_provider_error(
            status, ProviderError(message, code, param=param), action, retry_after
        )

    def _map_exception(self, raised: Exception) -> AttemptError:
        import aiohttp  # loaded on first use
        from aiohttp.http import HttpProcessingError  # loaded on first use

        route, reason = self._route, self._redact(str(raised) or type(raised).__name__)
        error: AntiphonError
        transient = immediate = False
        match raised:
            case aiohttp.ClientHttpProxyError():
                return self._map_proxy_status(raised.status)
            case aiohttp.ClientProxyConnectionError():
                reason = self._redact(_connection_failure(raised.os_error))
                error = ModelUnavailableError(
                    f"{self._proxy_name} cannot be reached: {reason}, on the way to {route}"
                )
                transient = True
            case aiohttp.ConnectionTimeoutError():
                error = ModelTimeoutError(f"{route} did not accept a connection in time.")
                transient = True
            case TimeoutError():
                error = ModelTimeoutError(f"{route} fell silent: nothing came in time.")
            case ssl.SSLError() | ssl.CertificateError() | aiohttp.ClientSSLError():
                error = ModelUnavailableError(f"There is no safe connection to {route}: {reason}")
            case aiohttp.ClientConnectorError():
                reason = self._redact(_connection_failure(raised.os_error))
                error = ModelUnavailableError(f"{route} cannot be reached: {reason}")
                transient = True
            case aiohttp.ClientPayloadError():
                error = ModelError(
                    f"{route} cut its answer short: {reason}", code=_DISCONNECTED_CODE
                )
                transient = True
            case aiohttp.ClientConnectionError() | ConnectionError():
                error = ModelError(
                    f"{route} closed the connection: {reason}", code=_DISCONNECTED_CODE
                )
                transient = immediate = True
            case aiohttp.ClientResponseError() | HttpProcessingError():
                error = ModelError(
                    f"{route} did not answer in HTTP: {reason}", code=_INVALID_RESPONSE_CODE
                )
            case _:
                error = ModelUnavailableError(f"The call to {route} failed: {reason}")
        return AttemptError(error, transient=transient, immediate=immediate)

    def _map_proxy_status(self, status: int) -> AttemptError:
        """The failure for an error of the proxy itself."""
        action = f"{self._proxy_name} answered {status}"
        if status >= 500:
            error = ModelUnavailableError(f"{action}: it does not reach {self._upstream}.")
            return AttemptError(error, transient=True)
        reason = (
            "it wants a user and a password, as in HTTPS_PROXY=http://user:password@host:port."
            if status == 407
            else f"it does not allow to reach {self._upstream}."
        )
        return AttemptError(ModelError(f"{action}: {reason}", code="upstream_proxy_refused"))

    def _map_provider_error(
        self, status: int, provider_error: ProviderError, action: str, delay: float | None
    ) -> AttemptError:
        message = self._redact(provider_error.message)
        description = f"{self._responder} {action}" + (f": {message}" if message else ".")
        context_error = _context_length_error(status, provider_error, message or description)
        if context_error is not None:
            return AttemptError(context_error)
        names = f"{provider_error.message} {provider_error.code} {provider_error.kind}"
        status = _meant_status(status, names)
        if status in (401, 403) or (status < 500 and status != 429 and _INVALID_KEY.search(names)):
            return AttemptError(
                ModelError(
                    f"{_sentence(description)} Check the API key.", code="upstream_unauthorized"
                )
            )
        if status == 429:
            failure = _later(UpstreamRateLimitError(description), delay)
            # An exhausted quota does not recover while the user waits.
            failure.transient = _EMPTY_ACCOUNT.search(names) is None
            return failure
        if status in (408, 504):
            return _later(ModelTimeoutError(description), delay)
        if status in _BUSY_STATUSES or (status >= 500 and status != 501):
            kind = ModelUnavailableError if status in (*_BUSY_STATUSES, 503) else ModelError
            failure = _later(kind(description), delay)
            failure.transient = status != 505
            return failure
        return AttemptError(
            self._map_request_error(status, provider_error, message, description),
            transient=provider_error.code == TOOL_USE_FAILED,
        )

    def _map_request_error(
        self, status: int, provider_error: ProviderError, message: str, description: str
    ) -> AntiphonError:
        """The error for a status that rejects the request as such."""
        error: AntiphonError
        match status:
            case 404 | 410 if _is_model_not_found(provider_error):
                error = ModelNotFoundError(message or description, param="model")
            case 400 | 422 if _names_missing_model(provider_error):
                error = ModelNotFoundError(message or description, param="model")
            case 404 | 405 | 410 | 501:
                text = f"{_sentence(description)} Check the base URL."
                error = ModelError(text, code=ENDPOINT_MISSING)
            case 402:
                error = ModelError(description, code="upstream_payment_required")
            case 413:
                error = BodyTooLargeError(message or description)
            case _ if status >= 400:
                code, param = self._redact(provider_error.code), self._redact(provider_error.param)
                error = InvalidRequestError(
                    message or description, code=code or None, param=param or None
                )
            case _:
                error = ModelError(
                    f"{description} That is no answer of a model.", code=_INVALID_RESPONSE_CODE
                )
        return error

    def _redact(self, text: str) -> str:
        text = " ".join(self._secret_pattern.sub("[key]", text).split())
        return text if len(text) <= _MAX_MESSAGE_LENGTH else text[:_MAX_MESSAGE_LENGTH] + "…"


def _meant_status(status: int, names: str) -> int:
    """The HTTP status that an error's words mean, where it came with a more general one."""
    if status in (400, 401, 403):
        if _EMPTY_ACCOUNT.search(names):
            return 402
        if status != 401 and _TOO_FAST.search(names):
            return 429
    return status


def _later(error: ModelError, delay: float | None) -> AttemptError:
    """The failure for an error that the same request may not meet again after this delay."""
    error.retry_after = delay
    return AttemptError(error, transient=True, retry_after=delay)


def _proxy_secrets(proxy: Proxy | None) -> Sequence[str]:
    """A proxy's credentials, in their forms."""
    if proxy is None or proxy.userinfo is None or proxy.credentials is None:
        return ()
    token = proxy.headers()["Proxy-Authorization"].rpartition(" ")[2]
    return (proxy.userinfo.reveal(), token, proxy.credentials[1])


def _context_length_error(
    status: int, provider_error: ProviderError, message: str
) -> ContextLengthExceededError | None:
    if status not in (400, 413, 422, 500):
        return None
    overflow = find_context_overflow(
        provider_error.message, provider_error.code, provider_error.kind
    )
    if overflow is None:
        return None
    used = overflow.used if provider_error.used is None else provider_error.used
    limit = overflow.limit if provider_error.limit is None else provider_error.limit
    return ContextLengthExceededError(message, used=used, limit=limit)


def _is_model_not_found(provider_error: ProviderError) -> bool:
    return provider_error.code == "model_not_found" or "model" in provider_error.message.lower()


def _names_missing_model(provider_error: ProviderError) -> bool:
    names = f"{provider_error.code} {provider_error.kind} {provider_error.message}"
    return _MISSING_MODEL.search(names) is not None


def _infer_status(provider_error: ProviderError) -> int:
    """The HTTP status that corresponds to an error inside a stream."""
    if provider_error.status is not None:
        return provider_error.status
    names = f"{provider_error.code} {provider_error.kind}".lower()
    return next((status for status, sign in _STATUS_BY_ERROR_NAME if sign in names), 500)


def _connection_failure(error: OSError) -> str:
    """Why there is no connection, without the address, which the message has already."""
    number = error.errno or 0
    # Those of a failed look-up of a name are negative.
    reason = os.strerror(number) if number > 0 else error.strerror or str(error)
    return reason[:1].lower() + reason[1:]
