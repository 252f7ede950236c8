"""Odds and sources: every field is there, whatever an upstream left out."""

from __future__ import annotations

from typing import Any

import openresponses_types as spec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.turns import Options
from antiphon.models.openai.logprobs_citations import (
    normalize_citation,
    normalize_logprobs,
    wants_logprobs,
)

ANYTHING = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["token", "logprob", "bytes", "top_logprobs", "type", "url", "url_citation"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(ANYTHING)
def test_whatever_came_the_shape_is_the_specifications(given_by_server: Any) -> None:
    for entry in normalize_logprobs(given_by_server):
        assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
        assert all(set(one) == {"token", "logprob", "bytes"} for one in entry["top_logprobs"])
    citation = normalize_citation(given_by_server)
    if citation is not None:
        spec.UrlCitationBody.model_validate(citation)


def test_bytes_are_those_of_the_token_unless_it_is_half_a_character() -> None:
    assert normalize_logprobs([{"token": "é", "logprob": 0}])[0]["bytes"] == [0xC3, 0xA9]
    assert normalize_logprobs([{"token": "?", "logprob": 0, "bytes": [0xC3]}])[0]["bytes"] == [0xC3]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (Options(), False),
        (Options(top_logprobs=0), False),
        (Options(top_logprobs=1), True),
        (Options(include=("reasoning.encrypted_content",)), False),
        (Options(include=("message.output_text.logprobs",)), True),
    ],
)
def test_options_that_request_logprobs(options: Options, wanted: bool) -> None:
    assert wants_logprobs(options) is wanted


@pytest.mark.parametrize(
    ("given_by_server", "logprob"),
    [(-0.5, -0.5), (float("-inf"), -9999.0), (float("nan"), 0.0), (float("inf"), 0.0), (True, 0.0)],
)
def test_logprobs_are_numbers_that_json_has(given_by_server: Any, logprob: float) -> None:
    (entry,) = normalize_logprobs([{"token": "a", "logprob": given_by_server, "bytes": [300]}])
    assert (entry["logprob"], entry["bytes"]) == (logprob, [97])
