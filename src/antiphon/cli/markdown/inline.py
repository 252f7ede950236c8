"""Inline Markdown: emphasis, code, links and maths within one line of a source, while it arrives.

CommonMark's rules, but that what is opened closes within its line and ``MAX_REACH`` characters, or
is text. So a piece of the line is settled once nothing that follows can change it, and what is
settled does not depend on how the text was divided. Pure.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import msgspec
from markdown_it.common.normalize_url import normalizeLink, validateLink
from markdown_it.common.utils import isMdAsciiPunct, isPunctChar, isWhiteSpace
from markdown_it.helpers import parseLinkDestination, parseLinkTitle
from rich.style import Style

from antiphon.cli.markdown.styled_line import PLAIN, Span, join_spans

#: How many characters after its opening a closing may come.
MAX_REACH = 400
#: For maths in single dollars, which sums of money look like.
_DOLLAR_REACH = 80
CODE = Style(color="cyan")
LINK = Style(color="blue", underline=True)
IMAGE = Style(dim=True)
_EMPHASIS = {1: Style(italic=True), 2: Style(bold=True)}
_STRUCK = Style(strike=True)
_SPECIAL = re.compile(r"[\\`*_~<&!\[$]|https?://|h(?:t(?:t(?:p(?:s?(?::/?)?)?)?)?)?$")
_AUTOLINK = re.compile(r"<((?:https?|ftp|mailto):[^\s<>]*|[\w.+-]+@[\w-]+(?:\.[\w-]+)+)>")
_AUTOLINK_START = re.compile(r"<[^\s<>]*$")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_ENTITY_START = re.compile(r"&[#0-9A-Za-z]{0,32}$")
_MAX_URL = 300
_BARE_URL = re.compile(rf"https?://[^\s<>\"`*]{{1,{_MAX_URL}}}")
_URL_START = re.compile(r"h(?:t(?:t(?:p(?:s?(?::/?/?)?)?)?)?)?")
#: What ends a sentence, not an address.
_AFTER_URL = re.compile(r"[.,:;!?'_~)\]]+$")
_MATHS = {"\\(": "\\)", "\\[": "\\]"}


class _Delimiter(msgspec.Struct):
    """A run of ``*``, ``_`` or ``~``: ``size`` is what is left of it, ``piece`` its place."""

    char: str
    size: int
    at: int
    piece: int
    can_open: bool
    can_close: bool
    length: int


class _Piece(msgspec.Struct):
    """Text with the styles that it has so far."""

    text: str
    style: Style = PLAIN
    link: str | None = None


class Scan(msgspec.Struct, frozen=True):
    """``settled`` spans will not change; ``preview`` is how the rest looks as things stand.

    ``rest`` is the source of the rest.
    """

    settled: tuple[Span, ...]
    preview: tuple[Span, ...]
    rest: str


class _Unknown(Exception):
    """What follows decides what this is."""


def scan_inline(text: str, previous: str = "\n", *, is_whole: bool) -> Scan:
    """Scan a line's source, or what is left of it behind ``previous``, its last character.

    ``is_whole`` False: more of the line may come.
    """
    scanner = _Scanner(text, previous, is_whole=is_whole)
    scanner.run()
    cut = len(text) if is_whole else scanner.settled_length()
    if cut == len(text):
        return Scan(scanner.spans(), (), "")
    if cut == 0:
        return Scan((), _preview(text, previous), text)
    head = _Scanner(text[:cut], previous, is_whole=True, following=text[cut])
    head.run()
    return Scan(head.spans(), _preview(text[cut:], text[cut - 1]), text[cut:])


def _preview(text: str, previous: str) -> tuple[Span, ...]:
    """What is open yet, as if it closed here."""
    scanner = _Scanner(text, previous, is_whole=False, is_preview=True)
    scanner.run()
    scanner.close_all()
    return scanner.spans()


class _Scanner:
    """One pass over a text, which leaves pieces and delimiters, and then pairs these."""

    def __init__(
        self,
        text: str,
        previous: str,
        *,
        is_whole: bool,
        is_preview: bool = False,
        following: str = "\n",
    ) -> None:
        self._text = text
        self._previous = previous
        self._following = following
        self._is_whole = is_whole
        self._is_preview = is_preview
        self._pieces: list[_Piece] = []
        self._delimiters: list[_Delimiter] = []
        #: Where the first thing begins that is not known yet.
        self._unknown_at: int | None = None

    def run(self) -> None:
        at, text = 0, self._text
        while at < len(text):
            found = _SPECIAL.search(text, at)
            if found is None:
                self._add_text(text[at:])
                break
            self._add_text(text[at : found.start()])
            at = found.start()
            try:
                at = self._scan_special(at)
            except _Unknown:
                self._unknown_at = at
                if self._is_preview:
                    self._preview_unknown(at)
                break
        self._pair_delimiters()

    def settled_length(self) -> int:
        """How much of the text nothing can change that follows it."""
        ends = [len(self._text) if self._unknown_at is None else self._unknown_at]
        ends += [
            one.at
            for one in self._delimiters
            if one.can_open and one.size and len(self._text) - one.at <= MAX_REACH
        ]
        return min(ends)

    def spans(self) -> tuple[Span, ...]:
        return join_spans(Span(one.text, one.style, one.link) for one in self._pieces)

    def close_all(self) -> None:
        """Take each open delimiter for closed here."""
        for one in self._delimiters:
            if one.can_open and one.size:
                self._style_pieces(one.piece + 1, len(self._pieces), _style_of(one.char, one.size))
                self._pieces[one.piece].text = ""

    def _add_text(self, text: str, style: Style = PLAIN, link: str | None = None) -> None:
        if text:
            self._pieces.append(_Piece(text, style, link))

    def _more_may_come(self, at: int) -> bool:
        """Whether what opens at ``at`` may close in what has not arrived."""
        return not self._is_whole and len(self._text) - at <= MAX_REACH

    def _scan_special(self, at: int) -> int:
        """Take in what is special at ``at``; returns what follows it. Raises ``_Unknown``."""
        scan = {
            "\\": self._scan_backslash,
            "`": self._scan_code,
            "<": self._scan_autolink,
            "&": self._scan_entity,
            "[": self._scan_link,
            "!": self._scan_link,
            "$": self._scan_dollar,
            "h": self._scan_url,
        }.get(self._text[at], self._scan_delimiter)
        return scan(at)

    def _scan_backslash(self, at: int) -> int:
        if at + 1 == len(self._text) and not self._is_whole:
            raise _Unknown
        pair = self._text[at : at + 2]
        if pair in _MATHS:
            return self._scan_maths(at, 2, _MATHS[pair])
        is_escape = len(pair) == 2 and isMdAsciiPunct(ord(pair[1]))
        self._add_text(pair[1] if is_escape else "\\")
        return at + 2 if is_escape else at + 1

    def _scan_maths(self, at: int, skip: int, closing: str) -> int:
        """Maths stays as it was written."""
        end = self._text.find(closing, at + skip)
        if 0 <= end - at <= MAX_REACH:
            self._add_text(self._text[at : end + len(closing)])
            return end + len(closing)
        if self._more_may_come(at):
            raise _Unknown
        self._add_text(self._text[at : at + skip])
        return at + skip

    def _scan_dollar(self, at: int) -> int:
        """``$x_1$`` but not "$5 and $10": Pandoc's rule, and no number opens."""
        size = 2 if self._text.startswith("$$", at) else 1
        reach = MAX_REACH if size == 2 else _DOLLAR_REACH
        start = at + size
        if start == len(self._text) and not self._is_whole:
            raise _Unknown
        mark, first = "$" * size, self._text[start : start + 1]
        if first.strip() and not (size == 1 and first.isdigit()):
            end = self._text.find(mark, start)
            while 0 <= end - at <= reach:
                after = end + size
                if after == len(self._text) and not self._is_whole:
                    raise _Unknown
                if self._text[end - 1].strip() and not self._text[after : after + 1].isdigit():
                    self._add_text(self._text[at:after])
                    return after
                end = self._text.find(mark, end + 1)
            if not self._is_whole and len(self._text) - at <= reach:
                raise _Unknown
        self._add_text(mark)
        return start

    def _scan_code(self, at: int) -> int:
        run = self._run_length(at)
        end = self._code_end(at)
        if end is None:
            self._add_text(self._text[at : at + run])
            return at + run
        self._add_text(_code_text(self._text[at + run : end - run]), CODE)
        return end

    def _code_end(self, at: int) -> int | None:
        """What follows the code that opens at ``at``; None: nothing closes it."""
        run = self._run_length(at)
        if at + run == len(self._text) and not self._is_whole:
            raise _Unknown
        end = at + run
        while 0 <= (end := self._text.find("`", end)) <= at + MAX_REACH:
            length = self._run_length(end)
            if end + length == len(self._text) and not self._is_whole:
                raise _Unknown
            if length == run:
                return end + run
            end += length
        if self._more_may_come(at):
            raise _Unknown
        return None

    def _run_length(self, at: int) -> int:
        char, end = self._text[at], at
        while end < len(self._text) and self._text[end] == char:
            end += 1
        return end - at

    def _scan_delimiter(self, at: int) -> int:
        char, run = self._text[at], self._run_length(at)
        end = at + run
        if end == len(self._text) and not self._is_whole:
            raise _Unknown
        before = self._text[at - 1] if at else self._previous
        after = self._text[end] if end < len(self._text) else self._following
        can_open, can_close = _flanks(char, before, after)
        if char == "~" and run != 2:
            can_open = can_close = False
        self._pieces.append(_Piece(char * run))
        if can_open or can_close:
            self._delimiters.append(
                _Delimiter(char, run, at, len(self._pieces) - 1, can_open, can_close, run)
            )
        return end

    def _scan_autolink(self, at: int) -> int:
        found = _AUTOLINK.match(self._text, at)
        if found and found.end() - at <= MAX_REACH:
            address = found[1] if ":" in found[1] else f"mailto:{found[1]}"
            self._add_link(found[1], address)
            return found.end()
        if self._more_may_come(at) and _AUTOLINK_START.match(self._text, at):
            raise _Unknown
        self._add_text("<")
        return at + 1

    def _scan_entity(self, at: int) -> int:
        if found := _ENTITY.match(self._text, at):
            # An entity can name a control character, too.
            text = html.unescape(found[0])
            self._add_text(text if text.isprintable() else found[0])
            return found.end()
        if not self._is_whole and _ENTITY_START.match(self._text, at):
            raise _Unknown
        self._add_text("&")
        return at + 1

    def _scan_url(self, at: int) -> int:
        found = _BARE_URL.match(self._text, at)
        if found is None:
            if not self._is_whole and _URL_START.fullmatch(self._text, at):
                raise _Unknown
            self._add_text(self._text[at])
            return at + 1
        is_cut = found.end() == len(self._text) and found.end() - at < _MAX_URL
        if is_cut and not self._is_whole:
            raise _Unknown
        url = found[0]
        if tail := _AFTER_URL.search(url):
            keeps_paren = tail[0].startswith(")") and "(" in url
            url = url[: tail.start() + 1] if keeps_paren else url[: tail.start()]
        if len(url) <= len("https://"):
            self._add_text(self._text[at])
            return at + 1
        self._add_link(url, url)
        return at + len(url)

    def _scan_link(self, at: int) -> int:
        is_image = self._text[at] == "!"
        if is_image and not self._text.startswith("![", at):
            if at + 1 == len(self._text) and not self._is_whole:
                raise _Unknown
            self._add_text("!")
            return at + 1
        start = at + 2 if is_image else at + 1
        if (end := self._label_end(start)) is not None and end - at <= MAX_REACH:
            if end + 1 == len(self._text) and not self._is_whole:
                raise _Unknown
            if self._text.startswith("(", end + 1) and (target := self._target(at, end + 2)):
                self._add_label(self._text[start:end], target[0], is_image=is_image)
                return target[1]
        elif self._more_may_come(at):
            raise _Unknown
        self._add_text(self._text[at:start])
        return start

    def _label_end(self, at: int) -> int | None:
        """Where the ``]`` is that closes a label."""
        depth = 1
        while at < len(self._text):
            match self._text[at]:
                case "\\":
                    at += 1
                case "`":
                    at = (self._code_end(at) or at + self._run_length(at)) - 1
                case "[":
                    depth += 1
                case "]":
                    depth -= 1
                    if depth == 0:
                        return at
            at += 1
        return None

    def _target(self, opening: int, at: int) -> tuple[str, int] | None:
        """A link's address and what follows its ``)``; None: it is no link."""
        text, end = self._text, len(self._text)
        found = parseLinkDestination(text, self._skip_blanks(at), end)
        if not found.ok:
            self._raise_if_open(opening)
            return None
        at = self._skip_blanks(found.pos)
        if at > found.pos and text[at : at + 1] in {'"', "'", "("}:
            title = parseLinkTitle(text, at, end)
            if not title.ok:
                self._raise_if_open(opening)
                return None
            at = self._skip_blanks(title.pos)
        if at == end:
            self._raise_if_open(opening)
            return None
        if text[at] != ")" or at - opening > MAX_REACH:
            return None
        return normalizeLink(found.str), at + 1

    def _raise_if_open(self, opening: int) -> None:
        if self._more_may_come(opening):
            raise _Unknown

    def _skip_blanks(self, at: int) -> int:
        while at < len(self._text) and self._text[at] in " \t":
            at += 1
        return at

    def _add_label(self, label: str, address: str, *, is_image: bool) -> None:
        if is_image:
            self._add_link(f"[image: {label or address}]", address, IMAGE)
            return
        inner = _Scanner(label, "[", is_whole=True, following="]")
        inner.run()
        shown = inner.spans() or (Span(address),)
        for span in shown:
            self._add_link(span.text, address, span.style + LINK)

    def _add_link(self, text: str, address: str, style: Style = LINK) -> None:
        is_safe = validateLink(address) and address.isprintable() and ":" in address
        self._add_text(text, style, address if is_safe else None)

    def _pair_delimiters(self) -> None:
        """CommonMark's procedure: each closing takes the nearest opening before it."""
        index = 0
        while index < len(self._delimiters):
            closing = self._delimiters[index]
            while closing.can_close and closing.size:
                opening_index = self._find_opening(index)
                if opening_index is None:
                    break
                opening = self._delimiters[opening_index]
                del self._delimiters[opening_index + 1 : index]
                index = opening_index + 1
                self._pair(opening, closing)
            index += 1

    def _find_opening(self, index: int) -> int | None:
        closing = self._delimiters[index]
        for at in range(index - 1, -1, -1):
            one = self._delimiters[at]
            if one.char != closing.char or not one.can_open or not one.size:
                continue
            if closing.at - one.at > MAX_REACH:
                return None
            is_odd = (one.can_close or closing.can_open) and (
                (one.length + closing.length) % 3 == 0
                and (one.length % 3 != 0 or closing.length % 3 != 0)
            )
            if not is_odd:
                return at
        return None

    def _pair(self, opening: _Delimiter, closing: _Delimiter) -> None:
        size = 2 if opening.size >= 2 and closing.size >= 2 else 1
        self._style_pieces(opening.piece + 1, closing.piece, _style_of(opening.char, size))
        for one in (opening, closing):
            one.size -= size
            self._pieces[one.piece].text = one.char * one.size

    def _style_pieces(self, start: int, end: int, style: Style) -> None:
        for piece in self._pieces[start:end]:
            piece.style = piece.style + style

    def _preview_unknown(self, at: int) -> None:
        """Show what is not known yet as what it most likely is."""
        rest = self._text[at:]
        bare = rest.lstrip(rest[0])
        match rest[0]:
            case "*" | "_" | "~":
                self._add_text(bare)
            case "`":
                self._add_text(bare.rstrip("`"), CODE)
            case "[":
                inner = _preview(rest[1:].partition("](")[0].removesuffix("]"), "[")
                self._pieces += [_Piece(one.text, one.style + LINK) for one in inner]
            case "h" if "://" in rest:
                self._add_text(rest, LINK)
            case _:
                self._add_text(rest)


def _style_of(char: str, size: int) -> Style:
    return _STRUCK if char == "~" else _EMPHASIS[min(size, 2)]


def _flanks(char: str, before: str, after: str) -> tuple[bool, bool]:
    """Whether a run between these characters can open emphasis, and close it."""
    is_space_before, is_space_after = _is_space(before), _is_space(after)
    is_mark_before, is_mark_after = _is_mark(before), _is_mark(after)
    left = not is_space_after and (not is_mark_after or is_space_before or is_mark_before)
    right = not is_space_before and (not is_mark_before or is_space_after or is_mark_after)
    if char == "_":
        return left and (not right or is_mark_before), right and (not left or is_mark_after)
    return left, right


def _is_space(char: str) -> bool:
    return isWhiteSpace(ord(char))


def _is_mark(char: str) -> bool:
    return isMdAsciiPunct(ord(char)) or isPunctChar(char)


def _code_text(text: str) -> str:
    has_padding = text[:1] == text[-1:] == " " and bool(text.strip())
    return text[1:-1] if has_padding else text


def inline_text(text: str) -> Sequence[Span]:
    """A whole line's spans."""
    return scan_inline(text, is_whole=True).settled
