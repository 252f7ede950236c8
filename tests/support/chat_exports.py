"""Export files of chat programs, made for tests: one of each format, with branches and images.

Each chat has the same words: a question with two answers, the second of which goes on.
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from PIL import Image

Json = dict[str, Any]


def png(color: str = "red") -> bytes:
    """A small image."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), color).save(buffer, "PNG")
    return buffer.getvalue()


PNG = png()
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
#: What every chat of this module says: the branch shown last, and the one beside it.
CURRENT = ["Name a colour.", "Blue.", "And a fruit?", "Plum."]
OTHER = ["Name a colour.", "Red."]
_START = 1_700_000_000


def zipped(files: Mapping[str, bytes | Json | list[Any]]) -> bytes:
    """A zip of these files; what is no bytes is written as JSON."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            archive.writestr(name, data)
    return buffer.getvalue()


def chatgpt_node(
    name: str,
    parent: str | None,
    children: list[str],
    role: str = "",
    content: Json | str | None = None,
    **fields: Any,
) -> tuple[str, Json]:
    """A node of ChatGPT's mapping; a text is content of that type."""
    message = None
    if role:
        if not isinstance(content, dict):
            content = {"content_type": "text", "parts": [content or ""]}
        message = {
            "id": name,
            "author": {"role": role, "name": fields.pop("author_name", None), "metadata": {}},
            "content": content,
            "recipient": "all",
            "metadata": {},
            **fields,
        }
    return name, {"id": name, "message": message, "parent": parent, "children": children}


def chatgpt_chat(chat_id: str = "gpt-1", title: str = "Colours", suffix: str = "") -> Json:
    """A conversation of ChatGPT's; ``suffix`` makes its words differ from those of others."""
    model = {"metadata": {"model_slug": "gpt-4o"}}
    hidden = {"metadata": {"is_visually_hidden_from_conversation": True}}
    nodes = [
        chatgpt_node("root", None, ["sys"]),
        chatgpt_node("sys", "root", ["q1"], "system", "", create_time=None, **hidden),
        chatgpt_node("q1", "sys", ["a1", "a2"], "user", CURRENT[0] + suffix, create_time=_START),
        chatgpt_node("a1", "q1", [], "assistant", OTHER[1], create_time=_START + 1.5, **model),
        chatgpt_node("a2", "q1", ["q2"], "assistant", CURRENT[1], create_time=_START + 9, **model),
        chatgpt_node("q2", "a2", ["a3"], "user", CURRENT[2], create_time=_START + 20),
        chatgpt_node("a3", "q2", [], "assistant", CURRENT[3], create_time=_START + 21, **model),
    ]
    return {
        "id": chat_id,
        "conversation_id": chat_id,
        "title": title,
        "create_time": float(_START),
        "update_time": _START + 21.0,
        "mapping": dict(nodes),
        "current_node": "a3",
        "moderation_results": [],
        "plugin_ids": None,
    }


def claude_message(name: str, parent: str, sender: str, content: Any, second: int) -> Json:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {
        "uuid": name,
        "parent_message_uuid": parent,
        "sender": sender,
        "text": content if isinstance(content, str) else "",
        "content": blocks,
        "created_at": f"2023-11-14T22:13:{second:02d}.123456Z",
        "attachments": [],
        "files": [],
    }


def claude_chat(chat_id: str = "claude-1") -> Json:
    root = "00000000-0000-4000-8000-000000000000"
    return {
        "uuid": chat_id,
        "name": "Colours",
        "created_at": "2023-11-14T22:13:20Z",
        "updated_at": "2023-11-14T22:13:41Z",
        "account": {"uuid": "someone"},
        "chat_messages": [
            claude_message("q1", root, "human", CURRENT[0], 20),
            claude_message("a1", "q1", "assistant", OTHER[1], 21),
            claude_message("a2", "q1", "assistant", CURRENT[1], 29),
            claude_message("q2", "a2", "human", CURRENT[2], 40),
            claude_message("a3", "q2", "assistant", CURRENT[3], 41),
        ],
    }


def _tree_messages() -> list[tuple[str, str | None, str, str, int]]:
    return [
        ("q1", None, "user", CURRENT[0], 0),
        ("a1", "q1", "assistant", OTHER[1], 1),
        ("a2", "q1", "assistant", CURRENT[1], 9),
        ("q2", "a2", "user", CURRENT[2], 20),
        ("a3", "q2", "assistant", CURRENT[3], 21),
    ]


def open_webui_chat(chat_id: str = "owui-1") -> Json:
    messages = {
        name: {
            "id": name,
            "parentId": parent,
            "childrenIds": [one[0] for one in _tree_messages() if one[1] == name],
            "role": role,
            "content": text,
            "timestamp": _START + second,
            **({"model": "llama3"} if role == "assistant" else {"models": ["llama3"]}),
        }
        for name, parent, role, text, second in _tree_messages()
    }
    return {
        "id": chat_id,
        "user_id": "u",
        "title": "Colours",
        "chat": {
            "title": "Colours",
            "models": ["llama3"],
            "params": {},
            "history": {"messages": messages, "currentId": "a3"},
            "messages": [],
            "timestamp": _START * 1000,
        },
        "created_at": _START,
        "updated_at": _START + 21,
        "pinned": True,
    }


def librechat_chat(chat_id: str = "libre-1", *, is_nested: bool = False) -> Json:
    flat: list[Json] = [
        {
            "messageId": name,
            "parentMessageId": parent or "00000000-0000-0000-0000-000000000000",
            "text": text,
            "sender": "User" if role == "user" else "GPT-4",
            "isCreatedByUser": role == "user",
            "createdAt": f"2023-11-14T22:13:{20 + second:02d}.000Z",
            "model": None if role == "user" else "gpt-4",
        }
        for name, parent, role, text, second in _tree_messages()
    ]
    messages = flat
    if is_nested:
        by_id: dict[str, Json] = {one["messageId"]: {**one, "children": []} for one in flat}
        for one in by_id.values():
            if one["parentMessageId"] in by_id:
                by_id[one["parentMessageId"]]["children"].append(one)
        messages = [one for one in by_id.values() if one["parentMessageId"] not in by_id]
    return {
        "conversationId": chat_id,
        "endpoint": "openAI",
        "title": "Colours",
        "exportAt": "10:00:00 GMT",
        "branches": True,
        "recursive": is_nested,
        "options": {"model": "gpt-4", "promptPrefix": "Be short."},
        "messages": messages,
    }


def llama_cpp_chat(chat_id: str = "llama-1") -> Json:
    messages = [
        {
            "id": "root",
            "convId": chat_id,
            "type": "root",
            "role": "system",
            "content": "",
            "parent": None,
            "children": ["q1"],
            "timestamp": _START * 1000,
        },
        *(
            {
                "id": name,
                "convId": chat_id,
                "type": "text",
                "role": role,
                "content": text,
                "parent": parent or "root",
                "children": [one[0] for one in _tree_messages() if one[1] == name],
                "timestamp": (_START + second) * 1000,
                "model": "qwen3" if role == "assistant" else None,
            }
            for name, parent, role, text, second in _tree_messages()
        ),
    ]
    conv = {
        "id": chat_id,
        "name": "Colours",
        "lastModified": (_START + 21) * 1000,
        "currNode": "a3",
    }
    return {"conv": conv, "messages": messages}


def llama_cpp_lines(chat: Json) -> bytes:
    """The page's newer form: a line for the conversation, and one for each message."""
    head = {"harness": "llama.cpp", "type": "session", **chat["conv"]}
    lines = [head, *({"message": one, "type": "message"} for one in chat["messages"])]
    return "\n".join(map(json.dumps, lines)).encode()


def message_list() -> list[Json]:
    """A messages array, which has no branches."""
    return [
        {"role": "user" if index % 2 == 0 else "assistant", "content": text}
        for index, text in enumerate(CURRENT)
    ]
