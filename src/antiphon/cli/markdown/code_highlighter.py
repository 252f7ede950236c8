"""Code highlighter: colours a block of code line by line, as its lines arrive.

A lexer's stack of states goes from line to line, so that a line costs the same wherever it stands.
What Pygments reads as one token of several lines, a comment in C, is followed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pygments.lexer import Lexer, RegexLexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Token, _TokenType
from pygments.util import ClassNotFound
from rich.style import Style

from antiphon.cli.markdown.styled_line import PLAIN, Line, Span, join_spans

#: Without yellow, which cannot be read on white.
_STYLES: dict[Any, Style] = {
    Token.Comment: Style(color="bright_black", italic=True),
    Token.Comment.Preproc: Style(color="magenta"),
    Token.Keyword: Style(color="magenta"),
    Token.Keyword.Constant: Style(color="cyan"),
    Token.Keyword.Type: Style(color="cyan"),
    Token.Literal.String: Style(color="green"),
    Token.Literal.Number: Style(color="cyan"),
    Token.Name.Function: Style(color="blue"),
    Token.Name.Class: Style(color="blue", bold=True),
    Token.Name.Decorator: Style(color="magenta"),
    Token.Name.Builtin: Style(color="cyan"),
    Token.Name.Exception: Style(color="red"),
    Token.Name.Tag: Style(color="blue"),
    Token.Name.Attribute: Style(color="cyan"),
    Token.Operator.Word: Style(color="magenta"),
    Token.Generic.Deleted: Style(color="red"),
    Token.Generic.Inserted: Style(color="green"),
    Token.Generic.Heading: Style(bold=True),
    Token.Generic.Prompt: Style(color="bright_black"),
}
_COMMENT = _STYLES[Token.Comment]
#: Comments and texts keep their style however they go on.
_GROWING = (_COMMENT, _STYLES[Token.Literal.String])
_BLOCK_COMMENTS = frozenset(
    (
        "c",
        "cpp",
        "csharp",
        "css",
        "dart",
        "go",
        "groovy",
        "java",
        "javascript",
        "kotlin",
        "php",
        "rust",
        "scala",
        "scss",
        "sql",
        "swift",
        "typescript",
        "zig",
        "objective-c",
    )
)
#: Code of one line that is longer than this is not worth the time.
_MAX_LENGTH = 4000
_TAB_WIDTH = 4
_LAST_WORD = re.compile(r"\S\w*$")


class CodeHighlighter:
    """Highlights the lines of one block; ``language`` is what stands behind its fence."""

    def __init__(self, language: str) -> None:
        self._lexer = _find_lexer(language)
        self._stack = ["root"]
        aliases = set(self._lexer.aliases) if self._lexer else set()
        self._has_block_comments = bool(aliases & _BLOCK_COMMENTS)
        self._is_in_comment = False

    def highlight(self, text: str) -> Line:
        """The next line, which is whole."""
        line, self._stack, self._is_in_comment = self._highlight(text)
        return line

    def preview(self, text: str) -> Line:
        """The next line so far, without the word that may still become another."""
        line = self._highlight(text)[0]
        if self._lexer is None or not line or line[-1].style in _GROWING:
            return line
        last = line[-1]
        return join_spans((*line[:-1], Span(_LAST_WORD.sub("", last.text), last.style)))

    def _highlight(self, text: str) -> tuple[Line, list[str], bool]:
        stack, is_in_comment = [*self._stack], self._is_in_comment
        text = text.expandtabs(_TAB_WIDTH)
        if self._lexer is None or len(text) > _MAX_LENGTH:
            return join_spans((Span(text),)), stack, is_in_comment
        spans: list[Span] = []
        rest = text
        if self._has_block_comments:
            comment, rest, is_in_comment = _split_comment(text, is_in_comment)
            spans += [Span(comment, _COMMENT)] if comment else []
        tail = ""
        if self._has_block_comments and not is_in_comment:
            rest, tail, is_in_comment = _split_open_comment(rest)
        spans += [Span(value, _style_of(kind)) for kind, value in _tokens(self._lexer, rest, stack)]
        spans += [Span(tail, _COMMENT)] if tail else []
        return join_spans(spans), stack, is_in_comment


def _split_comment(text: str, is_in_comment: bool) -> tuple[str, str, bool]:
    """What of a line belongs to a comment that is open, the rest, and whether it stays open."""
    if not is_in_comment:
        return "", text, False
    end = text.find("*/")
    return (text, "", True) if end < 0 else (text[: end + 2], text[end + 2 :], False)


def _split_open_comment(text: str) -> tuple[str, str, bool]:
    """A line before a comment that it leaves open, and that comment."""
    start = text.rfind("/*")
    before = text[:start]
    if start < 0 or "*/" in text[start:] or "//" in before or before.count('"') % 2:
        return text, "", False
    return before, text[start:], True


def _find_lexer(language: str) -> Lexer | None:
    name = language.strip().split(maxsplit=1)[0].strip("{}.").lower() if language.strip() else ""
    if not name:
        return None
    try:
        return get_lexer_by_name(name)
    except ClassNotFound:
        return None


def _style_of(kind: Any) -> Style:
    while kind is not None:
        if kind in _STYLES:
            return _STYLES[kind]
        kind = kind.parent
    return PLAIN


def _tokens(lexer: Lexer, text: str, stack: list[str]) -> Iterator[tuple[Any, str]]:
    """A line's tokens; ``stack`` is changed to the states that the line ends in."""
    run = getattr(type(lexer), "get_tokens_unprocessed", None)
    if not isinstance(lexer, RegexLexer) or run is not RegexLexer.get_tokens_unprocessed:
        found = ((kind, value) for _, kind, value in lexer.get_tokens_unprocessed(text))
        yield from found
        return
    # The loop of RegexLexer.get_tokens_unprocessed, but that it keeps its stack.
    states: Any = lexer._tokens  # type: ignore[attr-defined]
    at, source = 0, text + "\n"
    while at < len(source):
        for match_at, action, new_state in states[stack[-1]]:
            found_at = match_at(source, at)
            if not found_at:
                continue
            if action is not None:
                yield from _values(lexer, action, found_at, len(text))
            at = found_at.end()
            _move(stack, new_state)
            break
        else:
            if source[at] == "\n":
                del stack[1:]
                stack[0] = "root"
            else:
                yield Token.Error, source[at]
            at += 1


def _values(lexer: Lexer, action: Any, found: Any, end: int) -> Iterator[tuple[Any, str]]:
    if type(action) is _TokenType:
        if value := found.group()[: max(0, end - found.start())]:
            yield action, value
        return
    for start, kind, value in action(lexer, found):
        if shown := value[: max(0, end - start)]:
            yield kind, shown


def _move(stack: list[str], new_state: Any) -> None:
    match new_state:
        case None:
            return
        case tuple():
            for state in new_state:
                _move(stack, -1 if state == "#pop" else state)
        case int():
            del stack[max(1, len(stack) + new_state) if new_state < 0 else new_state :]
        case "#push":
            stack.append(stack[-1])
        case _:
            stack.append(new_state)
