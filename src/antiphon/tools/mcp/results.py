"""MCP tool results: content blocks as one text for the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from mcp import types

from antiphon.tools.mcp.errors import SecretRedactor
from antiphon.tools.tool_outputs import error_output, shorten
from antiphon.turn.protocols import ToolErrorOutput

#: Characters of an output: some 25,000 tokens, as much as a good context has room for.
MAX_OUTPUT_LENGTH = 100_000


def result_text(name: str, result: types.CallToolResult, redactor: SecretRedactor) -> str:
    """The output of a call of the tool ``name``; a ``ToolErrorOutput`` where the tool says it
    failed.

    Texts are joined by a line's end. Structured content is JSON, and is left out where the
    texts say it already, as the protocol asks servers to. Pictures, sounds and files become
    a short sentence: an output is one text in every dialect that models are asked in, and
    base64 in it would cost a context and tell nothing. What is too long is cut, and says so.
    """
    text = redactor.redact("\n".join(filter(None, _result_texts(result))))
    if result.is_error:
        return ToolErrorOutput(error_output(text or f"{name} failed and did not say why."))
    return truncate(text)


def truncate(text: str) -> str:
    """The text, or its beginning and a notice."""
    if len(text) <= MAX_OUTPUT_LENGTH:
        return text
    notice = f"[Cut here: these are the first {MAX_OUTPUT_LENGTH} of {len(text)} characters.]"
    return f"{text[:MAX_OUTPUT_LENGTH]}\n{notice}"


def _result_texts(result: types.CallToolResult) -> list[str]:
    texts = [_text(block) for block in result.content if _is_text(block)]
    others = [_describe_block(block) for block in result.content if not _is_text(block)]
    structured = result.structured_content
    if structured is None:
        return texts + others
    # Servers wrap what is no object, because older versions of the protocol take objects only.
    value = structured["result"] if _is_wrapped(structured) else structured
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if not texts or _is_repeated(texts, value):
        return [shown, *others]
    return [*texts, shown, *others]


def _is_wrapped(structured: Any) -> bool:
    return isinstance(structured, dict) and structured.keys() == {"result"}


def _is_repeated(texts: Sequence[str], value: Any) -> bool:
    """Whether texts are a value written down: in one piece, or one for each of a list."""
    return value in (
        "\n".join(texts),
        texts,
        _parse_json("\n".join(texts)),
        [*map(_parse_json, texts)],
    )


def _parse_json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return text


def _is_text(block: types.ContentBlock) -> bool:
    match block:
        case types.TextContent() | types.EmbeddedResource(resource=types.TextResourceContents()):
            return True
    return False


def _text(block: types.ContentBlock) -> str:
    match block:
        case types.TextContent(text=text):
            return text
        case types.EmbeddedResource(resource=types.TextResourceContents(text=text)):
            return text
    return ""


def _describe_data(kind: str, data: str) -> str:
    return f"{shorten(kind, 60)}, {_decoded_size(data)} bytes"


def _describe_block(block: types.ContentBlock) -> str:
    match block:
        case types.ImageContent(mime_type=kind, data=data):
            return f"[An image that cannot be shown here: {_describe_data(kind, data)}.]"
        case types.AudioContent(mime_type=kind, data=data):
            return f"[A sound that cannot be played here: {_describe_data(kind, data)}.]"
        case types.ResourceLink(name=name, uri=uri):
            return f"[A resource named {shorten(name, 100)}: {shorten(uri)}]"
        case types.EmbeddedResource(resource=types.BlobResourceContents(uri=uri, blob=data)):
            return (
                f"[A file that cannot be shown here: {shorten(uri)}, {_decoded_size(data)} bytes.]"
            )
    return "[Something that cannot be shown here.]"


def _decoded_size(data: str) -> int:
    """How many bytes base64 stands for."""
    return len(data.rstrip("=")) * 3 // 4
