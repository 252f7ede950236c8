"""Request faults: what some upstreams refuse in a request, and requests that have it.

A fault is a function of the request: whether it has what is refused.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

from support.scenario import LOOKUP, Json
from support.strict_upstreams import (
    CALL,
    JSON_SCHEMA,
    OUTPUT,
    messages_of,
    said,
    system,
    user,
)

Fault = Callable[[Json], bool]
#: What is refused, an input that has it, further fields of that request, and words of refusals.
Refusal = tuple[Fault, Any, Json, list[str]]


def roles(request: Json) -> list[str]:
    return [one["role"] for one in messages_of(request)]


def does_not_alternate(request: Json) -> bool:
    rest = list(itertools.dropwhile(lambda role: role == "system", roles(request)))
    rest = ["user" if role == "tool" else role for role in rest]
    return "system" in rest or rest[0] != "user" or any(a == b for a, b in itertools.pairwise(rest))


def begins_otherwise(request: Json) -> bool:
    return next(role for role in roles(request) if role != "system") != "user"


def has_system(request: Json) -> bool:
    return "system" in roles(request)


def calls_of(request: Json) -> list[list[Json]]:
    return [one["tool_calls"] for one in messages_of(request) if one.get("tool_calls")]


def calls_without_tools(request: Json) -> bool:
    return bool(calls_of(request)) and not request.get("tools")


def has_parallel_calls(request: Json) -> bool:
    return any(len(calls) > 1 for calls in calls_of(request))


def has_odd_name(request: Json) -> bool:
    names = [one["function"]["name"] for calls in calls_of(request) for one in calls]
    return any(not re.fullmatch("[a-zA-Z0-9_-]{1,64}", name) for name in names)


def has_blank(request: Json) -> bool:
    return any(not one.get("content") for one in messages_of(request) if "tool_calls" not in one)


def has_blank_beside_calls(request: Json) -> bool:
    return any(one.get("content") == "" for one in messages_of(request) if "tool_calls" in one)


def ends_otherwise(request: Json) -> bool:
    return roles(request)[-1] == "assistant"


def has_call_without_thoughts(request: Json) -> bool:
    return any("tool_calls" in it and "reasoning_content" not in it for it in messages_of(request))


def has_strict(request: Json) -> bool:
    return any("strict" in one["function"] for one in request.get("tools", ()))


def has_open_object(request: Json) -> bool:
    given = f"{request.get('tools')} {request.get('response_format')}"
    return given.count("'object'") > given.count("'additionalProperties': False")


def has_name(request: Json) -> bool:
    return any("name" in one for one in messages_of(request))


def has(field: str) -> Fault:
    return lambda request: bool(request.get(field))


def lacks(field: str) -> Fault:
    return lambda request: not request.get(field)


def formats_other_than(*taken: str | None) -> Fault:
    return lambda request: (request.get("response_format") or {}).get("type") not in taken


def has_parts(request: Json) -> bool:
    return any(isinstance(one.get("content"), list) for one in messages_of(request))


def has_tool_role(request: Json) -> bool:
    return "tool" in roles(request)


def has_developer(request: Json) -> bool:
    return "developer" in roles(request)


def has_later_system(request: Json) -> bool:
    return not {"system", "developer"}.isdisjoint(roles(request)[1:])


def has_user_after_tool(request: Json) -> bool:
    return ("tool", "user") in itertools.pairwise(roles(request))


def has_parallel_field(request: Json) -> bool:
    return "parallel_tool_calls" in request


def has_keyword(name: str) -> Fault:
    return lambda request: f"'{name}':" in str(request.get("tools"))


def has_ids_other_than(pattern: str) -> Fault:
    return lambda request: any(
        not re.fullmatch(pattern, one["id"]) for calls in calls_of(request) for one in calls
    )


TURNS = [user("One."), user("Two."), said("Yes."), system("Sys."), user("Three.")]
PARALLEL = [
    user("Look."),
    *(CALL, {**CALL, "call_id": "call_2"}),
    *(OUTPUT, {**OUTPUT, "call_id": "call_2", "output": "Second."}),
    user("And?"),
]
NAMED = [user("Look."), {**CALL, "name": "functions.lookup v2"}, OUTPUT, user("And?")]
SYSTEM = [system("Sys."), user("One.")]
EMPTY = [user("One."), user(""), said("Yes."), user("Two.")]
TOOLS: Json = {"tools": [LOOKUP]}
STRICT: Json = {"tools": [{**LOOKUP, "strict": True}]}
SCHEMA: Json = {"text": {"format": JSON_SCHEMA}, **TOOLS}
WHOLE: Json = {"stream": False}
