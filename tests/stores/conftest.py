"""What several tests of stores use."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.store_turns import STORES, Opener, opener


@pytest.fixture(params=STORES)
def store_in(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens each kind of store, in a folder of the test."""
    return opener(request.param, tmp_path)
