"""Conversations as people and models read them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from antiphon.api.mcp.tool_results import moment
from antiphon.core.items import (
    Compaction,
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    InputImage,
    InputVideo,
    Item,
    Message,
    Part,
    decode_item,
    words_of,
)
from antiphon.core.turns import Response
from antiphon.turn.protocols import Recent


def markdown(chain: Sequence[Response]) -> str:
    """A chain, oldest turn first.

    What was said is quoted: nothing in it can pass for a turn of its own.
    """
    return "\n\n".join(["# Conversation", *(part for turn in chain for part in _turn(turn))]) + "\n"


def opening(recent: Recent) -> str:
    """How a thread begins, in one short line."""
    item = decode_item(recent.opening) if recent.opening is not None else None
    return short(words_of(item.content)) if isinstance(item, Message) else ""


def short(text: str, longest: int = 80) -> str:
    """The text in one line, cut."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


def _turn(turn: Response) -> Iterable[str]:
    about = f"`{turn.id}`, {moment(turn.created_at)}, {turn.header.model}"
    if turn.status != "completed":
        about += f", {turn.status}"
    yield f"## {about}"
    for item in (*turn.input, *turn.output):
        for who, said in _lines(item):
            yield f"**{who}**\n\n{_quoted(said)}"


def _lines(item: Item) -> Iterable[tuple[str, str]]:
    match item:
        case Message(role=role, content=content):
            yield role, _words(content)
        case FunctionCall(name=name, arguments=arguments):
            yield "call", f"{name}({arguments})"
        case FunctionCallOutput(output=output):
            yield "output", _words(output)
        case Compaction(summary=summary):
            yield "summary of what was before", summary


def _words(content: str | tuple[Part, ...]) -> str:
    if isinstance(content, str):
        return content
    return "\n\n".join(filter(None, (_part(part) for part in content)))


def _part(part: Part) -> str:
    match part:
        case InputImage():
            return "[image]"
        case InputFile(filename=name):
            return f"[file {name}]" if name else "[file]"
        case InputVideo():
            return "[video]"
    return words_of((part,))


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines()) or ">"
