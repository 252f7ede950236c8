"""Every error that a tool may end in tells what happened and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from antiphon import errors
from antiphon.api.mcp.tool_results import error_hint
from antiphon.errors import (
    AntiphonError,
    AuthenticationError,
    ConfigError,
    ConflictError,
    ConversationLockedError,
    IdempotencyConflictError,
    MethodNotAllowedError,
    ModelTimeoutError,
    NodeUnreachableError,
    NotFoundError,
    RateLimitError,
    ServerBusyError,
    ToolServerUnavailableError,
    UpstreamRateLimitError,
)


def kinds(root: type[AntiphonError] = AntiphonError) -> Iterator[type[AntiphonError]]:
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from kinds(kind)


#: Those that no turn ends in: what keeps a request out, and what keeps a server from starting.
WITHOUT = {
    AuthenticationError,
    ConfigError,
    ConflictError,
    ConversationLockedError,
    IdempotencyConflictError,
    MethodNotAllowedError,
    NodeUnreachableError,
    ServerBusyError,
    ToolServerUnavailableError,
}


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_there_is_something_to_do(kind: type[AntiphonError]) -> None:
    said = error_hint(kind("It went wrong."))
    assert said.startswith("It went wrong.")
    assert said.endswith(".")
    assert (said == "It went wrong.") == (kind in WITHOUT)


def test_an_id_that_is_none_leads_to_a_new_conversation() -> None:
    assert "without response_id" in error_hint(NotFoundError("No response found with id 'x'."))


def test_a_turn_that_was_kept_is_named() -> None:
    error = ModelTimeoutError("Too slow.")
    error.response_id = "resp_1"
    assert "kept in resp_1" in error_hint(error)


def test_how_long_to_wait_is_said() -> None:
    assert "Wait 3 seconds" in error_hint(RateLimitError("Slow.", retry_after=3.2))
    assert "Wait 1 seconds" in error_hint(UpstreamRateLimitError("Slow.", retry_after=0.1))
    assert "Wait a little" in error_hint(UpstreamRateLimitError("Slow."))


def test_it_can_always_be_sent() -> None:
    error_hint(ConfigError("a \ud800 b")).encode()
