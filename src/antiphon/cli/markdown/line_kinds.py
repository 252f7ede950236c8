"""Line kinds: what a line of Markdown begins: a heading, a list item, a fence, text. Pure."""

from __future__ import annotations

import re
from typing import Protocol, TypeAlias

import msgspec

_HEADING = re.compile(r"(#{1,6})(?:[ \t]+(.*))?", re.DOTALL)
_HEADING_END = re.compile(r"[ \t]+#+[ \t]*$|[ \t]+$")
_RULE = re.compile(r"(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,}")
_RULE_START = re.compile(r"(?:\*[ \t]*)*|(?:-[ \t]*)*|(?:_[ \t]*)*")
_ITEM = re.compile(r"([-*+]|[0-9]{1,9}[.)])([ \t]+|$)")
_ITEM_START = re.compile(r"[-*+]|[0-9]{1,9}[.)]?")
_FENCE = re.compile(r"(`{3,}|~{3,})([^`]*)")
_TASK = re.compile(r"\[([ xX])\][ \t]+")
_TASK_START = re.compile(r"\[(?:[ xX](?:\][ \t]*)?)?")


class Heading(msgspec.Struct, frozen=True):
    """``text`` is what follows the marks."""

    level: int
    text: str


class ListItem(msgspec.Struct, frozen=True):
    """``width`` is how far its content stands from its marker's beginning."""

    marker: str
    width: int
    text: str


class Fence(msgspec.Struct, frozen=True):
    """The beginning of a code block."""

    mark: str
    language: str


class Rule(msgspec.Struct, frozen=True):
    """A line across."""


class Quote(msgspec.Struct, frozen=True):
    text: str


class TableRow(msgspec.Struct, frozen=True):
    text: str


class Text(msgspec.Struct, frozen=True):
    text: str


class Verbatim(msgspec.Struct, frozen=True):
    """An indented line, whose blanks count."""

    text: str


LineKind: TypeAlias = Heading | ListItem | Fence | Rule | Quote | TableRow | Text | Verbatim


def kind_of(text: str, *, is_whole: bool) -> LineKind | None:
    """What a line without its indentation is; None: more of it has to come to tell."""
    find = _KINDS.get(text[:1])
    return Text(text) if find is None else find(text, is_whole=is_whole)


def task_of(text: str, *, is_whole: bool) -> tuple[str, str] | None:
    """A list item's box, if it has one, and its text; None: more has to come to tell."""
    if found := _TASK.match(text):
        return ("☐ " if found[1] == " " else "☑ "), text[found.end() :]
    if not is_whole and _TASK_START.fullmatch(text):
        return None
    return "", text


def closes_fence(text: str, mark: str) -> bool:
    """Whether a line ends the code block that ``mark`` began."""
    text = text.strip()
    return len(text) >= len(mark) and not text.strip(mark[0])


def trim_heading(text: str) -> str:
    """A heading without the marks that may close it."""
    return _HEADING_END.sub("", text)


def _quote(text: str, *, is_whole: bool) -> LineKind | None:
    if len(text) == 1 and not is_whole:
        return None
    return Quote(text[2:] if text[1:2] == " " else text[1:])


def _table_row(text: str, *, is_whole: bool) -> LineKind | None:
    return TableRow(text) if is_whole else None


def _heading(text: str, *, is_whole: bool) -> LineKind | None:
    found = _HEADING.fullmatch(text)
    if found is None:
        return Text(text)
    if found[2] is None and not is_whole:
        return None
    return Heading(len(found[1]), found[2] or "")


def _fence(text: str, *, is_whole: bool) -> LineKind | None:
    run = len(text) - len(text.lstrip(text[0]))
    if run < 3:
        return Text(text) if run < len(text) or is_whole else None
    if not is_whole:
        return None if _FENCE.fullmatch(text) or text[0] == "~" else Text(text)
    found = _FENCE.fullmatch(text) if text[0] == "`" else re.fullmatch(r"(~{3,})(.*)", text)
    return Fence(found[1], found[2].strip()) if found else Text(text)


def _marked(text: str, *, is_whole: bool) -> LineKind | None:
    if is_whole and _RULE.fullmatch(text):
        return Rule()
    if not is_whole and _RULE_START.fullmatch(text):
        return None
    return Text(text) if text[0] == "_" else _item(text, is_whole=is_whole)


def _item(text: str, *, is_whole: bool) -> LineKind | None:
    if not is_whole and _ITEM_START.fullmatch(text):
        return None
    found = _ITEM.match(text)
    if found is None:
        return Text(text)
    rest = text[found.end() :]
    if not is_whole and not rest:
        return None
    # Four columns and more between marker and text are code, which models never mean.
    return ListItem(found[1], len(found[1]) + 1, rest)


class _Finder(Protocol):
    def __call__(self, text: str, *, is_whole: bool) -> LineKind | None: ...


#: By a line's first character.
_KINDS: dict[str, _Finder] = {
    "#": _heading,
    ">": _quote,
    "|": _table_row,
    **dict.fromkeys("`~", _fence),
    **dict.fromkeys("-*+_", _marked),
    **dict.fromkeys("0123456789", _item),
}
