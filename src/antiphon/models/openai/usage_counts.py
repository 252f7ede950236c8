"""Usage counts: the tokens of an answer, by whatever names and types they come. Pure."""

from __future__ import annotations

from typing import Any, Final

from antiphon.core.turns import Usage
from antiphon.models.openai.lenient_json import count_of_value

#: Larger counts are none: no JavaScript client could read them.
MAX_COUNT: Final = 2**53
#: The counts of a usage, and the names under which they come.
_COUNT_FIELDS: Final = (
    (
        "input",
        (
            *("prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "inputTokenCount"),
            *("PromptTokens", "InputTokens", "promptTokenCount", "prompt_token_count"),
        ),
    ),
    (
        "output",
        (
            *("completion_tokens", "output_tokens", "completionTokens", "outputTokens"),
            *("outputTokenCount", "CompletionTokens", "OutputTokens", "generated_tokens"),
            *("candidatesTokenCount", "candidates_token_count"),
        ),
    ),
    ("total", ("total_tokens", "totalTokens", "TotalTokens")),
    ("cached", ("cached_tokens", "prompt_cache_hit_tokens")),
)
#: Where a usage may be that is within another object.
_WRAPPING_FIELDS: Final = ("usage", "tokens")
_DETAIL_COUNT_FIELDS: Final = (
    ("cached", ("prompt_tokens_details", "input_tokens_details"), "cached_tokens"),
    ("reasoning", ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens"),
)


class UsageCounts:
    """The counts of one answer, which may come in pieces: the last of each counts."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    @property
    def usage(self) -> Usage | None:
        """The tokens; None: none were counted."""
        counts = self._counts
        if "input" not in counts and "output" not in counts:
            return None
        return usage_of_counts(
            counts.get("input"),
            counts.get("output"),
            counts.get("total"),
            counts.get("cached", 0),
            counts.get("reasoning", 0),
        )

    def add(self, usage: Any) -> None:
        """Take the counts of a usage; what it does not count stays as it was."""
        if isinstance(usage, list) and len(usage) == 1:
            usage = usage[0]
        if not isinstance(usage, dict):
            return
        for one in (*map(usage.get, _WRAPPING_FIELDS), usage):
            if isinstance(one, dict):
                self._add_fields(one)

    def _add_fields(self, usage: dict[str, Any]) -> None:
        for name, fields in _COUNT_FIELDS:
            for field in fields:
                self._add_count(name, usage.get(field))
        for name, fields, inner in _DETAIL_COUNT_FIELDS:
            for field in fields:
                details = usage.get(field)
                self._add_count(name, details.get(inner) if isinstance(details, dict) else None)

    def _add_count(self, name: str, given: Any) -> None:
        if given is None:
            return
        count = count_of_value(given)
        if count is not None and count <= MAX_COUNT:
            self._counts[name] = count


def usage_of_counts(
    prompt: int | None, completion: int | None, total: int | None, cached: int, reasoning: int
) -> Usage:
    """A usage by its counts, as chat completions have them; the total tells one that is missing."""
    if total is not None and (prompt is None) != (completion is None):
        rest = max(0, total - (prompt or completion or 0))
        prompt, completion = (rest, completion) if prompt is None else (prompt, rest)
    prompt, completion = prompt or 0, completion or 0
    if total == prompt + completion + reasoning:
        # xAI counts reasoning apart from the completion, OpenAI within it.
        completion += reasoning
    return Usage(prompt, completion, cached, reasoning)
