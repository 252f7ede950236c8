"""A server that repeats what it was sent, and the official client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from support.http_server import ThreadServer, serving
from support.openai_client import client_of


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with serving() as started:
        yield started


@pytest.fixture
def client(server: ThreadServer) -> Iterator[OpenAI]:
    with client_of(server) as made:
        yield made
