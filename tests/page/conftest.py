"""One browser for all tests of the page that a process runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser

from support.browser import chromium


class _StartedBrowser(NamedTuple):
    browser: Browser
    #: Playwright's own, which it leaves running in this thread between two calls.
    loop: asyncio.AbstractEventLoop


@pytest.fixture(scope="session")
def started_browser() -> Iterator[_StartedBrowser]:
    with chromium() as browser:
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        yield _StartedBrowser(browser, loop)
        asyncio._set_running_loop(loop)


@pytest.fixture
def browser(started_browser: _StartedBrowser) -> Iterator[Browser]:
    """The browser. Between the tests of it, other tests of this process may run loops of theirs."""
    asyncio._set_running_loop(started_browser.loop)
    yield started_browser.browser
    asyncio._set_running_loop(None)
