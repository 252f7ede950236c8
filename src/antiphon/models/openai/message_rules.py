"""Message rules: rewrite a decoded array of messages for upstreams that do not take every one.

Each works on the messages of chat completions and on the input items of the Responses API
alike: on both, who speaks is ``role``. None drops anybody's words, and none changes its
argument. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, TypeAlias

from antiphon.core.provider_fields import EXTRA_FIELDS, REASONING_FIELDS, select_call_fields

Json: TypeAlias = dict[str, Any]
Messages: TypeAlias = list[Json]

_SYSTEM_ROLES: Final = ("system", "developer")
#: What separates the texts of two messages that become one.
_GAP: Final = "\n\n"
#: The content of messages that only a rule needs, and nobody wrote.
_BEGINNING: Final = "(The conversation begins.)"
_CONTINUATION: Final = "(Please go on.)"
_ACKNOWLEDGEMENT: Final = "OK."
_NO_OUTPUT: Final = "(no output)"
_OUTPUT_FOLLOWS: Final = "(The output is in the next message.)"
_ODD_CHARACTER: Final = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_NAME: Final = 64
_ITEM_PREFIXES: Final = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
}
_COMPLETED: Final = {"status": "completed"}
#: The thoughts of a model that had none: some servers take an empty text for none.
_NO_THOUGHTS: Final = " "


# ---- content


def _is_blank(content: Any) -> bool:
    if isinstance(content, list):
        return all("text" in part and _is_blank(part["text"]) for part in content)
    return not content or (isinstance(content, str) and content.isspace())


def _text_part(text: str, like: Iterable[Json]) -> Json:
    """A part of text, of the dialect of some other parts."""
    kinds = [str(part.get("type")) for part in like]
    inner = any(kind.startswith(("input_", "output_")) for kind in kinds)
    return {"type": "input_text" if inner else "text", "text": text}


def join_contents(*contents: Any) -> Any:
    """The contents of several messages as one message's."""
    given = [one for one in contents if one is not None and one not in ("", [])]
    if all(isinstance(one, str) for one in given):
        return _GAP.join(given)
    others = [part for one in given if isinstance(one, list) for part in one]
    parts: Messages = []
    for one in given:
        parts += [_text_part(one, others)] if isinstance(one, str) else one
    return parts


# ---- roles


def single_system_message(messages: Messages) -> Messages:
    """All system messages as one, in front."""
    system = [one for one in messages if one.get("role") in _SYSTEM_ROLES]
    if not system:
        return messages
    first = name_in_words(system[0]) if len(system) > 1 else system[0]
    content = join_contents(first["content"], *(name_in_words(it)["content"] for it in system[1:]))
    others = [one for one in messages if one.get("role") not in _SYSTEM_ROLES]
    return [{**first, "role": "system", "content": content}, *others]


def no_system_role(messages: Messages) -> Messages:
    """What the system messages say, at the beginning of the first user message."""
    messages = single_system_message(messages)
    if not messages or messages[0].get("role") != "system":
        return messages
    system, others = name_in_words(messages[0]), messages[1:]
    if others and others[0].get("role") == "user":
        content = join_contents(system["content"], others[0]["content"])
        return [{**others[0], "content": content}, *others[1:]]
    return [{**system, "role": "user"}, *others]


def alternating_roles(messages: Messages) -> Messages:
    """A user message first, and never two messages of one role in a row."""
    out: Messages = []
    for one in messages:
        role = one.get("role")
        if role == "assistant" and all(it.get("role") in _SYSTEM_ROLES for it in out):
            out.append(_user_message(_BEGINNING, one))
        if out and role in ("user", "assistant", *_SYSTEM_ROLES) and out[-1].get("role") == role:
            out[-1] = _joined(out[-1], one)
        else:
            out.append(one)
    return out


def _joined(first: Json, second: Json) -> Json:
    if first.get("name") != second.get("name"):
        first, second = name_in_words(first), name_in_words(second)
    content = join_contents(first.get("content"), second.get("content"))
    calls = [*(first.get("tool_calls") or ()), *(second.get("tool_calls") or ())]
    joined = {**first, **second, "content": content}
    for name in REASONING_FIELDS & first.keys() & second.keys():
        if type(first[name]) is type(second[name]) and isinstance(first[name], str | list):
            joined[name] = first[name] + second[name]
    return {**joined, "tool_calls": calls} if calls else joined


def user_message_required(messages: Messages) -> Messages:
    """Where there is no user message, the last system message is one."""
    roles = [one.get("role") for one in messages]
    if "user" in roles:
        return messages
    for index in reversed(range(len(messages))):
        if roles[index] in _SYSTEM_ROLES:
            user = {**messages[index], "role": "user"}
            return [*messages[:index], *messages[index + 1 :], user]
    return [_user_message(_BEGINNING, *messages[:1]), *messages]


def user_message_last(messages: Messages) -> Messages:
    """A user message behind what an assistant said last, where a server does not go on alone."""
    if messages and messages[-1].get("role") == "assistant" and not messages[-1].get("tool_calls"):
        return [*messages, _user_message(_CONTINUATION, messages[-1])]
    return messages


def assistant_after_tool(messages: Messages) -> Messages:
    """An assistant's message between a tool's output and what a user or the system says."""
    out: Messages = []
    for one in messages:
        if out and is_tool_output(out[-1]) and one.get("role") in ("user", *_SYSTEM_ROLES):
            out.append({**_user_message(_ACKNOWLEDGEMENT, one), "role": "assistant"})
        out.append(one)
    return out


def _user_message(content: Any, *like: Json) -> Json:
    """A user message, of the dialect of some other message."""
    message = {"role": "user", "content": content}
    return {"type": "message", **message} if any("type" in one for one in like) else message


def names_in_words(messages: Messages) -> Messages:
    """The names of those who speak, in front of what they say."""
    return [name_in_words(one) if one.get("role") else one for one in messages]


def name_in_words(message: Json) -> Json:
    """One message with the name of its speaker in its content."""
    if "name" not in message or message.get("role") == "tool":
        return message
    rest = {key: value for key, value in message.items() if key != "name"}
    content = rest.get("content")
    if isinstance(content, str):
        return {**rest, "content": f"{message['name']}: {content}"}
    parts = content or []
    return {**rest, "content": [_text_part(f"{message['name']}:", parts), *parts]}


# ---- empty messages, and what only its model reads


def no_empty_messages(messages: Messages) -> Messages:
    """Without messages that say nothing; outputs that are empty say so."""
    out: Messages = []
    for one in messages:
        key = _content_key(one)
        content = one.get(key)
        if key not in one or not _is_blank(content):
            out.append({**one, key: _without_blanks(content)} if type(content) is list else one)
        elif is_tool_output(one):
            out.append({**one, key: _NO_OUTPUT})
        elif one.get("tool_calls"):
            out.append({**one, key: None})
    return out or messages


def _without_blanks(parts: Messages) -> Messages:
    return [part for part in parts if part.get("text") != ""]


def _content_key(message: Json) -> str:
    return "output" if "call_id" in message else "content"


def text_contents(messages: Messages) -> Messages:
    """Contents of text alone as one text, for servers that know no parts."""

    def plain(content: Any) -> Any:
        if not isinstance(content, list) or not all("text" in part for part in content):
            return content
        return "".join(part["text"] for part in content)

    return [
        {**one, key: plain(one[key])} if (key := _content_key(one)) in one else one
        for one in messages
    ]


def named_items(items: Messages) -> Messages:
    """Items with ids and a status, for servers of the Responses API that miss them."""

    def named(index: int, item: Json) -> Json:
        prefix = _ITEM_PREFIXES.get(item.get("type", ""))
        if prefix is None:
            return item
        return {"id": f"{prefix}_{_digest(f'{index} {item}', 32)}", **_COMPLETED, **item}

    return [named(index, item) for index, item in enumerate(items)]


def no_reasoning_items(messages: Messages) -> Messages:
    """Without the items of reasoning, which only their model can read."""
    return [one for one in messages if one.get("type") != "reasoning"]


def no_thoughts(messages: Messages) -> Messages:
    """Without what the model thought: only itself could read that, and it refuses to."""
    return [_without(one, REASONING_FIELDS) for one in no_reasoning_items(messages)]


def no_provider_fields(messages: Messages) -> Messages:
    """Without the other fields of messages and calls that only their model could read."""
    out: Messages = []
    for one in messages:
        plain = _without(one, (*EXTRA_FIELDS, "phase"))
        if plain.get("tool_calls"):
            plain["tool_calls"] = [_plain_call(call) for call in plain["tool_calls"]]
        elif plain.get("type") == "function_call":
            plain = _plain_call(plain)
        out.append(plain)
    return out


def _plain_call(call: Json) -> Json:
    fields = select_call_fields(call)
    plain = _without(call, fields.keys() - {"function"})
    if "function" in fields:
        plain["function"] = _without(call["function"], fields["function"])
    return plain


def required_thoughts(messages: Messages) -> Messages:
    """Thoughts in each message with calls, for a server that misses those of other models."""
    return [
        {**one, "reasoning_content": _NO_THOUGHTS}
        if one.get("tool_calls") and not REASONING_FIELDS & one.keys()
        else one
        for one in messages
    ]


def _without(fields: Json, names: Collection[str]) -> Json:
    return {name: value for name, value in fields.items() if name not in names}


# ---- tools


def is_tool_output(message: Json) -> bool:
    """Whether a message or an item is the output of a call."""
    return message.get("role") == "tool" or (
        "call_id" in message and str(message.get("type")).endswith("_call_output")
    )


def _is_call(message: Json) -> bool:
    return "call_id" in message and str(message.get("type")).endswith("_call")


def text_tool_outputs(messages: Messages) -> Messages:
    """Text alone as outputs of calls: the rest is a user message behind all outputs of a round."""
    out: Messages = []
    moved: list[tuple[str, Messages]] = []
    for one in messages:
        if moved and not is_tool_output(one):
            out.append(_moved_message(moved, one))
            moved = []
        key = _content_key(one)
        content = one.get(key)
        if not is_tool_output(one) or not isinstance(content, list):
            out.append(one)
            continue
        others = [part for part in content if "text" not in part]
        words = "".join(part["text"] for part in content if "text" in part)
        out.append({**one, key: words or (_OUTPUT_FOLLOWS if others else "")})
        if others:
            moved.append((str(one.get("tool_call_id") or one.get("call_id")), others))
    if moved:
        out.append(_moved_message(moved, out[-1]))
    return out


def _moved_message(moved: list[tuple[str, Messages]], like: Json) -> Json:
    parts: Messages = []
    for call_id, others in moved:
        if len(moved) > 1:
            # Which of the outputs a picture belongs to.
            parts.append(_text_part(f"Output of the call {call_id}:", others))
        parts += others
    return _user_message(parts, like)


def single_calls(messages: Messages) -> Messages:
    """One call in a message, with its output behind it: some templates know no more."""
    out: Messages = []
    waiting: dict[str, Json] = {}
    for one in messages:
        if is_tool_output(one) and one.get("tool_call_id") in waiting:
            out += [waiting.pop(one["tool_call_id"]), one]
            continue
        out += waiting.values()
        waiting = {}
        calls = one.get("tool_calls") or ()
        if len(calls) < 2:
            out.append(one)
            continue
        rest = {"role": one["role"], "content": ""}
        for number, call in enumerate(calls):
            waiting[call["id"]] = {**(rest if number else one), "tool_calls": [call]}
    return [*out, *waiting.values()]


def plain_function_names(messages: Messages) -> Messages:
    """Names of called functions with the characters that all upstreams take: some write others."""

    def plain(function: Json) -> Json:
        name = _ODD_CHARACTER.sub("_", str(function["name"]))[:_LONGEST_NAME]
        return {**function, "name": name or "function"}

    out: Messages = []
    for one in messages:
        if one.get("tool_calls"):
            calls = [{**call, "function": plain(call["function"])} for call in one["tool_calls"]]
            out.append({**one, "tool_calls": calls})
        else:
            out.append(plain(one) if one.get("type") == "function_call" else one)
    return out


def no_tool_messages(messages: Messages) -> Messages:
    """Calls and their outputs in words, for a model that has no tools."""
    out: Messages = []
    names: dict[str, str] = {}
    for one in messages:
        if is_tool_output(one):
            call_id = str(one.get("tool_call_id") or one.get("call_id"))
            heading = f"Output of {names.get(call_id, call_id)}:"
            out.append(_user_message(_joined_words(heading, one.get(_content_key(one))), one))
        elif _is_call(one) or one.get("tool_calls"):
            calls = [(one["call_id"], one)] if _is_call(one) else _functions_of(one)
            names |= {call_id: str(function["name"]) for call_id, function in calls}
            words = [
                f"I call {it['name']} with {it.get('arguments', it.get('input'))}"
                for _, it in calls
            ]
            content = join_contents(None if _is_call(one) else one.get("content"), *words)
            out.append({**_user_message(content, one), "role": "assistant"})
        else:
            out.append(one)
    return out


def _functions_of(message: Json) -> list[tuple[str, Json]]:
    return [(call["id"], call["function"]) for call in message["tool_calls"]]


def _joined_words(heading: str, content: Any) -> Any:
    if isinstance(content, list):
        return [_text_part(heading, content), *content]
    return f"{heading}\n{content or _NO_OUTPUT}"


def called_functions(messages: Messages) -> list[str]:
    """The names of the functions that were called, each once."""
    chat = [it for one in messages if one.get("tool_calls") for _, it in _functions_of(one)]
    items = [one for one in messages if one.get("type") == "function_call"]
    return list(dict.fromkeys(str(one["name"]) for one in (*chat, *items)))


def no_image_detail(messages: Messages) -> Messages:
    """Pictures without how closely they are to be looked at."""

    def plain(part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        bare = _without(part, ("detail",))
        image = bare.get("image_url")
        return {**bare, "image_url": _without(image, ("detail",))} if type(image) is dict else bare

    return [
        {**one, key: [plain(part) for part in content]}
        if isinstance(content := one.get(key := _content_key(one)), list)
        else one
        for one in messages
    ]


def _id_rule(
    is_valid: Callable[[str], bool], make: Callable[[str], str]
) -> Callable[[Messages], Messages]:
    """A rule that replaces ids of calls, and those of their outputs with them.

    Ids that were used again get one each: an output belongs to the last call before it.
    """

    def rule(messages: Messages) -> Messages:
        uses: dict[str, int] = {}

        def replaced(given: str) -> str:
            use = uses.get(given, 1)
            return given if use == 1 and is_valid(given) else make(f"{use} {given}")

        def call(one: Json, key: str) -> Json:
            uses[one[key]] = uses.get(one[key], 0) + 1
            return {**one, key: replaced(one[key])}

        def fitted(one: Json) -> Json:
            if one.get("tool_calls"):
                return {**one, "tool_calls": [call(it, "id") for it in one["tool_calls"]]}
            if _is_call(one):
                return call(one, "call_id")
            if is_tool_output(one):
                key = "call_id" if "call_id" in one else "tool_call_id"
                return {**one, key: replaced(one[key])}
            return one

        return [fitted(one) for one in messages]

    return rule


_NINE: Final = re.compile(r"[A-Za-z0-9]{9}").fullmatch
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]{1,40}").fullmatch


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


#: Ids of calls that are nine letters and digits.
nine_character_call_ids = _id_rule(lambda it: bool(_NINE(it)), lambda it: _digest(it, 9))
#: Ids of calls that are at most forty letters, digits, underscores and hyphens.
plain_call_ids = _id_rule(lambda it: bool(_PLAIN(it)), lambda it: "call_" + _digest(it, 32))
