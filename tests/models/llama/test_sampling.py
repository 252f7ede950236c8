"""Sampling settings: what of a request's further fields llama.cpp is given."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.models.llama.sampling import sampling_fields


@pytest.mark.parametrize(
    ("extra", "fields", "others"),
    [
        ({"top_k": 20, "min_p": 0.1}, {"top_k": 20, "min_p": 0.1}, []),
        ({"repetition_penalty": 1.1}, {"repeat_penalty": 1.1}, []),
        ({"top_k": 1.9, "repeat_last_n": -1}, {"top_k": 1, "repeat_last_n": 0}, []),
        ({"min_p": 7, "top_k": -1}, {"min_p": 1.0, "top_k": 0}, []),
        ({"top_k": "5", "min_p": math.nan, "typical_p": True}, {}, ["top_k", "min_p", "typical_p"]),
        ({"grammar": "root ::= a", "slot_id": 3}, {}, ["grammar", "slot_id"]),
    ],
)
def test_sampling_settings_are_kept_within_limits(
    extra: dict[str, Any], fields: dict[str, float], others: list[str]
) -> None:
    assert sampling_fields(extra) == (fields, others)


@given(st.dictionaries(st.sampled_from(["top_k", "min_p", "x"]), st.floats() | st.integers()))
def test_every_number_is_finite(extra: dict[str, Any]) -> None:
    fields, others = sampling_fields(extra)
    assert all(math.isfinite(value) for value in fields.values())
    assert len(fields) + len(others) == len(extra)
