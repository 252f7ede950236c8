"""Foreign messages: rewrites messages as other libraries write them. Pure.

LangChain, LlamaIndex, the AI SDK, Ollama, Gemini and Bedrock have names of their own for roles,
contents, calls, outputs and media. They become messages whose parts ``item_shapes`` and
``loose_chat_requests`` read; what has no one meaning is left for the decoder to refuse by name.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

Fields: TypeAlias = dict[str, Any]

#: Whose message it is, where it has a type in place of a role.
ROLE_TYPES: Final = {
    **dict.fromkeys(("human", "HumanMessage", "user"), "user"),
    **dict.fromkeys(("ai", "AIMessage", "AIMessageChunk", "assistant"), "assistant"),
    **dict.fromkeys(("system", "SystemMessage", "developer"), "system"),
    **dict.fromkeys(("tool", "ToolMessage"), "tool"),
}
#: What ShareGPT's data call the roles besides.
_SENDERS: Final = {**ROLE_TYPES, "gpt": "assistant"}
#: Other names of a message's content.
CONTENT_FIELDS: Final = ("parts", "blocks", "text", "value")
#: Other names of what a tool has returned.
_OUTPUT_NAMES: Final = ("output", "result", "response", "content")
#: Files in parts of their kind.
_MEDIA_PARTS: Final = (
    "image",
    "file",
    "audio",
    "video",
    "document",
    "document_url",
    "media",
    "image_url",
)
#: Fields that say what a part without a type is.
_CALL_FIELDS: Final = ("functionCall", "function_call", "toolUse")
_OUTPUT_FIELDS: Final = ("functionResponse", "function_response", "toolResult")
_DATA_FIELDS: Final = ("inlineData", "inline_data", "fileData")
#: Files of Bedrock's and Qwen's.
_MEDIA_FIELDS: Final = ("image", "document")
_TYPED: Final = frozenset(
    (
        *_MEDIA_PARTS,
        "tool-call",
        "tool_call",
        "tool-result",
        "text-plain",
        "reasoning",
        "step-start",
    )
)
_PLAIN_TYPES: Final = ("input_text", "output_text", "text")
_UNTYPED: Final = frozenset(
    (*_CALL_FIELDS, *_OUTPUT_FIELDS, *_DATA_FIELDS, *_MEDIA_FIELDS, "block_type")
)
#: What the kind of a file is called, its data, and where it is.
_KIND_FIELDS: Final = ("mediaType", "mimeType", "media_type", "mime_type")
_BASE64_FIELDS: Final = ("data", "base64", "bytes", "image")
_URL_FIELDS: Final = ("url", "file_uri", "fileUri", "uri", "document_url")
_DEFAULT_KINDS: Final = {"image": "image/png", "audio": "audio/wav", "document": "application/pdf"}
#: The formats of recordings whose media types have another name.
_AUDIO_FORMATS: Final = {"audio/mpeg": "mp3", "audio/x-wav": "wav", "audio/wave": "wav"}


def normalize_foreign_message(message: Fields) -> Fields:
    """A message with a role and a content, and parts that are known here, as far as it has them."""
    clean = dict(unwrap_message(message))
    kind = clean.get("type")
    sender = clean.get("from", clean.get("sender"))
    if clean.get("role") is None and isinstance(sender, str) and sender in _SENDERS:
        clean["role"] = _SENDERS[sender]
    if clean.get("role") is None and isinstance(kind, str) and kind in ROLE_TYPES:
        clean["role"] = ROLE_TYPES[kind]
        del clean["type"]
    if clean.get("content") is None:
        name = next((name for name in CONTENT_FIELDS if clean.get(name)), None)
        if name is not None:
            clean["content"] = clean.pop(name)
    images = clean.pop("images", None)
    if isinstance(images, list) and clean.get("role") != "assistant":
        clean["content"] = [*_as_parts(clean.get("content")), *map(_image_of, images)]
    content = clean.get("content")
    if isinstance(content, list):
        parts = [rewrite_part(part) if isinstance(part, dict) else part for part in content]
        clean["content"] = [part for part in parts if part is not None]
    return clean


def unwrap_message(message: Fields) -> Fields:
    """A message; LangChain writes some within an object that names their class."""
    if "lc" not in message and "data" not in message:
        return message
    name, inner = message.get("type"), message.get("data")
    if message.get("lc") is not None:
        path, inner = message.get("id"), message.get("kwargs")
        name = path[-1] if isinstance(path, list) and path else None
    if isinstance(inner, dict) and isinstance(name, str) and name in ROLE_TYPES:
        return {**inner, "type": name}
    return message


def has_foreign_shape(message: Fields) -> bool:
    """Whether a message is to be rewritten: a look at its fields."""
    content = message.get("content")
    if content is None or "images" in message or message.get("role") is None:
        return True
    if type(content) is not list:
        return False
    for part in content:
        # Nearly all are text.
        if type(part) is not dict or part.get("type") in _PLAIN_TYPES:
            continue
        if _is_foreign_part(part):
            return True
    return False


def _is_foreign_part(part: Fields) -> bool:
    kind = part.get("type")
    return kind in _TYPED if isinstance(kind, str) else not _UNTYPED.isdisjoint(part)


def _as_parts(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    return [] if content in (None, "") else [{"type": "text", "text": content}]


def _image_of(image: Any) -> Any:
    """A picture of Ollama's: base64 without more."""
    if isinstance(image, str) and not image.startswith(("data:", "http")):
        image = f"data:image/png;base64,{image}"
    return {"type": "image_url", "image_url": {"url": image}} if isinstance(image, str) else image


def rewrite_part(part: Fields) -> Fields | None:
    """A part by names that are known here; None: it says nothing."""
    if "type" not in part and isinstance(part.get("block_type"), str):
        part = {**part, "type": part["block_type"]}
    match part.get("type"):
        case None:
            return _rewrite_untyped(part)
        case "step-start":
            return None
        case "tool-call" | "tool_call":
            part = _tool_use(part)
        case "tool-result":
            part = _tool_result(part)
        case "text-plain":
            part = {"type": "text", "text": part.get("text", "")}
        case "reasoning" if isinstance(part.get("reasoning"), str):
            part = {"type": "reasoning", "text": part["reasoning"]}
        case kind if kind in _MEDIA_PARTS:
            part = _rewrite_media(part, kind)
    return part


def _rewrite_untyped(part: Fields) -> Fields:
    for name in _CALL_FIELDS:
        if isinstance(part.get(name), dict):
            return _tool_use(part[name])
    for name in _OUTPUT_FIELDS:
        if isinstance(part.get(name), dict):
            return _tool_result(part[name])
    for name in _DATA_FIELDS:
        if isinstance(part.get(name), dict):
            return _rewrite_media(part[name], "media")
    for name in _MEDIA_FIELDS:
        if isinstance(given := part.get(name), dict):
            return _rewrite_media({**given, "type": name}, name)
        if isinstance(given, str):
            return _rewrite_media({"url": given}, name)
    return part


def _first(part: Fields, *names: str) -> Any:
    return next((part[name] for name in names if part.get(name) is not None), None)


def arguments_of(call: Fields) -> Any:
    """The arguments of a call, whatever they are called; None: it has none."""
    return _first(call, "arguments", "args", "input", "parameters")


def output_of(result: Fields) -> Any:
    """What a tool has returned, whatever it is called; None: nothing."""
    return _first(result, *_OUTPUT_NAMES)


def _tool_use(call: Fields) -> Fields:
    """A call; one without an id is known by its name."""
    return {
        "type": "tool_use",
        "id": _first(call, "toolCallId", "toolUseId", "id", "name"),
        "name": _first(call, "toolName", "name"),
        "input": arguments_of(call),
    }


def _tool_result(result: Fields) -> Fields:
    output = output_of(result)
    if isinstance(output, dict) and output.keys() >= {"type", "value"}:
        output = output["value"]
    if isinstance(output, list):
        output = [rewrite_part(one) if isinstance(one, dict) else one for one in output]
    return {
        "type": "tool_result",
        "tool_use_id": _first(result, "toolCallId", "toolUseId", "id", "name"),
        "content": output,
    }


def _rewrite_media(part: Fields, kind: str) -> Fields:
    """A file in the part that its kind has here, if it has its data or a URL."""
    source = part.get("source")
    given = source if isinstance(source, dict) else part
    media = _first(given, *_KIND_FIELDS)
    data, url = _first(given, *_BASE64_FIELDS), _first(given, *_URL_FIELDS)
    if kind == "document" and given.get("type") == "text" and isinstance(data, str):
        return {"type": "text", "text": data}
    if isinstance(data, str) and data.startswith(("data:", "http:", "https:")):
        url, data = data, data.partition(",")[2]
    if not isinstance(media, str):
        media = _DEFAULT_KINDS.get(kind, "")
        form = part.get("format")
        if media and isinstance(form, str):
            media = f"{media.partition('/')[0]}/{form}"
    if not isinstance(data, str) and not isinstance(url, str):
        return part
    if not isinstance(url, str):
        url = f"data:{media};base64,{data}"
    if media.startswith("image/") or kind == "image_url":
        rest = {"detail": part["detail"]} if isinstance(part.get("detail"), str) else {}
        return {"type": "image_url", "image_url": {"url": url, **rest}}
    if media.startswith("audio/") and url.startswith("data:"):
        form = _AUDIO_FORMATS.get(media, media.removeprefix("audio/"))
        return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
    if media.startswith("video/"):
        return {"type": "video_url", "video_url": {"url": url}}
    name = _first(part, "filename", "name", "title")
    field = "file_data" if url.startswith("data:") else "file_url"
    return {"type": "file", "file": {"filename": name, field: url}}
