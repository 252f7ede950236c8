"""One browser for all tests of the page that a process runs.

They may take 90 seconds of ``make test`` on two cores, which is 180 seconds of CPU with all that
they start: ``perf stat -e task-clock .venv/bin/pytest -n 2 tests/page``. What is long is ``slow``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support.browser import Watched, chromium, watched
from support.http_server import ThreadServer, serving
from support.page_model import PageModel

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


@pytest.fixture
def model() -> PageModel:
    return PageModel()


@pytest.fixture
def server(model: PageModel) -> Iterator[ThreadServer]:
    with serving(model.models("grok-4", "smollm2", "qwen3")) as started:
        yield started


@pytest.fixture
def world(browser: Browser, server: ThreadServer) -> Iterator[Watched]:
    with watched(browser, server.url) as watching:
        yield watching


@pytest.fixture(scope="module")
def module_server() -> Iterator[ThreadServer]:
    """A server that the tests of a file share."""
    with serving(PageModel().models("grok-4", "smollm2")) as started:
        yield started


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
