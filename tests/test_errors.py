"""The error tree: as it is drawn, and ready for every protocol."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from antiphon import errors
from antiphon.errors import (
    AntiphonError,
    ContextLengthExceededError,
    ModelError,
    RateLimitError,
    StoreError,
    UpstreamRateLimitError,
    error_from_code,
)

#: The types of errors that whoever asked can mend.
CALLERS = {
    "invalid_request_error",
    "rate_limit_error",
    "authentication_error",
    "external_connector_error",
}
#: The status names of gRPC.
GRPC = {
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
}


def below(kind: type[AntiphonError], depth: int = 1) -> Iterator[tuple[int, type[AntiphonError]]]:
    """The kinds of error below one, with their depth, in the order they were defined."""
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield depth, child
            yield from below(child, depth + 1)


def drawn() -> list[tuple[int, str, int]]:
    """Depth, name and status of each line in the docstring's drawing."""
    lines = re.findall(r"^    ([│├└─ ]+)(\w+) +(\d{3})", errors.__doc__ or "", re.MULTILINE)
    return [(len(branches) // 4, name, int(status)) for branches, name, status in lines]


KINDS = [kind for _, kind in below(AntiphonError)]


def test_the_drawing_is_the_tree() -> None:
    tree = [(depth, kind.__name__, kind.status) for depth, kind in below(AntiphonError)]
    assert sorted(drawn()) == sorted(tree)
    assert [name for depth, name, _ in drawn() if depth == 1] == [
        kind.__name__
        for kind in AntiphonError.__subclasses__()
        if kind.__module__ == "antiphon.errors"
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_says_what_programs_need(kind: type[AntiphonError]) -> None:
    error = kind("It did not work.")
    assert str(error) == error.message == "It did not work."
    assert error.code == kind.default_code
    assert re.fullmatch(r"[a-z_]+", error.code)
    assert re.fullmatch(r"[a-z_]+_error", error.type)
    assert 400 <= error.status < 600
    assert error.grpc in GRPC
    assert error.response_id is None
    assert (error.status < 500) == (error.type in CALLERS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_of_one_kind_is_mistaken_for_another(kind: type[AntiphonError]) -> None:
    same = [other for other in KINDS if other.default_code == kind.default_code]
    # Clients know one word for too much, whoever says it.
    assert same == [kind] or set(same) == {UpstreamRateLimitError, RateLimitError}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_that_was_kept_comes_back(kind: type[AntiphonError]) -> None:
    expected = UpstreamRateLimitError if kind is RateLimitError else kind
    again = error_from_code(kind.default_code, "So it was.")
    assert (type(again), again.message) == (expected, "So it was.")


def test_a_kept_code_that_is_more_exact_has_its_kind() -> None:
    again = error_from_code("turn_timeout", "Too late.")
    assert (type(again), again.code, again.status) == (
        errors.ModelTimeoutError,
        "turn_timeout",
        504,
    )


def test_a_stored_unknown_error_code_becomes_the_models() -> None:
    again = error_from_code("odd", "So it was.")
    assert (type(again), again.code, again.message) == (ModelError, "odd", "So it was.")


def test_code_and_param_can_be_overridden() -> None:
    error = errors.InvalidRequestError("No.", code="empty_input", param="input")
    assert (error.code, error.param) == ("empty_input", "input")
    assert errors.InvalidRequestError("No.").param is None


def test_errors_that_carry_numbers_carry_them() -> None:
    overflow = ContextLengthExceededError("Too long.", used=10, limit=8)
    assert (overflow.used, overflow.limit, overflow.param) == (10, 8, "input")
    assert ContextLengthExceededError("Too long.").used is None
    slow = UpstreamRateLimitError("Slow down.", retry_after=1.5)
    assert slow.retry_after == 1.5
    assert UpstreamRateLimitError("Slow down.").retry_after is None


def test_a_failed_generation_is_never_a_call_to_try_again() -> None:
    """Clients of the gRPC API repeat what is UNAVAILABLE up to five times."""
    kinds = [kind for kind in KINDS if issubclass(kind, ModelError)]
    assert all(kind.grpc != "UNAVAILABLE" for kind in kinds)
    assert StoreError.grpc == "UNAVAILABLE"
