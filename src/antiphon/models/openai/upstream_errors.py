"""What goes wrong at an upstream, in the words of our error tree. No I/O.

Every text that comes from outside is freed of the API key before it is passed on.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp.http import HttpProcessingError

from antiphon.core.proxies import Proxy
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
from antiphon.models.retry import AttemptError, retry_after

#: All that the HTTP client and the system below it raise. It says ``RuntimeError`` of a
#: connection that was closed on our side. To be caught around calls of the client alone: of
#: code of ours the last two are mistakes, which are not the upstream's.
CLIENT_ERRORS: tuple[type[Exception], ...] = (
    aiohttp.ClientError,
    HttpProcessingError,
    OSError,
    ValueError,
    RuntimeError,
)

#: What decoding an answer may raise: wrong JSON, wrong shapes, wrong UTF-8, too deep.
DECODE_ERRORS = (msgspec.DecodeError, UnicodeError, RecursionError)

_INVALID_RESPONSE_CODE = "upstream_invalid_response"
_DISCONNECTED_CODE = "upstream_disconnected"
#: The longest text of an upstream that is passed on, in characters.
_MAX_MESSAGE_LENGTH = 1000
#: How much of an answer that cannot be read is quoted, in characters.
_QUOTED = 200
#: So much of a key's beginning gives it away, in characters.
_KEY_PREFIX_LENGTH = 8

_NUMBER = r"(\d[\d,]*)"
#: How servers say that a context is too long, and the groups of tokens used and allowed.
_CONTEXT_LENGTH_PATTERNS = [
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), used, limit)
    for pattern, used, limit in (
        (rf"maximum (?:context|prompt) length (?:is|of) {_NUMBER}.*?"
         rf"(?:requested|resulted in|request contains|request has) (?:about )?{_NUMBER}", 2, 1),
        (rf"prompt is too long:? {_NUMBER} tokens > {_NUMBER}", 1, 2),
        (rf"\({_NUMBER} tokens\) exceeds the available context size \({_NUMBER}", 1, 2),
        (rf"prompt contains {_NUMBER} tokens.*?model with {_NUMBER}", 1, 2),
        (rf"token count \({_NUMBER}\) exceeds the maximum number of tokens allowed "
         rf"\({_NUMBER}\)", 1, 2),
        (rf"requested tokens \({_NUMBER}\) exceed context window of {_NUMBER}", 1, 2),
        (rf"length {_NUMBER}\) is longer than the maximum model length of {_NUMBER}", 1, 2),
        (rf"limit of {_NUMBER} tokens.*?resulted in {_NUMBER} tokens", 2, 1),
        (r"(maximum (context|prompt) length|context[_ ]length[_ ]exceeded|prompt is too long"
         r"|exceeds? (the |this )?(available |model'?s? )?context (size|length|window|limit)"
         r"|input is too long|greater than the context length)", None, None),
    )
]  # fmt: skip
_INVALID_KEY = re.compile(r"(incorrect|invalid|malformed) api[ _]key|api[ _]key not valid", re.I)


class Unreadable(AttemptError):
    """An answer, or a piece of one, that is not what it should be.

    ``data`` is as it came: it is not to be shown before it is freed of secrets
    (``ErrorMapper.unreadable``).
    """

    def __init__(self, why: str, data: bytes, cause: BaseException | None = None) -> None:
        error = ModelError(
            f"The upstream's answer cannot be read: {why}.", code=_INVALID_RESPONSE_CODE
        )
        error.__cause__ = cause
        super().__init__(error)
        self.data = data


def incomplete_stream() -> AttemptError:
    """The failure behind a stream that ended before the answer did."""
    text = "The upstream's answer broke off before its end."
    return AttemptError(ModelError(text, code=_DISCONNECTED_CODE), transient=True)


#: What HTTP status the name of an error is as good as. The first that fits counts.
_STATUS_BY_ERROR_NAME = [
    (429, "rate_limit"),
    (429, "insufficient_quota"),
    (401, "api_key"),
    (401, "authentication"),
    (403, "permission"),
    (404, "model_not_found"),
    # What cannot be done as asked; what is wrong with a prompt or a picture is told so.
    (400, "invalid_"),
    (400, "context"),
    (400, "image"),
    (400, "unsupported"),
    (503, "overloaded"),
    (503, "unavailable"),
    (504, "timeout"),
]


class _ProviderError(msgspec.Struct, frozen=True):
    """What an upstream says of an error, from whichever of the shapes in use."""

    message: str = ""
    code: str = ""
    kind: str = ""
    param: str = ""
    used: int | None = None
    limit: int | None = None


class ErrorMapper:
    """Makes failures of what one upstream does wrong.

    ``where`` names the upstream in messages; ``secret`` is the key that must never
    be seen in one, nor what ``proxy`` is told of who asks. ``mixed``: an answer may be
    the proxy's own, and look like one of the upstream's.
    """

    def __init__(
        self,
        upstream: str,
        secret: str | None,
        proxy: Proxy | None = None,
        *,
        proxy_may_answer: bool = False,
    ) -> None:
        self._upstream = upstream
        #: How it is reached, and who answers.
        self._route = f"{upstream} (by the proxy {proxy.address})" if proxy else upstream
        self._responder = self._route if proxy_may_answer else upstream
        self._proxy_name = f"The proxy {proxy.address}" if proxy else "The proxy"
        patterns = _proxy_secret_patterns(proxy)
        if secret:
            patterns.append(re.escape(secret))
            if len(secret) > _KEY_PREFIX_LENGTH:
                # Upstreams also quote a key in part, or with its middle starred out.
                patterns.append(re.escape(secret[:_KEY_PREFIX_LENGTH]) + r"[^\s\"'<>,;()]*")
        self._secret_pattern = re.compile("|".join(patterns)) if patterns else None

    def from_exception(self, raised: Exception) -> AttemptError:
        """The failure behind an exception that is one of ``CLIENT_ERRORS``."""
        failure = self._map_exception(raised)
        if not isinstance(raised, aiohttp.ClientResponseError):
            # Those carry the request's headers, and with them the key.
            failure.error.__cause__ = raised
        return failure

    def from_response(
        self, status: int, headers: Mapping[str, str], body: bytes, now: float
    ) -> AttemptError:
        """The failure behind an HTTP answer that is not a success. ``now``: seconds since 1970."""
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
        pause = retry_after(headers, now)
        return self._map_provider_error(
            status, _parse_provider_error(body), f"answered {status}", pause
        )

    def from_error_event(self, event: bytes) -> AttemptError:
        """The failure behind an ``error`` object inside an answer that began as a success."""
        fault = _parse_provider_error(event)
        return self._map_provider_error(
            _infer_status(fault), fault, "broke off with an error", None
        )

    def unreadable(self, failure: Unreadable) -> AttemptError:
        """The same failure, with the beginning of what the upstream sent in its message."""
        said = self._redact(failure.data.decode(errors="replace"))
        if said:
            quoted = said if len(said) <= _QUOTED else said[:_QUOTED] + "…"
            failure.error.message += f" It begins: {quoted}"
        return failure

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
        """The failure behind an answer of another protocol, as good as this HTTP status."""
        return self._map_provider_error(
            status, _ProviderError(message, code, param=param), action, retry_after
        )

    def _map_exception(self, raised: Exception) -> AttemptError:
        where, why = self._route, self._redact(str(raised) or type(raised).__name__)
        error: AntiphonError
        transient = at_once = False
        match raised:
            case aiohttp.ClientHttpProxyError():
                return self._map_proxy_status(raised.status)
            case aiohttp.ClientProxyConnectionError():
                error = ModelUnavailableError(f"{self._proxy_name} cannot be reached: {why}")
                transient = True
            case aiohttp.ConnectionTimeoutError():
                error = ModelTimeoutError(f"{where} did not accept a connection in time.")
                transient = True
            case TimeoutError():
                error = ModelTimeoutError(f"{where} fell silent: nothing came in time.")
            case ssl.SSLError() | ssl.CertificateError() | aiohttp.ClientSSLError():
                error = ModelUnavailableError(f"There is no safe connection to {where}: {why}")
            case aiohttp.ClientConnectorError():
                error = ModelUnavailableError(f"{where} cannot be reached: {why}")
                transient = True
            case aiohttp.ClientPayloadError():
                error = ModelError(f"{where} cut its answer short: {why}", code=_DISCONNECTED_CODE)
                transient = True
            case aiohttp.ClientConnectionError() | ConnectionError():
                error = ModelError(f"{where} closed the connection: {why}", code=_DISCONNECTED_CODE)
                transient = at_once = True
            case aiohttp.ClientResponseError() | HttpProcessingError():
                error = ModelError(
                    f"{where} did not answer in HTTP: {why}", code=_INVALID_RESPONSE_CODE
                )
            case _:
                error = ModelUnavailableError(f"The call to {where} failed: {why}")
        return AttemptError(error, transient=transient, immediate=at_once)

    def _map_proxy_status(self, status: int) -> AttemptError:
        """The failure behind a proxy that does not let us through."""
        did = f"{self._proxy_name} answered {status}"
        if status >= 500:
            error = ModelUnavailableError(f"{did}: it does not reach {self._upstream}.")
            return AttemptError(error, transient=True)
        why = (
            "it wants a user and a password, as in HTTPS_PROXY=http://user:password@host:port."
            if status == 407
            else f"it does not allow to reach {self._upstream}."
        )
        return AttemptError(ModelError(f"{did}: {why}", code="upstream_proxy_refused"))

    def _map_provider_error(
        self, status: int, fault: _ProviderError, did: str, pause: float | None
    ) -> AttemptError:
        message = self._redact(fault.message)
        said = f"{self._responder} {did}" + (f": {message}" if message else ".")
        overflow = _context_length_error(status, fault, message or said)
        if overflow is not None:
            return AttemptError(overflow)
        if status in (401, 403) or (status < 500 and _INVALID_KEY.search(fault.message)):
            return AttemptError(
                ModelError(f"{said} Check the API key.", code="upstream_unauthorized")
            )
        if status == 429:
            error = UpstreamRateLimitError(said, retry_after=pause)
            # A quota that is spent does not come back while the user waits.
            transient = fault.code != "insufficient_quota"
            return AttemptError(error, transient=transient, retry_after=pause)
        if status in (408, 504):
            return AttemptError(ModelTimeoutError(said), transient=True, retry_after=pause)
        if status >= 500:
            failed = (ModelUnavailableError if status == 503 else ModelError)(said)
            return AttemptError(failed, transient=status not in (501, 505), retry_after=pause)
        return AttemptError(self._map_request_error(status, fault, message, said))

    def _map_request_error(
        self, status: int, fault: _ProviderError, message: str, said: str
    ) -> AntiphonError:
        """The error behind a status that says: not like this."""
        error: AntiphonError
        match status:
            case 404 if _is_model_not_found(fault):
                error = ModelNotFoundError(message or said, param="model")
            case 404 | 405:
                error = ModelError(f"{said} Check the base URL.", code="upstream_not_found")
            case 402:
                error = ModelError(said, code="upstream_payment_required")
            case 413:
                error = BodyTooLargeError(message or said)
            case _ if status >= 400:
                code, param = self._redact(fault.code), self._redact(fault.param)
                error = InvalidRequestError(message or said, code=code or None, param=param or None)
            case _:
                error = ModelError(
                    f"{said} That is no answer of a model.", code=_INVALID_RESPONSE_CODE
                )
        return error

    def _redact(self, text: str) -> str:
        if self._secret_pattern is not None:
            text = self._secret_pattern.sub("[key]", text)
        text = " ".join(text.split())
        return text if len(text) <= _MAX_MESSAGE_LENGTH else text[:_MAX_MESSAGE_LENGTH] + "…"


def _proxy_secret_patterns(proxy: Proxy | None) -> list[str]:
    """What must not be seen of a proxy, as patterns."""
    if proxy is None or proxy.userinfo is None or proxy.credentials is None:
        return []
    token = proxy.headers()["Proxy-Authorization"].rpartition(" ")[2]
    needles = (proxy.userinfo.reveal(), token, proxy.credentials[1])
    return [re.escape(needle) for needle in needles if needle]


def _context_length_error(
    status: int, fault: _ProviderError, message: str
) -> ContextLengthExceededError | None:
    if status not in (400, 413, 422, 500):
        return None
    used, limit = fault.used, fault.limit
    for pattern, used_group, limit_group in _CONTEXT_LENGTH_PATTERNS:
        found = pattern.search(fault.message)
        if found is not None:
            if used is None and used_group is not None and limit_group is not None:
                used = int(found[used_group].replace(",", ""))
                limit = int(found[limit_group].replace(",", ""))
            break
    else:
        names = (fault.code, fault.kind)
        if "context_length_exceeded" not in names and "exceed_context_size_error" not in names:
            return None
    return ContextLengthExceededError(message, used=used, limit=limit)


def _is_model_not_found(fault: _ProviderError) -> bool:
    return fault.code == "model_not_found" or "model" in fault.message.lower()


def _infer_status(fault: _ProviderError) -> int:
    """The HTTP status that an error inside a stream would have had."""
    if fault.code.isdecimal() and 400 <= int(fault.code) < 600:
        return int(fault.code)
    names = f"{fault.code} {fault.kind}"
    return next((status for status, sign in _STATUS_BY_ERROR_NAME if sign in names), 500)


def _parse_provider_error(body: bytes) -> _ProviderError:
    try:
        data = msgspec.json.decode(body)
    except DECODE_ERRORS:
        text = body.decode(errors="replace").strip()
        # A proxy's error page says nothing to a person in a terminal.
        return _ProviderError() if text.startswith("<") else _ProviderError(text)
    if isinstance(data, list) and data:
        data = data[0]
    if not isinstance(data, dict):
        return _ProviderError(str(data) if data else "")
    inner = data.get("error")
    if not isinstance(inner, dict):
        inner = {**data, "message": inner} if isinstance(inner, str) else data
    return _ProviderError(
        message=_text(inner.get("message") or inner.get("detail")),
        code=_text(inner.get("code")),
        kind=_text(inner.get("type")),
        param=_text(inner.get("param")),
        used=_int_or_none(inner.get("n_prompt_tokens")),
        limit=_int_or_none(inner.get("n_ctx")),
    )


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()


def _int_or_none(value: Any) -> int | None:
    return value if type(value) is int else None
