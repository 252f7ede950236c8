"""Strict upstreams: what they refuse, in their own words, as functions of the request.

    world.upstream_answers(strict(SYSTEM_REFUSALS["qwen"]))

A check finds what an upstream does not take in a request, and says so in the upstream's words.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

from support.misbehaving_upstream import Behaviour, Request
from support.scenario import DONE, body_of, end, stream_of, text, whole

Json = dict[str, Any]
Check = Callable[[Json], str | None]
PICTURE = "data:image/png;base64,iVBORw0KGgo="


def answer_hello(request: Json) -> Behaviour:
    """ "Hello", in the dialect and form that the request wants."""
    if "input" in request:
        part = {"type": "output_text", "text": "Hello"}
        return body_of({"status": "completed", "output": [{"type": "message", "content": [part]}]})
    if request.get("stream"):
        return stream_of(text("Hello"), end(), DONE)
    return whole({"role": "assistant", "content": "Hello"})


def strict(check: Check, status: int = 400) -> Callable[[Request], Behaviour]:
    """An upstream that refuses what a check finds fault with; the fault is its words."""

    def behave(request: Request) -> Behaviour:
        fault = check(request.json)
        if fault is not None:
            error = {"message": fault, "type": "invalid_request_error"}
            return body_of({"error": error}, status)
        return answer_hello(request.json)

    return behave


def messages_of(request: Json) -> list[Json]:
    given: list[Json] = request["messages"] if "messages" in request else request["input"]
    return given


def texts(value: Any) -> Iterator[str]:
    """Every text of the messages of a request."""
    if isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, dict):
        for key in ("content", "output", "text", "arguments", "function", "tool_calls", "name"):
            yield from texts(value.get(key))
    elif isinstance(value, str):
        yield value


def all_words(request: Json) -> str:
    return "\n".join(texts(messages_of(request)))


# ---- messages


def developer(words: Any) -> Json:
    return {"role": "developer", "content": words}


def system(words: Any) -> Json:
    return {"role": "system", "content": words}


def user(words: Any = "Hi") -> Json:
    return {"role": "user", "content": words}


def said(words: Any = "Yes.") -> Json:
    return {"role": "assistant", "content": words}


def part(words: str) -> Json:
    return {"type": "input_text", "text": words}


IMAGE: Json = {"type": "input_image", "image_url": PICTURE}
CALL: Json = {"type": "function_call", "call_id": "call_1", "name": "lookup", "arguments": "{}"}
OUTPUT: Json = {"type": "function_call_output", "call_id": "call_1", "output": "Found."}
ROUND: list[Json] = [user("Look."), CALL, OUTPUT, user("And?")]


# ---- checks


def only_first_is_system(words: str) -> Check:
    def check(request: Json) -> str | None:
        roles = [one.get("role") for one in messages_of(request)]
        fine = not {"system", "developer"} & set(roles[1:]) and "developer" not in roles
        return None if fine else words

    return check


def no_system(words: str) -> Check:
    def check(request: Json) -> str | None:
        roles = {one.get("role") for one in messages_of(request)}
        return words if {"system", "developer"} & roles else None

    return check


SYSTEM_REFUSALS: dict[str, Check] = {
    "qwen": only_first_is_system("System message must be at the beginning."),
    "single": only_first_is_system("Only a single system message is supported."),
    "mistral": only_first_is_system("Unexpected role 'system' after role 'user'"),
    "multiple": only_first_is_system("Multiple system messages are not allowed"),
    "jinja": only_first_is_system(
        "Error rendering prompt with jinja template: raise_exception('bad message order')"
    ),
    "gemma": no_system("System role not supported"),
    "gemini": no_system("Developer instruction is not enabled for models/gemma-3"),
    "only-two-roles": no_system("Only user and assistant roles are supported!"),
}


def no_user_after_tool(words: str) -> Check:
    def check(request: Json) -> str | None:
        roles = [one["role"] for one in request["messages"]]
        wrong = ("tool", "user") in itertools.pairwise(roles)
        return words if wrong else None

    return check


def ids_are(pattern: str, words: str) -> Check:
    def check(request: Json) -> str | None:
        made: list[str] = []
        for one in messages_of(request):
            ids = [it["id"] for it in one.get("tool_calls") or ()]
            ids += [one["call_id"]] if one.get("type") == "function_call" else []
            if any(not re.fullmatch(pattern, it) or it in made for it in ids):
                return words.format(id=ids[0])
            made += ids
            answered = one.get("tool_call_id") or (
                one["call_id"] if one.get("type") == "function_call_output" else None
            )
            if answered is not None and answered not in made:
                return f"no call {answered}"
        return None

    return check


ID_REFUSALS = {
    "ids-of-nine": ids_are(
        "[a-zA-Z0-9]{9}",
        "Tool call id was {id} but must be a-z, A-Z, 0-9, with a length of 9.",
    ),
    "nine-characters": ids_are("[a-zA-Z0-9]{9}", "tool_call_id must be exactly nine characters"),
    "pattern": ids_are(
        "[a-zA-Z0-9_-]+",
        "messages.1.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'",
    ),
    "forty": ids_are(
        ".{1,40}",
        "Invalid 'messages[1].tool_calls[0].id': string too long. Expected a string with "
        "maximum length 40, but got a string with length 66 instead.",
    ),
    "unique": ids_are(".*", "Duplicate tool call id {id}"),
}


SCHEMA: Json = {"type": "object", "properties": {"city": {"type": "string"}}}
JSON_SCHEMA: Json = {"type": "json_schema", "name": "place", "schema": SCHEMA}


def formats(words: str, *taken: str | None) -> Check:
    def check(request: Json) -> str | None:
        given = request.get("response_format") or (request.get("text") or {}).get("format") or {}
        return None if given.get("type") in taken else words

    return check


FORMAT_REFUSALS = {
    "format-refused": formats(
        "This response_format type is unavailable now", "json_object", "text", None
    ),
    "groq": formats(
        "This model does not support response format `json_schema`. See supported models",
        "json_object",
        None,
    ),
    "azure": formats(
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this "
        "model.",
        "json_object",
        None,
    ),
    "neither": formats("response_format is not supported by this model", None),
    "no-structured-output": formats("This model does not support structured output.", None),
}
