"""Error tree: every error that leaves antiphon, with its HTTP status and gRPC status.

    AntiphonError
    ├── InvalidRequestError                400  the request cannot be carried out as it is
    │   ├── ContextLengthExceededError     400  more tokens than the model can take
    │   ├── ImageInputUnsupportedError     400  an image for a model that reads text only
    │   ├── InvalidImageError              400  not an image, or not one that models can look at
    │   ├── BodyTooLargeError              413
    │   ├── UnsupportedContentEncodingError 415  a body compressed in a way that is not known
    │   ├── RequestTimeoutError            408  the rest of a request did not come
    │   └── HeadersTooLargeError           431  too many headers, or too long ones
    ├── AuthenticationError                401  no API key, or an unknown or revoked one
    ├── ForbiddenError                     403  a request of a page of another web site
    ├── NotFoundError                      404  missing, deleted or another tenant's: all alike
    │   ├── ModelNotFoundError             404
    │   └── PreviousResponseNotFoundError  400  the turn to continue: that is OpenAI's status
    ├── MethodNotAllowedError              405
    ├── ConflictError                      409
    │   ├── ResponseInProgressError        409
    │   ├── ConversationLockedError        409  another turn runs on that conversation
    │   ├── HistoryChangedError            409  the history was erased while it was read
    │   │   └── HistoryBranchedError       409  others have continued it meanwhile
    │   └── IdempotencyConflictError       409  an Idempotency-Key that was used for something else
    ├── RateLimitError                     429  a limit of this server for one key
    ├── ToolServerUnavailableError         424  an MCP server did not answer
    ├── ModelError                         502  the model, or the way to it, failed
    │   ├── UpstreamRateLimitError         429  a limit of the model's provider
    │   ├── ModelTimeoutError              504  it did not answer in time
    │   ├── ModelUnavailableError          503  it could not be reached, loaded or kept alive
    │   └── InvalidOutputError             502  its answer does not fit the requested schema
    ├── TurnInterruptedError               500  the process ended before the turn did
    ├── StoreError                         503  the store could not write or read
    │   └── TurnTakenOverError             503  another process runs the turn by now
    ├── NodeUnreachableError               503  another process of this store does not answer
    ├── ServerBusyError                    503  too many connections, or a server about to end
    └── ConfigError                        500  a setting, file or key that a person has to correct

Each has ``message`` (a sentence for a person), ``type`` and ``code`` (for
programs, in OpenAI's words), ``param`` (the request's field at fault, or None),
``status`` (HTTP) and ``grpc`` (a gRPC status name). No message ever holds a key.
"""

from __future__ import annotations

from typing import ClassVar


class AntiphonError(Exception):
    """Root of the tree; never raised itself."""

    type: ClassVar[str] = "server_error"
    status: ClassVar[int] = 500
    grpc: ClassVar[str] = "INTERNAL"
    default_code: ClassVar[str] = "server_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        #: Id of the stored response that this error ended, where there is one.
        self.response_id: str | None = None
        #: After how many seconds the same request may succeed, where that is known.
        self.retry_after: float | None = None


class InvalidRequestError(AntiphonError):
    type = "invalid_request_error"
    status = 400
    grpc = "INVALID_ARGUMENT"
    default_code = "invalid_value"


class ContextLengthExceededError(InvalidRequestError):
    """``used`` and ``limit`` are in tokens, None where the model did not say."""

    default_code = "context_length_exceeded"

    def __init__(self, message: str, *, used: int | None = None, limit: int | None = None) -> None:
        super().__init__(message, param="input")
        self.used = used
        self.limit = limit


class ImageInputUnsupportedError(InvalidRequestError):
    default_code = "image_input_unsupported"


class InvalidImageError(InvalidRequestError):
    """Codes: ``invalid_image``, ``invalid_image_url``, ``image_too_large``,
    ``unsupported_image_type``.
    """

    default_code = "invalid_image"


class BodyTooLargeError(InvalidRequestError):
    status = 413
    default_code = "body_too_large"


class UnsupportedContentEncodingError(InvalidRequestError):
    status = 415
    default_code = "unsupported_content_encoding"


class RequestTimeoutError(InvalidRequestError):
    status = 408
    grpc = "DEADLINE_EXCEEDED"
    default_code = "request_timeout"


class HeadersTooLargeError(InvalidRequestError):
    status = 431
    default_code = "headers_too_large"


class AuthenticationError(AntiphonError):
    type = "authentication_error"
    status = 401
    grpc = "UNAUTHENTICATED"
    default_code = "invalid_api_key"


class ForbiddenError(AntiphonError):
    type = "invalid_request_error"
    status = 403
    grpc = "PERMISSION_DENIED"
    default_code = "forbidden"


class NotFoundError(AntiphonError):
    type = "invalid_request_error"
    status = 404
    grpc = "NOT_FOUND"
    default_code = "not_found"


class ModelNotFoundError(NotFoundError):
    default_code = "model_not_found"


class PreviousResponseNotFoundError(NotFoundError):
    status = 400
    default_code = "previous_response_not_found"


class MethodNotAllowedError(AntiphonError):
    type = "invalid_request_error"
    status = 405
    grpc = "UNIMPLEMENTED"
    default_code = "method_not_allowed"


class ConflictError(AntiphonError):
    type = "invalid_request_error"
    status = 409
    grpc = "FAILED_PRECONDITION"
    default_code = "conflict"


class ResponseInProgressError(ConflictError):
    default_code = "response_in_progress"


class ConversationLockedError(ConflictError):
    default_code = "conversation_locked"


class HistoryChangedError(ConflictError):
    """Something was erased from what a turn or a summary was made of, before that was kept."""

    default_code = "conversation_changed"

    def __init__(
        self, message: str = "Something of this conversation was erased meanwhile: ask again."
    ) -> None:
        super().__init__(message)


class HistoryBranchedError(HistoryChangedError):
    """Others have continued what nobody else may have: ``response_ids``, which were not seen."""

    default_code = "conversation_branched"

    def __init__(
        self,
        message: str = "Somebody has continued this conversation meanwhile: ask again.",
        *,
        response_ids: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(message)
        self.response_ids = response_ids


class IdempotencyConflictError(ConflictError):
    default_code = "idempotency_key_in_use"


class RateLimitError(AntiphonError):
    """``retry_after`` is None where only the end of another request helps."""

    type = "rate_limit_error"
    status = 429
    grpc = "RESOURCE_EXHAUSTED"
    default_code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ToolServerUnavailableError(AntiphonError):
    type = "external_connector_error"
    status = 424
    grpc = "UNAVAILABLE"
    default_code = "tool_server_unavailable"


class ModelError(AntiphonError):
    type = "upstream_error"
    status = 502
    grpc = "INTERNAL"
    default_code = "upstream_error"


class UpstreamRateLimitError(ModelError):
    """``retry_after`` is None where the upstream did not say."""

    type = "rate_limit_error"
    status = 429
    grpc = "RESOURCE_EXHAUSTED"
    default_code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelTimeoutError(ModelError):
    status = 504
    grpc = "DEADLINE_EXCEEDED"
    default_code = "upstream_timeout"


class ModelUnavailableError(ModelError):
    status = 503
    grpc = "INTERNAL"
    default_code = "model_unavailable"


class InvalidOutputError(ModelError):
    """``text`` is what the model answered, as it came."""

    default_code = "output_invalid"

    def __init__(self, message: str, *, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class TurnInterruptedError(AntiphonError):
    default_code = "interrupted"


class StoreError(AntiphonError):
    status = 503
    grpc = "UNAVAILABLE"
    default_code = "store_unavailable"


class TurnTakenOverError(StoreError):
    """Another process runs the turn by now, and what this one says of it is not stored."""

    default_code = "turn_taken_over"


class NodeUnreachableError(AntiphonError):
    """The process that runs a turn does not answer another one."""

    status = 503
    grpc = "UNAVAILABLE"
    default_code = "node_unreachable"


class ServerBusyError(AntiphonError):
    status = 503
    grpc = "UNAVAILABLE"
    default_code = "server_busy"


class ConfigError(AntiphonError):
    default_code = "configuration_error"


#: What ends turns by a code that is more exact than its kind's own.
_ERROR_BY_CODE: dict[str, type[AntiphonError]] = {
    "turn_timeout": ModelTimeoutError,
    "model_crashed": ModelUnavailableError,
    "blob_missing": StoreError,
    "unsupported_parameter": InvalidRequestError,
    "unsupported_value": InvalidRequestError,
}


def error_from_code(code: str, message: str) -> AntiphonError:
    """An error that was kept by its code, again. One that nothing here has is the model's."""
    if code in _ERROR_BY_CODE:
        return _ERROR_BY_CODE[code](message, code=code)
    waiting: list[type[AntiphonError]] = [AntiphonError]
    while waiting:
        kind = waiting.pop()
        # A request that was too many was never kept.
        if kind.default_code == code and kind is not RateLimitError:
            return kind(message)
        waiting += kind.__subclasses__()
    return ModelError(message, code=code)
