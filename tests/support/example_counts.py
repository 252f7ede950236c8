"""Example counts: how many examples a Hypothesis test takes, by the HYPOTHESIS_PROFILE of the run.

`make test` takes few, `make test-slow` four times and `make soak` forty times as many.
"""

from __future__ import annotations

import os
from typing import Final

#: What a profile multiplies the numbers of `make test` by.
PROFILES: Final = {"fast": 1, "thorough": 4, "soak": 40}
PROFILE: Final = os.environ.get("HYPOTHESIS_PROFILE", "fast")
#: Of a test that names no number, in `make test`.
DEFAULT: Final = 25


def examples(count: int, profile: str = PROFILE) -> int:
    """The number of examples where `make test` takes ``count``."""
    return count * PROFILES[profile]
