"""Export: a messages array as JSON or as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

_ROLE_TITLES = {"system": "System", "developer": "System", "user": "You", "assistant": "Assistant"}

#: CommonMark ends lines so, and nowhere else.
_LINE_END = re.compile(r"\r\n|\r|\n")
_FENCE = re.compile(r"( {0,3})(`{3,}(?=[^`]*$)|~{3,})(.*)")
#: What could be taken for the page's own: headings of the first two levels, and HTML.
_HEADING = re.compile(r" {0,3}##?(?:[ \t]|$)")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)[ \t]*$")
_HTML = re.compile(r"<(?!(?:https?|mailto):)[A-Za-z/!?]")
_CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
_BACKTICKS = re.compile(r"`+")
_MARKDOWN_CHARACTERS = re.compile(r"([\\`*_\[\]<>&#|~!$])")
#: What may not stand in an image's address between ``<`` and ``>``.
_NOT_IN_URL = re.compile(r"[\x00-\x20<>\\]")


def as_json(messages: Sequence[Mapping[str, Any]]) -> str:
    """A messages array as indented JSON, for ``json.loads`` and ``Conversation.load``."""
    return json.dumps(list(messages), ensure_ascii=False, indent=2) + "\n"


def as_markdown(messages: Sequence[Mapping[str, Any]], title: str | None = None) -> str:
    """A messages array as a page: a heading for each speaker, and the words below.

    Words are Markdown mostly, and stand as they are. Where they hold what could be
    taken for the page's own headings, or would swallow what follows (HTML, a code block
    that never ends), the message is quoted, and nothing in it is changed. Calls of tools
    and their results are code. Images in ``data:`` URLs leave their type and size only.
    """
    blocks = [f"# {_escape(title)}"] if title else []
    names: dict[str, str] = {}
    for message in messages:
        calls = message.get("tool_calls") or ()
        names |= {call["id"]: call["function"]["name"] for call in calls}
        blocks.append(f"## {_heading(message, names)}")
        blocks += _body(message)
        for call in calls:
            function = call["function"]
            blocks += [f"Calls {_code_span(function['name'])}:", _code_block(function["arguments"])]
    return "\n\n".join(blocks) + "\n"


def _heading(message: Mapping[str, Any], names: Mapping[str, str]) -> str:
    role = message.get("role", "")
    if role == "tool":
        name = names.get(message.get("tool_call_id", ""))
        return f"Result of {_code_span(name)}" if name else "Result"
    name = message.get("name")
    return _ROLE_TITLES.get(role, _escape(role)) + (f" ({_escape(name)})" if name else "")


def _body(message: Mapping[str, Any]) -> list[str]:
    write = _code_block if message.get("role") == "tool" else _quote_if_needed
    blocks = [_part(part, write) for part in _parts(message.get("content"))]
    return blocks or ([] if message.get("tool_calls") else ["*(nothing)*"])


def _parts(content: str | Sequence[Mapping[str, Any]] | None) -> Sequence[Mapping[str, Any]]:
    """A content's parts, without those that say nothing."""
    if content is None or isinstance(content, str):
        content = [{"type": "text", "text": content or ""}]
    return [part for part in content if part.get("text", "-").strip()]


def _part(part: Mapping[str, Any], write: Callable[[str], str]) -> str:
    if "text" in part:
        return write(part["text"])
    if "image_url" in part:
        return _image(part["image_url"]["url"])
    return f"*({_escape(str(part.get('type', 'part')).replace('_', ' '))})*"


def _quote_if_needed(words: str) -> str:
    """Words as they are, or quoted where they could break the page."""
    lines = _LINE_END.split(words)
    while not lines[0].strip():
        del lines[0]
    while not lines[-1].strip():
        del lines[-1]
    if _is_self_contained(lines):
        return "\n".join(lines)
    return "\n".join(f"> {line}" if line else ">" for line in lines)


def _is_self_contained(lines: Sequence[str]) -> bool:
    """Whether Markdown stays within its message: strict rather than right in rare cases."""
    fence: re.Match[str] | None = None
    #: The lines of the paragraph so far.
    above: list[str] = []
    for line in lines:
        match = _FENCE.match(line)
        if fence:
            if line.strip() and not line.startswith(fence[1]):
                # Where the code stands in a list, this line ends the list, and the code.
                return False
            if match and match[2].startswith(fence[2]) and not match[3].strip():
                fence = None
        elif match:
            fence, above = match, []
        elif not line.strip():
            above = []
        else:
            above.append(line)
            if _HEADING.match(line) or (above[1:] and _UNDERLINE.match(line)):
                return False
            if _HTML.search(line) and _HTML.search(_remove_code_spans("\n".join(above))):
                return False
    return not fence


def _remove_code_spans(text: str) -> str:
    # A backslash may say that a tick is none.
    return text if "\\" in text else _CODE_SPAN.sub("", text)


def _code_block(text: str) -> str:
    """Text as a code block; JSON is laid out, with each number as it was written."""
    language = ""
    if text.lstrip()[:1] in {"{", "["}:
        with suppress(msgspec.DecodeError, RecursionError):
            text, language = msgspec.json.format(text, indent=2), "json"
    fence = "`" * max(3, _longest_backticks(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _code_span(text: str) -> str:
    """One line as a code span."""
    line = " ".join(text.split())
    ticks = "`" * (_longest_backticks(line) + 1)
    space = " " if "`" in line else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def _longest_backticks(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)


def _escape(text: str) -> str:
    """One line of words that are no Markdown."""
    return _MARKDOWN_CHARACTERS.sub(r"\\\1", " ".join(text.split()))


def _image(url: str) -> str:
    if url[:5].lower() == "data:":
        head, _, data = url.partition(",")
        kind = head[5:].partition(";")[0] or "of no type"
        return f"*(image: {_escape(kind)}, {_format_size(len(data.rstrip('=')) * 3 // 4)})*"
    if re.match(r"https?://", url, re.IGNORECASE):
        address = _NOT_IN_URL.sub(lambda found: f"%{ord(found[0]):02X}", url)
        return f"![image](<{address}>)"
    return f"*(image: {_code_span(url)})*"


def _format_size(count: int) -> str:
    """Bytes as a person says it."""
    if count < 1024:
        return f"{count} bytes"
    if count < 1024 * 1024:
        return f"{count / 1024:.0f} KiB"
    return f"{count / (1024 * 1024):.1f} MiB"
