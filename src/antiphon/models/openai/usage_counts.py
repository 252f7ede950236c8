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
        ("prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "inputTokenCount"),
    ),
    (
        "output",
        (
            *("completion_tokens", "output_tokens", "completionTokens", "outputTokens"),
            "outputTokenCount",
        ),
    ),
    ("total", ("total_tokens",)),
    ("cached", ("cached_tokens", "prompt_cache_hit_tokens")),
)
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
            counts.get("input", 0),
            counts.get("output", 0),
            counts.get("total"),
            counts.get("cached", 0),
            counts.get("reasoning", 0),
        )

    def add(self, usage: Any) -> None:
        """Take the counts of a usage; what it does not count stays as it was."""
        if not isinstance(usage, dict):
            return
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
    prompt: int, completion: int, total: int | None, cached: int, reasoning: int
) -> Usage:
    """A usage by its counts, as chat completions have them."""
    if total == prompt + completion + reasoning:
        # xAI counts reasoning apart from the completion, OpenAI within it.
        completion += reasoning
    return Usage(prompt, completion, cached, reasoning)
