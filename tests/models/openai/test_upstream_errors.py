import inspect
import json
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import client_exceptions, http_exceptions
from aiohttp.client_reqrep import ConnectionKey, RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

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
from antiphon.models.openai.upstream_errors import ErrorMapper, client_errors
from antiphon.models.retry import AttemptError

KEY = "xai-0123456789abcdefghij"
TRANSLATOR = ErrorMapper("api.example:443", KEY)
REQUEST = RequestInfo(
    URL("http://x/"), "POST", CIMultiDictProxy(CIMultiDict(Authorization=f"Bearer {KEY}"))
)
PLACE = ConnectionKey("api.example", 443, True, True, None, None, None)


def answered(status: int, body: Any, headers: dict[str, str] | None = None) -> AttemptError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return TRANSLATOR.from_response(status, CIMultiDict(headers or {}), data, 0.0)


def error(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


#: How to make aiohttp's exceptions, by their nearest class here, with the key wherever it fits.
MAKERS: dict[type[Exception], Callable[[Any], Exception]] = {
    aiohttp.ClientResponseError: lambda kind: kind(REQUEST, (), status=400, message=f"odd {KEY}"),
    aiohttp.ClientConnectorCertificateError: lambda kind: kind(PLACE, ssl.CertificateError(KEY)),
    client_exceptions.UnixClientConnectorError: lambda kind: kind(
        "/socket", PLACE, OSError(2, KEY)
    ),
    aiohttp.ClientConnectorError: lambda kind: kind(PLACE, OSError(111, KEY)),
    aiohttp.ServerFingerprintMismatch: lambda kind: kind(b"a", b"b", KEY, 443),
    http_exceptions.HttpProcessingError: lambda kind: kind(code=400, message=KEY),
    http_exceptions.BadHttpMessage: lambda kind: kind(KEY),
    http_exceptions.LineTooLong: lambda kind: kind(KEY.encode(), 10),
    Exception: lambda kind: kind(KEY),
}


def example(kind: type[Exception]) -> Exception:
    return next(MAKERS[one] for one in kind.__mro__ if one in MAKERS)(kind)


def raised_by_aiohttp() -> list[type[Exception]]:
    found = {
        one
        for module in (client_exceptions, http_exceptions)
        for _, one in inspect.getmembers(module, inspect.isclass)
        if issubclass(one, Exception) and one.__module__.startswith("aiohttp")
    }
    # A programming error with WebSockets, of which there are none here.
    found.discard(client_exceptions.WSMessageTypeError)
    return sorted(found, key=lambda one: one.__name__)


@pytest.mark.parametrize("kind", raised_by_aiohttp())
def test_no_exception_of_the_http_client_is_missed(kind: type[Exception]) -> None:
    assert issubclass(kind, client_errors())
    failure = TRANSLATOR.from_exception(example(kind))
    assert isinstance(failure.error, ModelError)
    assert "api.example:443" in failure.error.message
    assert KEY not in failure.error.message
    assert "Bearer" not in repr(failure.error.__cause__)


@pytest.mark.parametrize(
    ("raised", "kind", "transient", "at_once"),
    [
        (aiohttp.ConnectionTimeoutError(), ModelTimeoutError, True, False),
        (aiohttp.SocketTimeoutError(), ModelTimeoutError, False, False),
        (TimeoutError(), ModelTimeoutError, False, False),
        (
            aiohttp.ClientConnectorError(PLACE, OSError(111, "no")),
            ModelUnavailableError,
            True,
            False,
        ),
        (
            aiohttp.ClientConnectorDNSError(PLACE, OSError(-2, "no")),
            ModelUnavailableError,
            True,
            False,
        ),
        (
            aiohttp.ClientConnectorCertificateError(PLACE, ssl.CertificateError("old")),
            ModelUnavailableError,
            False,
            False,
        ),
        (ssl.SSLError(1, "bad"), ModelUnavailableError, False, False),
        (aiohttp.ServerDisconnectedError(), ModelError, True, True),
        (ConnectionResetError(), ModelError, True, True),
        (aiohttp.ClientPayloadError("cut"), ModelError, True, False),
        (aiohttp.InvalidURL("x"), ModelUnavailableError, False, False),
        (UnicodeError("label too long"), ModelUnavailableError, False, False),
        (OSError(24, "Too many open files"), ModelUnavailableError, False, False),
    ],
)
def test_failures_on_the_way(
    raised: Exception, kind: type[AntiphonError], transient: bool, at_once: bool
) -> None:
    failure = TRANSLATOR.from_exception(raised)
    assert type(failure.error) is kind
    assert (failure.transient, failure.immediate) == (transient, at_once)
    assert failure.error.__cause__ is raised


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "transient"),
    [
        (400, error("Bad.", code="bad", param="stop"), InvalidRequestError, "bad", False),
        (400, {"code": "Bad argument", "error": "Bad."}, InvalidRequestError,
         "Bad argument", False),
        (400, error("Incorrect API key provided: xai-01***ij."), ModelError,
         "upstream_unauthorized", False),
        (401, error("No."), ModelError, "upstream_unauthorized", False),
        (402, error("No money."), ModelError, "upstream_payment_required", False),
        (403, error("No."), ModelError, "upstream_unauthorized", False),
        (404, error("The model `x` does not exist."), ModelNotFoundError, "model_not_found", False),
        (404, error("?", code="model_not_found"), ModelNotFoundError, "model_not_found", False),
        (404, b"<html>nginx</html>", ModelError, "upstream_not_found", False),
        (405, {"detail": "Method Not Allowed"}, ModelError, "upstream_not_found", False),
        (410, b"Gone", ModelError, "upstream_not_found", False),
        (410, error("The model `x` is gone."), ModelNotFoundError, "model_not_found", False),
        (408, b"", ModelTimeoutError, "upstream_timeout", True),
        (413, b"", BodyTooLargeError, "body_too_large", False),
        (422, {"detail": [{"loc": ["x"], "msg": "bad"}]}, InvalidRequestError,
         "invalid_value", False),
        (429, error("Slow."), UpstreamRateLimitError, "rate_limit_exceeded", True),
        (429, error("Paid?", code="insufficient_quota"), UpstreamRateLimitError,
         "rate_limit_exceeded", False),
        (500, error("Oops."), ModelError, "upstream_error", True),
        (501, b"", ModelError, "upstream_not_found", False),
        (502, b"<html>", ModelError, "upstream_error", True),
        (503, error("Loading model"), ModelUnavailableError, "model_unavailable", True),
        (504, b"", ModelTimeoutError, "upstream_timeout", True),
        (529, error("Overloaded"), ModelError, "upstream_error", True),
        (204, b"", ModelError, "upstream_invalid_response", False),
    ],
)  # fmt: skip
def test_answers_that_are_no_success(
    status: int, body: Any, kind: type[AntiphonError], code: str, transient: bool
) -> None:
    failure = answered(status, body)
    assert type(failure.error) is kind
    assert failure.error.code == code
    assert failure.transient is transient


def test_a_bad_request_quotes_the_upstream() -> None:
    failure = answered(400, error("Stop is too long.", param="stop", code=3))
    assert failure.error.message == "Stop is too long."
    assert (failure.error.param, failure.error.code) == ("stop", "3")
    assert answered(422, b"").error.message == "api.example:443 answered 422."


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (error("Oops."), "Oops."),
        ([error("Oops.")], "Oops."),
        ({"error": "Oops."}, "Oops."),
        ({"message": "Oops."}, "Oops."),
        ({"detail": "Oops."}, "Oops."),
        (b"Oops.\n", "Oops."),
        (b"\xffOops.", "Oops."),
        ("Oops.", "Oops."),
        ({"error": {"message": {"deep": "Oops."}}}, "Oops."),
    ],
)
def test_an_upstreams_words_are_found_in_many_shapes(body: Any, text: str) -> None:
    assert text in answered(500, body).error.message


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b"3", b'{"error":null}', b"<p>Oops."])
def test_an_answer_without_words(body: bytes) -> None:
    assert answered(500, body).error.message.startswith("api.example:443 answered 500")


def test_long_words_are_cut() -> None:
    assert len(answered(500, error("x" * 5000)).error.message) < 1100


def test_how_long_to_wait_is_passed_on() -> None:
    failure = answered(429, error("Slow."), {"retry-after": "3"})
    assert isinstance(failure.error, UpstreamRateLimitError)
    assert failure.error.retry_after == failure.retry_after == 3.0
    assert answered(503, b"", {"Retry-After": "4"}).retry_after == 4.0
    assert answered(429, b"").retry_after is None


def test_a_redirect_is_reported_and_not_followed() -> None:
    failure = answered(307, b"", {"Location": f"https://evil.example/{KEY}"})
    assert failure.error.code == "upstream_redirect"
    assert "https://evil.example/[key]" in failure.error.message


@pytest.mark.parametrize(
    ("message", "used", "limit"),
    [
        ("This model's maximum context length is 4097 tokens. However, your messages resulted in "
         "13393 tokens. Please reduce the length of the messages.", 13393, 4097),
        ("This model's maximum context length is 4096 tokens. However, you requested 4222 tokens "
         "(1222 in the messages, 3000 in the completion).", 4222, 4096),
        ("This model's maximum prompt length is 131072 but the request contains 136973 tokens.",
         136973, 131072),
        ("prompt is too long: 206640 tokens > 200000 maximum", 206640, 200000),
        ("request (5000 tokens) exceeds the available context size (4096 tokens), try increasing "
         "it", 5000, 4096),
        ("Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum "
         "context length", 40000, 32768),
        ("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
         1200000, 1048576),
        ("Requested tokens (5000) exceed context window of 4096", 5000, 4096),
        ("The decoder prompt (length 4500) is longer than the maximum model length of 4096.",
         4500, 4096),
        ("Input tokens exceed the configured limit of 272,000 tokens. Your messages resulted in "
         "300,001 tokens.", 300001, 272000),
        ("Input is too long for requested model.", None, None),
        ("the request exceeds the available context size. try increasing it", None, None),
    ],
)  # fmt: skip
def test_a_context_that_is_too_long(message: str, used: int | None, limit: int | None) -> None:
    for status in (400, 413, 422):
        failure = answered(status, error(message))
        assert isinstance(failure.error, ContextLengthExceededError)
        assert (failure.error.used, failure.error.limit) == (used, limit)
        assert failure.error.message == message
        assert not failure.transient


def test_a_context_that_is_too_long_by_its_code() -> None:
    for fields in ({"code": "context_length_exceeded"}, {"type": "exceed_context_size_error"}):
        assert isinstance(
            answered(400, error("Shorter!", **fields)).error, ContextLengthExceededError
        )
    llama = error("Too big.", type="exceed_context_size_error", n_prompt_tokens=9, n_ctx=8)
    overflow = answered(400, llama).error
    assert isinstance(overflow, ContextLengthExceededError)
    assert (overflow.used, overflow.limit) == (9, 8)


def test_other_things_may_be_too_long() -> None:
    assert type(answered(400, error("stop is too long")).error) is InvalidRequestError


@pytest.mark.parametrize(
    ("event", "kind", "transient"),
    [
        (error("Slow.", code=429), UpstreamRateLimitError, True),
        (error("Slow.", type="rate_limit_error"), UpstreamRateLimitError, True),
        (error("Oops.", code=502), ModelError, True),
        (error("Oops.", code="server_error"), ModelError, True),
        ({"error": "Oops."}, ModelError, True),
        (error("prompt is too long", code=400), ContextLengthExceededError, False),
        (error("Bad.", type="invalid_request_error"), InvalidRequestError, False),
        (error("Bad.", code="invalid_prompt"), InvalidRequestError, False),
        (error("Big.", code="image_too_large"), InvalidRequestError, False),
        (error("Big.", code="context_length_exceeded"), ContextLengthExceededError, False),
        (error("Who?", code="invalid_api_key"), ModelError, False),
        (error("Who?", type="authentication_error"), ModelError, False),
        (error("What?", code="model_not_found"), ModelNotFoundError, False),
        (error("Later.", type="overloaded_error"), ModelUnavailableError, True),
        (error("Late.", code="vector_store_timeout"), ModelTimeoutError, True),
        (error("Slow.", status="RESOURCE_EXHAUSTED"), UpstreamRateLimitError, True),
        (error("Slow.", status=429), UpstreamRateLimitError, True),
        (
            error("Slow.", type="TooManyRequests", code="too_many_requests"),
            UpstreamRateLimitError,
            True,
        ),
        (error("Who?", status="UNAUTHENTICATED"), ModelError, False),
        (
            {"type": "error", "code": "rate_limit_exceeded", "message": "Slow."},
            UpstreamRateLimitError,
            True,
        ),
    ],
)
def test_errors_within_an_answer(event: Any, kind: type[AntiphonError], transient: bool) -> None:
    failure = TRANSLATOR.from_error_event(json.dumps(event).encode())
    assert type(failure.error) is kind
    assert failure.transient is transient
    assert event.get("message", "") in failure.error.message


@pytest.mark.parametrize("echo", [KEY, KEY[:12], f"{KEY[:8]}******{KEY[-4:]}", f'"{KEY}",'])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_the_key_is_never_passed_on(status: int, echo: str) -> None:
    body = error(f"The key {echo} for model is bad", code=echo, param=echo)
    failure = answered(status, body)
    shown = f"{failure.error.message} {failure.error.code} {failure.error.param} {failure}"
    assert KEY[:10] not in shown
    assert "[key]" in shown


@pytest.mark.parametrize(
    "other", ["sk-proj-0123456789abcdefghij", "gsk_0123456789abcdefghij", "Bearer eyJhbGciOi.J9-x"]
)
def test_no_other_key_is_passed_on(other: str) -> None:
    failure = answered(400, {"oops": f"The key {other} is bad"})
    assert other.removeprefix("Bearer ") not in failure.error.message
    assert "[key] is bad" in failure.error.message


def test_without_a_key_words_stay() -> None:
    failure = ErrorMapper("here", None).from_response(400, {}, b"Bad.", 0.0)
    assert failure.error.message == "Bad."
