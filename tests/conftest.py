"""What holds for every test."""

from hypothesis import settings

# A busy machine must not fail a test, nor a slow first example.
settings.register_profile("antiphon", deadline=None)
settings.load_profile("antiphon")
