"""HTML pages of chats: one file without script, for export and for shared links. Pure.

The page is made in pieces, head, turns and end, so that a long chat is written as it is read. Its
policy lets the browser load nothing: the one style sheet is named by its hash, images are within.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Final

import msgspec

from antiphon.core.foreign_items import function_views
from antiphon.core.items import (
    Compaction,
    ErasedItem,
    ForeignItem,
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputFile,
    InputImage,
    InputText,
    InputVideo,
    Item,
    McpApproval,
    McpListTools,
    Message,
    OutputText,
    Part,
    Reasoning,
    Refusal,
    message_text,
    replaces_turns,
    shorten,
)
from antiphon.core.turns import Response
from antiphon.core.urls import is_web_url
from antiphon.transfer.html_markdown import code_html, line_html, markdown_html

_SPEAKERS: Final = {"user": "You", "system": "System", "developer": "System"}
_STATUSES: Final = {
    "failed": "This turn failed.",
    "cancelled": "This turn was stopped.",
    "incomplete": "This answer was cut.",
    "in_progress": "This answer is still being written.",
    "queued": "This question waits for the answer before it.",
}


def content_policy() -> str:
    """The page's Content-Security-Policy."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


@cache
def _style() -> str:
    return files("antiphon.transfer").joinpath("page.css").read_text("utf-8")


def page_head(title: str | None, first: Response | None, *, instructions: str | None = None) -> str:
    """A page up to its first turn."""
    shown = line_html(title or "Chat")
    when = f"<p>{_time(first.created_at)}</p>" if first is not None else ""
    guide = _details("Instructions", markdown_html(instructions)) if instructions else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{content_policy()}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="robots" content="noindex, nofollow">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{shown}</title>\n<style>{_style()}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{shown}</h1>\n{when}\n</header>\n<main>\n{guide}"
    )


def page_end(note: str = "") -> str:
    """What comes after the last turn. ``note`` is for the reader."""
    shown = line_html(note or "Exported from antiphon.")
    return f"</main>\n<footer>{shown}</footer>\n</body>\n</html>\n"


def opening_of_turn(turn: Response) -> str | None:
    """The first words of the question of a turn, on one line."""
    for item in turn.input:
        if isinstance(item, Message) and item.role == "user" and message_text(item).strip():
            return shorten(message_text(item))
    return None


def turn_html(turn: Response) -> str:
    """A turn as a section of the page."""
    parts = [*_messages(turn.input, turn), *_messages(turn.output, turn)]
    if note := _STATUSES.get(turn.status):
        if turn.end is not None and turn.end.error is not None:
            note = f"{note} {turn.end.error.message}"
        parts.append(_note(note))
    return f'<article class="turn" id="{turn.id}">\n{"".join(parts)}</article>\n'


def _messages(items: tuple[Item, ...], turn: Response) -> list[str]:
    views = function_views(items)
    answered = {one.call_id: one for one in views if isinstance(one, FunctionCallOutput)}
    calls = {one.call_id for one in views if isinstance(one, FunctionCall)}
    found: list[str] = []
    for item, view in zip(items, views, strict=True):
        if isinstance(view, FunctionCall):
            found.append(_call(view, answered.get(view.call_id)))
        elif isinstance(view, FunctionCallOutput):
            if view.call_id not in calls:
                found.append(_details("Result of a tool", _output(view)))
        else:
            found.append(_item(item, turn))
    return found


def _item(item: Item, turn: Response) -> str:
    html = ""
    match item:
        case Message():
            html = _message(item, turn)
        case Reasoning() if item.text:
            html = _details("Thoughts", markdown_html(item.text))
        case Compaction():
            title = "Summary of earlier turns" if replaces_turns(item) else "Summary"
            html = _details(title, markdown_html(item.summary))
        case ErasedItem():
            html = _note("Something was erased here.")
        case McpListTools():
            html = _note(f"Tools of {item.server_label}")
        case McpApproval():
            word = "Approved" if item.approve else "Refused"
            html = _note(f"{word}: {item.reason}" if item.reason else word)
        case ForeignItem():
            body = msgspec.json.format(msgspec.json.encode(item.body), indent=2).decode()
            html = _details(item.type.replace("_", " "), code_html(body, "json"))
    return html


def _message(message: Message, turn: Response) -> str:
    role = message.role if message.role in {"user", "assistant"} else "system"
    if role == "assistant":
        # A model's name is its own heading: whoever reads knows that it is a machine.
        speaker = f"{line_html(turn.model)} {_time(turn.created_at)}"
    else:
        speaker = _SPEAKERS[message.role]
    if message.name:
        speaker += f" ({line_html(message.name)})"
    body = "".join(map(_part, _parts_of(message.content)))
    if not body:
        return ""
    return (
        f'<section class="message {role}" dir="auto">\n<h2 class="who">{speaker}</h2>\n'
        f'<div class="body">{body}</div>\n</section>\n'
    )


def _parts_of(content: str | tuple[Part, ...]) -> tuple[Part, ...]:
    if not isinstance(content, str):
        return content
    return (OutputText(content),) if content else ()


def _part(part: Part) -> str:
    match part:
        case InputText(text=text) | OutputText(text=text) | Refusal(refusal=text):
            return markdown_html(text)
        case InputImage(image_url=url):
            return image_html(url)
        case InputFile(filename=name):
            return _note(f"A file: {name or 'without a name'}")
        case InputAudio():
            return _note("A recording")
        case InputVideo():
            return _note("A video")


def image_html(url: str) -> str:
    """An image that the page holds itself, or else a link to it."""
    if url[:5].lower() == "data:":
        return f'<img src="{line_html(url)}" alt="Image">\n'
    if is_web_url(url):
        return f'<p><a href="{line_html(url)}" rel="noopener noreferrer nofollow">Image</a></p>\n'
    return _note("An image")


def _call(call: FunctionCall, output: FunctionCallOutput | None) -> str:
    name = f"{call.server}: {call.name}" if call.server else call.name
    body = code_html(*_laid_out(call.arguments)) if call.arguments.strip() else ""
    if output is not None:
        body += _output(output)
    return _details(f"Used {name}", body)


def _output(output: FunctionCallOutput) -> str:
    shown = []
    for part in _parts_of(output.output):
        if isinstance(part, InputText | OutputText):
            shown.append(code_html(*_laid_out(part.text)))
        else:
            shown.append(_part(part))
    return "".join(shown)


def _laid_out(text: str) -> tuple[str, str]:
    """A text laid out where it is JSON, and its language."""
    if text.lstrip()[:1] in {"{", "["}:
        try:
            return msgspec.json.format(text, indent=2), "json"
        except (msgspec.DecodeError, RecursionError):
            pass
    return text, ""


def _details(title: str, body: str) -> str:
    return (
        f'<details dir="auto"><summary>{line_html(title)}</summary>'
        f'<div class="body">{body}</div></details>\n'
    )


def _note(text: str) -> str:
    return f'<p class="note">{line_html(text)}</p>\n'


def _time(seconds: float) -> str:
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return ""
    return f'<time datetime="{at:%Y-%m-%dT%H:%M:%SZ}">{at.day} {at:%B %Y, %H:%M} UTC</time>'
