"""Extra fields: added to a request body, never replacing its own fields."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.extra_fields import RESERVED_FIELDS, add_extra_fields, select_extra_fields

NAMES = st.sampled_from(["top_k", "thinking", *sorted(RESERVED_FIELDS)])
FIELDS = st.dictionaries(NAMES, st.none() | st.integers())


@given(FIELDS, FIELDS, FIELDS)
def test_extra_fields_never_replace_body_fields(body: Any, first: Any, second: Any) -> None:
    merged = add_extra_fields(body, first, second)
    assert merged | body == merged
    for name in merged.keys() - body.keys():
        assert name not in RESERVED_FIELDS
        chosen = second if second.get(name) is not None else first
        assert merged[name] == chosen[name] is not None


def test_null_extra_field_is_omitted() -> None:
    assert select_extra_fields({"top_k": None, "min_p": 0}) == {"min_p": 0}


def test_only_one_token_limit_is_sent() -> None:
    limits = ("max_tokens", "max_completion_tokens")
    assert add_extra_fields({"max_tokens": 1}, {"max_completion_tokens": 2}, limits=limits) == {
        "max_tokens": 1
    }
    assert add_extra_fields({}, {"max_tokens": 2}, limits=limits) == {"max_tokens": 2}
