"""What holds for every test."""

import os

from hypothesis import settings

# A busy machine must not fail a test, nor a slow first example.
settings.register_profile("antiphon", deadline=None, max_examples=40)
settings.register_profile("soak", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "antiphon"))
