"""Ids: a response's id is its time and 80 random bits; its items' ids are made from it.

The time, 48 bits of milliseconds since 1970, comes first: ids made one after another lie side by
side in a store's index, so a new turn changes a page that is in memory already instead of a
random one. Nothing relies on the order: a clock that jumps costs only that. Whoever sees an id
can read the time from it, and cannot guess another.

An item's id is its kind's prefix, the response's 32 hex digits, and the item's
position in the turn. So an item needs no id in the store and no index to be found.
"""

from __future__ import annotations

import os
import re
import time

_RESPONSE = re.compile(r"resp_([0-9a-f]{32})\Z")
_CONVERSATION = re.compile(r"conv_([0-9a-f]{32})\Z")
_CHAT = re.compile(r"chat_([0-9a-f]{32})\Z")
_ITEM = re.compile(r"[a-z]+_([0-9a-f]{32})([0-9a-f]{2,4})\Z")

_PREFIX = {
    "message": "msg_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "reasoning": "rs_",
    "compaction": "cmp_",
    "mcp_list_tools": "mcpl_",
    "mcp_call": "mcp_",
    "mcp_approval_request": "mcpr_",
    "mcp_approval_response": "mcpa_",
    "erased": "gone_",
    "web_search_call": "ws_",
    "file_search_call": "fs_",
    "code_interpreter_call": "ci_",
    "image_generation_call": "ig_",
    "computer_call": "cu_",
    "custom_tool_call": "ctc_",
    "custom_tool_call_output": "ctco_",
    "local_shell_call": "lsh_",
    "shell_call": "sh_",
    "apply_patch_call": "apc_",
    "tool_search_call": "tsc_",
}
#: The prefix of all kinds that have none of their own.
_OTHER_PREFIX = "item_"


#: Random digits not used yet, 20 for an id. The system's randomness costs more to get than to use.
_unused_digits: list[str] = []
_RANDOM_BYTES = 10
_POOL_SIZE = 64
if hasattr(os, "register_at_fork"):
    # Two processes must not use the same.
    os.register_at_fork(after_in_child=_unused_digits.clear)


def _random_digits() -> str:
    if not _unused_digits:
        digits = os.urandom(_RANDOM_BYTES * _POOL_SIZE).hex()
        size = 2 * _RANDOM_BYTES
        _unused_digits.extend(digits[at : at + size] for at in range(0, len(digits), size))
    return _unused_digits.pop()


def _new_digits() -> str:
    """The 32 hex digits of a new id."""
    milliseconds = int(time.time() * 1000) & (1 << 48) - 1
    return f"{milliseconds:012x}{_random_digits()}"


#: Request ids of one process begin alike, so that its lines in a joined log can be told.
_REQUEST_PREFIX = "req_" + os.urandom(6).hex()


def new_request_id() -> str:
    """A new id for a request, for its log lines alone."""
    return _REQUEST_PREFIX + _random_digits()


def new_response_id() -> str:
    """A new, unguessable response id."""
    return "resp_" + _new_digits()


def new_conversation_id() -> str:
    """A new, unguessable conversation id."""
    return "conv_" + _new_digits()


def conversation_key(conversation_id: str) -> bytes | None:
    """The 16 bytes behind a conversation id; None if it cannot be one of ours."""
    match = _CONVERSATION.match(conversation_id)
    return bytes.fromhex(match[1]) if match else None


def conversation_id_of(key: bytes) -> str:
    """The conversation id of 16 bytes: the reverse of ``conversation_key``."""
    return "conv_" + key.hex()


def chat_key(chat_id: str) -> bytes | None:
    """The 16 bytes behind a chat id; None if it cannot be one of ours."""
    match = _CHAT.match(chat_id)
    return bytes.fromhex(match[1]) if match else None


def chat_id_of(key: bytes) -> str:
    """The chat id of 16 bytes, which are those of its first turn's response id."""
    return "chat_" + key.hex()


def new_call_id() -> str:
    """An id for a tool call whose model gave it none."""
    return "call_" + os.urandom(12).hex()


def response_key(response_id: str) -> bytes | None:
    """The 16 bytes behind a response id; None if it cannot be one of ours."""
    match = _RESPONSE.match(response_id)
    return bytes.fromhex(match[1]) if match else None


def response_id_of(key: bytes) -> str:
    """The response id of 16 bytes: the reverse of ``response_key``."""
    return "resp_" + key.hex()


def time_of_key(key: bytes) -> float:
    """When the id of these 16 bytes was made, in seconds since 1970."""
    return int.from_bytes(key[:6]) / 1000


def completion_id_of(response_id: str) -> str:
    """The id that a response has as a chat completion."""
    return "chatcmpl-" + response_id.removeprefix("resp_")


def to_response_id(name: str) -> str:
    """The response id of a chat completion's id; any other name as it is."""
    return "resp_" + name.removeprefix("chatcmpl-") if name.startswith("chatcmpl-") else name


def item_id(response_id: str, kind: str, position: int) -> str:
    """The id of a turn's item; ``position`` counts from 0, input items first."""
    return f"{_PREFIX.get(kind, _OTHER_PREFIX)}{response_id[5:]}{position:02x}"


def parse_item_id(name: str) -> tuple[str, int] | None:
    """The response that an item belongs to, and its position there; None: no id of ours.

    The kind in front is not checked: ids are compared whole with what is found there.
    """
    match = _ITEM.match(name)
    return ("resp_" + match[1], int(match[2], 16)) if match else None
