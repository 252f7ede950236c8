"""Identity caches: values of objects, not of their equals, and of the last ones only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.identity_cache import IdentityCache


@given(st.lists(st.integers(0, 9)), st.integers(1, 5))
def test_value_is_of_the_very_object(numbers: list[int], size: int) -> None:
    # Equal lists of their own.
    objects = [[0] for _ in range(10)]
    cache: IdentityCache[list[int], int] = IdentityCache(size)
    known: list[int] = []
    for number in numbers:
        key = objects[number]
        found = cache.get(key)
        assert found == (number if number in known else None)
        if found is None:
            assert cache.put(key, number) == number
            known = [*known, number][-size:]
