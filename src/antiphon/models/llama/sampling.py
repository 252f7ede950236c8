"""Sampling settings: those that only llama.cpp has, among further fields of a request. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: Sampling settings: the name in llama.cpp of each, and the least and the most it may be.
_SAMPLING_FIELDS: dict[str, tuple[str, float, float]] = {
    "top_k": ("top_k", 0, 1_000_000),
    "min_p": ("min_p", 0.0, 1.0),
    "typical_p": ("typical_p", 0.0, 1.0),
    "repeat_penalty": ("repeat_penalty", 0.1, 10.0),
    "repetition_penalty": ("repeat_penalty", 0.1, 10.0),
    "repeat_last_n": ("repeat_last_n", 0, 4096),
}
_INTEGERS = frozenset({"top_k", "repeat_last_n"})


def sampling_fields(extra: Mapping[str, Any]) -> tuple[dict[str, float], list[str]]:
    """The sampling settings among further fields of a request, by llama.cpp's names, within their
    limits; and the names of what else there is.
    """
    fields: dict[str, float] = {}
    others: list[str] = []
    for name, value in extra.items():
        known = _SAMPLING_FIELDS.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if known is None or not is_number or not math.isfinite(value):
            others.append(name)
            continue
        field, least, most = known
        number = min(max(value, least), most)
        fields[field] = int(number) if field in _INTEGERS else float(number)
    return fields, others
