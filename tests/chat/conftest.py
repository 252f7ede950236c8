"""What several tests of the Python library use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.chat_harness import VARIANTS, ChatHarness, chat_harness


@pytest.fixture(params=VARIANTS)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ChatHarness]:
    """A scripted upstream, and conversations with it: asynchronous, blocking, in each store."""
    with chat_harness(request.param, tmp_path) as harness:
        yield harness
