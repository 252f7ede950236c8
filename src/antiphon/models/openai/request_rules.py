"""Request rules: each rewrites a request so that an upstream with one more limit takes it. Pure.

A rule has a name, and is chosen for an upstream by its settings (``quirks``) or by what it
refused (``refusal_rules``). It works on the decoded request of either dialect. It changes the
form, never anybody's words: what has no place of its own goes where it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

import msgspec

from antiphon.core.function_schemas import map_schemas
from antiphon.models.openai import call_rules, message_rules
from antiphon.models.openai.message_rules import Json, Messages, no_tool_messages
from antiphon.models.openai.tool_type_rules import without_tool_type

_encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(dict[str, Any]).decode

#: Rules that take the name of something behind a colon.
_FIELD: Final = "without-field"
_KEYWORD: Final = "without-schema-keyword"
_TOOL_TYPE: Final = "without-tool-type"

_SCHEMA_WORDS: Final = (
    "Answer with one JSON value that is valid against this JSON schema, and with nothing else:\n"
)
_OBJECT_WORDS: Final = "Answer with one JSON object, and with nothing else."


def _on_messages(rule: Callable[[Messages], Messages]) -> Callable[[Json], Json]:
    def on_request(request: Json) -> Json:
        key = "messages" if "messages" in request else "input"
        return {**request, key: rule(request[key])}

    return on_request


# ---- formats of answers


def _format_of(request: Json) -> Json:
    """The format, as the Responses API has it; empty: none."""
    given = request.get("response_format") or (request.get("text") or {}).get("format") or {}
    return {"type": given["type"], **given["json_schema"]} if "json_schema" in given else given


def _with_format(request: Json, answer_format: Json | None) -> Json:
    if "response_format" in request:
        rest = {key: value for key, value in request.items() if key != "response_format"}
        if answer_format is None:
            return rest
        if answer_format["type"] == "json_schema":
            schema = {key: value for key, value in answer_format.items() if key != "type"}
            answer_format = {"type": "json_schema", "json_schema": schema}
        return {**rest, "response_format": answer_format}
    text = {key: value for key, value in request["text"].items() if key != "format"}
    if answer_format is not None:
        text["format"] = answer_format
    return {**request, "text": text} if text else {k: v for k, v in request.items() if k != "text"}


def _with_words(request: Json, answer_format: Json) -> Json:
    """The request with the format in words, at the end of the first system message."""
    if answer_format["type"] == "json_schema":
        description = answer_format.get("description")
        schema = msgspec.json.encode(answer_format["schema"]).decode()
        words = _SCHEMA_WORDS + schema + (f"\n{description}" if description else "")
    else:
        words = _OBJECT_WORDS

    def add(messages: Messages) -> Messages:
        if messages and messages[0].get("role") in ("system", "developer"):
            content = message_rules.join_contents(messages[0].get("content"), words)
            return [{**messages[0], "content": content}, *messages[1:]]
        kind = {"type": "message"} if "input" in request else {}
        return [{**kind, "role": "system", "content": words}, *messages]

    return _on_messages(add)(request)


def _json_object_format(request: Json) -> Json:
    given = _format_of(request)
    if given.get("type") != "json_schema":
        return request
    return _with_words(_with_format(request, {"type": "json_object"}), given)


def _json_schema_format(request: Json) -> Json:
    if _format_of(request).get("type") != "json_object":
        return request
    return _with_format(
        request, {"type": "json_schema", "name": "object", "schema": {"type": "object"}}
    )


def _format_in_words(request: Json) -> Json:
    given = _format_of(request)
    if given.get("type") not in ("json_schema", "json_object"):
        return request
    return _with_words(_with_format(request, None), given)


# ---- fields


def _rename(old: str, new: str) -> Callable[[Json], Json]:
    def rename(request: Json) -> Json:
        return {new if key == old else key: value for key, value in request.items()}

    return rename


def _without(request: Json, names: Collection[str]) -> Json:
    return {key: value for key, value in request.items() if key not in names}


def _on_functions(request: Json, change: Callable[[Json], Json]) -> Json:
    """The request with each function tool changed, in either dialect's shape."""
    if not request.get("tools"):
        return request

    def changed(tool: Json) -> Json:
        if tool.get("type") != "function":
            return tool
        inner = tool.get("function")
        return change(tool) if inner is None else {**tool, "function": change(inner)}

    return {**request, "tools": [changed(tool) for tool in request["tools"]]}


def _no_strict(request: Json) -> Json:
    """Without ``strict``, in tools and in the format of the answer."""
    given = _format_of(request)
    if "strict" in given:
        request = _with_format(request, _without(given, ("strict",)))
    return _on_functions(request, lambda one: _without(one, ("strict",)))


def _closed_schemas(request: Json) -> Json:
    """Schemas whose objects take no other properties: what fits them fits the open ones, too."""

    def closed(schema: Json) -> Json:
        is_object = schema.get("type") == "object" or "properties" in schema
        return {"additionalProperties": False, **schema} if is_object else schema

    given = _format_of(request)
    if isinstance(given.get("schema"), dict):
        request = _with_format(request, {**given, "schema": map_schemas(given["schema"], closed)})
    return _on_parameters(request, closed)


def _no_tool_messages(request: Json) -> Json:
    # A model that is offered tools has to see its calls as such.
    return request if request.get("tools") else _on_messages(no_tool_messages)(request)


def _tools_of_history(request: Json) -> Json:
    """With the functions that were called, where none are offered; they cannot be called."""
    is_chat = "messages" in request
    names = message_rules.called_functions(request["messages" if is_chat else "input"])
    if request.get("tools") or not names:
        return request
    schema = {"type": "object", "properties": {}}
    functions = [{"name": name, "parameters": schema} for name in names]
    tools = [
        {"type": "function", "function": one} if is_chat else {"type": "function", **one}
        for one in functions
    ]
    return {**request, "tools": tools, "tool_choice": "none"}


def _always_stream(request: Json) -> Json:
    if request.get("stream"):
        return request
    options = {"stream_options": {"include_usage": True}} if "messages" in request else {}
    return {**request, "stream": True, **options}


def _never_stream(request: Json) -> Json:
    return _without(request, ("stream", "stream_options"))


def _named_items(request: Json) -> Json:
    return _on_messages(message_rules.named_items)(request) if "input" in request else request


def _on_parameters(request: Json, change: Callable[[Json], Json]) -> Json:
    """The request with each schema within the parameters of its functions changed."""

    def changed(function: Json) -> Json:
        parameters = function.get("parameters")
        if not parameters:
            return function
        return {**function, "parameters": map_schemas(parameters, change)}

    return _on_functions(request, changed)


def _without_keyword(request: Json, keyword: str) -> Json:
    return _on_parameters(request, lambda schema: _without(schema, (keyword,)))


def _no_encrypted_reasoning(request: Json) -> Json:
    include = [one for one in request.get("include", ()) if one != "reasoning.encrypted_content"]
    return {**request, "include": include} if include else _without(request, ("include",))


# ---- all of them

#: Every rule without a parameter, in the order of application.
RULES: Final[dict[str, Callable[[Json], Json]]] = {
    "max-completion-tokens": _rename("max_tokens", "max_completion_tokens"),
    "max-tokens": _rename("max_completion_tokens", "max_tokens"),
    "no-strict": _no_strict,
    "closed-schemas": _closed_schemas,
    "always-stream": _always_stream,
    "never-stream": _never_stream,
    "no-encrypted-reasoning": _no_encrypted_reasoning,
    "json-schema-format": _json_schema_format,
    "json-object-format": _json_object_format,
    "format-in-words": _format_in_words,
    "no-old-reasoning": _on_messages(message_rules.no_reasoning_items),
    "no-thoughts": _on_messages(message_rules.no_thoughts),
    "no-provider-fields": _on_messages(message_rules.no_provider_fields),
    "required-thoughts": _on_messages(message_rules.required_thoughts),
    "no-tool-messages": _no_tool_messages,
    "tools-of-history": _tools_of_history,
    "no-image-detail": _on_messages(message_rules.no_image_detail),
    "no-names": _on_messages(message_rules.names_in_words),
    "text-tool-outputs": _on_messages(message_rules.text_tool_outputs),
    "text-contents": _on_messages(message_rules.text_contents),
    "named-tool-outputs": _on_messages(call_rules.named_tool_outputs),
    "signed-calls": _on_messages(call_rules.signed_calls),
    "single-calls": _on_messages(message_rules.single_calls),
    "plain-function-names": _on_messages(message_rules.plain_function_names),
    "no-empty-messages": _on_messages(message_rules.no_empty_messages),
    "no-system-role": _on_messages(message_rules.no_system_role),
    "single-system-message": _on_messages(message_rules.single_system_message),
    "user-message-required": _on_messages(message_rules.user_message_required),
    "assistant-after-tool": _on_messages(message_rules.assistant_after_tool),
    "alternating-roles": _on_messages(message_rules.alternating_roles),
    "calls-without-content": _on_messages(call_rules.calls_without_content),
    "user-message-last": _on_messages(message_rules.user_message_last),
    "plain-call-ids": _on_messages(message_rules.plain_call_ids),
    "nine-character-call-ids": _on_messages(message_rules.nine_character_call_ids),
    "named-items": _named_items,
}


def is_rule(name: str) -> bool:
    """Whether a rule has this name."""
    base, colon, parameter = name.partition(":")
    return name in RULES or (base in (_FIELD, _KEYWORD, _TOOL_TYPE) and bool(colon and parameter))


def without_field(name: str) -> str:
    """The rule that leaves a field of the request out."""
    return f"{_FIELD}:{name}"


def without_tools_of_type(kind: str) -> str:
    """The rule that leaves tools of a type out."""
    return f"{_TOOL_TYPE}:{kind}"


def without_schema_keyword(name: str) -> str:
    """The rule that leaves a keyword out of the schemas of functions."""
    return f"{_KEYWORD}:{name}"


def apply_rules(request: Json, rules: Iterable[str]) -> Json:
    """A decoded request, rewritten by all of these rules; the argument stays as it is."""
    chosen = set(rules)
    for name in sorted(chosen):
        base, _, parameter = name.partition(":")
        if base == _FIELD:
            request = _without(request, (parameter,))
        elif base == _KEYWORD:
            request = _without_keyword(request, parameter)
        elif base == _TOOL_TYPE:
            request = without_tool_type(request, parameter)
    for name, rule in RULES.items():
        if name in chosen:
            request = rule(request)
    return request


def fit_request(body: bytes, rules: Collection[str]) -> bytes:
    """A request's JSON, rewritten by these rules; without any, it is the same bytes."""
    return _encode(apply_rules(decode_request(body), rules)) if rules else body
