"""A server for each dialect of upstreams, which the tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.scenario import Scenario, scenario


@pytest.fixture(scope="module")
def world() -> Iterator[Scenario]:
    with scenario() as started:
        yield started


@pytest.fixture(scope="module")
def responses_world() -> Iterator[Scenario]:
    with scenario("responses") as started:
        yield started
