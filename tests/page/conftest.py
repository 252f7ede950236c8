"""One browser for all tests of the page that a process runs."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support.browser import chromium

FOLDER = Path(__file__).parent
#: Playwright's own, once it has started: it stays running in the thread of the tests.
_loops: list[asyncio.AbstractEventLoop] = []


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        _loops.append(asyncio.get_running_loop())
        yield started
        # The last test of the process may have been another one.
        asyncio._set_running_loop(_loops.pop())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hides Playwright's loop after a test of the page: other tests run loops of their own."""
    if item.path.parent != FOLDER:
        return (yield)
    if _loops:
        asyncio._set_running_loop(_loops[-1])
    try:
        return (yield)
    finally:
        asyncio._set_running_loop(None)
