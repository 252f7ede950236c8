"""Answers of other APIs: what is read has all its words, and nothing passes for an empty answer."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.deltas import Finish, OutputTextDelta
from antiphon.models.openai.chat_completions_stream import ChatCompletionsParser
from antiphon.models.openai.foreign_answers import to_completion

#: Names under which words may be: some that are known, and any other.
NAMES = st.sampled_from(
    ["message", "messages", "delta", "content", "text", "words", "answer", "Message", "parts", "x"]
)


@st.composite
def hidden_words(draw: st.DrawFn) -> Any:
    """A text within objects and lists, however deep."""
    value: Any = "Hello"
    for name in draw(st.lists(NAMES, min_size=1, max_size=4)):
        value = {name: value}
        if draw(st.booleans()):
            value = [value]
    return value if isinstance(value, dict) else value[0]


def parse(value: Any, *, is_stream: bool) -> tuple[str, bool]:
    """The words of an answer, and whether it has come to a good end."""
    parser = ChatCompletionsParser()
    body = json.dumps(value).encode()
    deltas = parser.feed([body, b"[DONE]"]) if is_stream else parser.parse_body(body)
    deltas += parser.finish()
    text = "".join(one.text for one in deltas if isinstance(one, OutputTextDelta))
    return text, parser.error is None and any(isinstance(one, Finish) for one in deltas)


@given(hidden_words(), st.sampled_from([None, "stop"]), st.booleans(), st.booleans())
def test_words_that_are_not_found_fail_their_answer(
    hidden: dict[str, Any], reason: str | None, in_choice: bool, is_stream: bool
) -> None:
    value = {**hidden, "finish_reason": reason}
    if in_choice:
        value = {"choices": [{"index": 0, **value}]}
    text, is_good = parse(value, is_stream=is_stream)
    # An object in place of words is shown as the JSON that it is.
    assert text in ("", "Hello") or "Hello" in json.dumps(json.loads(text))
    assert text or not is_good


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["message", "messages", "content", "role", "done", "response", "body"])
            | st.text(),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_an_answer_or_none(value: Any) -> None:
    found = to_completion(value)
    assert found is None or found["choices"]
