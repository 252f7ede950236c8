"""A gRPC server that repeats what it was sent, which the tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.grpc_client import GrpcTestServer, grpc_serving


@pytest.fixture(scope="module")
def echo() -> Iterator[GrpcTestServer]:
    with grpc_serving() as started:
        yield started
