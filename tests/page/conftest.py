"""One browser for all tests of the page that a process runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from antiphon.api.http.routes import ROUTES
from support.browser import chromium


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not any(route.path == "/v1/feed" for route in ROUTES):
        pytest.skip("the page's endpoints are not all here yet")
    with chromium() as started:
        yield started
