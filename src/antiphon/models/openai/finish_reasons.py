"""Finish reasons: what the reasons to stop mean, whatever servers call them. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

#: What reasons mean, by parts of their names. The first match counts; any other reason is a good
#: end.
_PATTERNS: Final = [
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"toxic|armor", "content_filter"),
        (r"context_(full|exhaust|limit|length|window|overflow)|out_of_(token|context|budget)",
         "length"),
        (r"error|abort|fail|cancel|insufficient|malformed|timeout|timed_out|overload|unavailable"
         r"|interrupt|preempt|evict|disconnect|exhausted|quota|rate_limit|crash|exception|kill"
         r"|shut_?down|memory|oom$|deadline|reset|terminat|dead|internal|panic|closed|unexpected"
         r"|too_many|missing|corrupt|throttl|broken|invalid|capacity|(^|_)bad_|by_user$", "error"),
        (r"filter|safety|sensitive|recitation|prohibited|block|spii|moderat|guardrail|policy"
         r"|refus|flagged|risk|censor|unsafe|violat|(^|_)harm(_|ful|$)|toxic|copyright|forbid"
         r"|denied|blacklist|inappropriate|jailbreak|language|illegal|(^|_)hate|security",
         "content_filter"),
        (r"length|^max$|max_|maxtok|limit|truncat|incomplete|partial|exceed|budget|overflow"
         r"|predict|cut_?off|too_long", "length"),
        (r"tool|function", "tool_calls"),
    )
]  # fmt: skip
_NONE: Final = frozenset(
    (
        *("", "null", "none", "nil", "undefined", "unspecified", "finish_reason_unspecified"),
        # What is said while more comes.
        *("not_finished", "unfinished", "in_progress", "continue", "generating", "streaming"),
        *("running", "pending"),
    )
)
_WORD_START: Final = re.compile("(?<=[a-z])(?=[A-Z])")
_LONGEST: Final = 100


def read_finish_reason(value: Any) -> str | None:
    """The reason in a value of any type; None: it says none."""
    if value is True:
        return "stop"
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("type") or value.get("reason") or value.get("name")
    if not isinstance(value, str) or value.strip().lower() in _NONE:
        return None
    return value.strip()[:_LONGEST]


@lru_cache(maxsize=256)
def finish_meaning(reason: str) -> str:
    """``stop``, ``tool_calls``, ``length``, ``content_filter`` or ``error``."""
    name = _WORD_START.sub("_", reason).lower().replace("-", "_").replace(" ", "_")
    return next((one for pattern, one in _PATTERNS if pattern.search(name)), "stop")
