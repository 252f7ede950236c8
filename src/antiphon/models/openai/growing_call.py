"""Growing call: one tool call of an answer, whose arguments come in pieces. Pure.

Servers repeat what they have sent, send empty objects first, and put signs or other calls behind
the end of the arguments.
"""

from __future__ import annotations

import json
import re

import msgspec

from antiphon.core.custom_tool_input import INPUT_END, INPUT_START
from antiphon.core.provider_fields import ProviderFields
from antiphon.models.openai.argument_mending import is_object, normalize_arguments
from antiphon.models.openai.sse import DECODE_ERRORS
from antiphon.models.openai.tool_call_fragments import (
    LONGEST_BLANK,
    NO_ARGUMENTS,
    ToolCallFragment,
    is_blank,
)

#: Beginnings of arguments that hold none.
_MAYBE_NO_ARGUMENTS = NO_ARGUMENTS | {"{"}
#: How arguments begin that are within an object of TGI's grammar.
_WRAPPER = '{"function":{"_name":'
#: What may stand between two objects.
_SEPARATORS = " \t\r\n,;"
_OPENING = re.compile(r"[{\[\\]")
_CONTROL = re.compile(r"[\x00-\x1f]")
_STRING_PARTS = re.compile(r'\\(?s:.)?|"|[\x00-\x1f]|[^"\\\x00-\x1f]+')
_STRUCTURE = re.compile(r'\\(?s:.)?|["{}\[\]]')


class _JsonEnd:
    """Finds where a JSON object or array ends that comes in pieces."""

    def __init__(self) -> None:
        self.is_reached = False
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def feed(self, piece: str) -> int:
        """How many characters of the piece belong to the value."""
        start = 1 if self._is_escaped and piece else 0
        self._is_escaped = self._is_escaped and not piece
        for match in _STRUCTURE.finditer(piece, start):
            sign = match[0]
            if sign[0] == "\\":
                self._is_escaped = len(sign) == 1
            elif sign == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += 1 if sign in "{[" else -1
                if self._depth <= 0:
                    self.is_reached = True
                    return match.end()
        return len(piece)

    def escape_controls(self, piece: str) -> str:
        """The next piece with the control characters in its strings as JSON has them."""
        in_string, out, at = self._in_string, [], 1 if self._is_escaped else 0
        out.append(piece[:at])
        for match in _STRING_PARTS.finditer(piece, at):
            part = match[0]
            if part == '"':
                in_string = not in_string
            elif in_string and part[0] < " ":
                part = json.dumps(part)[1:-1]
            out.append(part)
        return "".join(out)

    def feed_inner(self, piece: str) -> None:
        """Take a piece without the end of anything but strings."""
        if self._is_escaped or _OPENING.search(piece):
            self.feed(piece)
        elif piece.count('"') % 2:
            self._in_string = not self._in_string


class GrowingCall:
    """A call that grows."""

    def __init__(self, number: int, fragment: ToolCallFragment) -> None:
        self.number = number
        self.index = fragment.index
        self.id = fragment.id
        self.name = fragment.name
        #: Whether it began under the index of a call before it.
        self.has_shared_index = False
        #: Whether its beginning was sent; the pieces of its arguments, and how many were sent.
        self.is_sent = False
        self.sent_pieces = 0
        self.pieces: list[str] = []
        #: What has not been sent of the fields beside it.
        self.provider_fields: ProviderFields | None = None
        self._size = 0
        self._end = _JsonEnd()
        self._is_cumulative = self._is_wrapped = False
        self._is_custom = fragment.is_custom
        if fragment.is_custom:
            self._push(INPUT_START)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    @property
    def is_complete(self) -> bool:
        """Whether the arguments are a whole object."""
        return self._end.is_reached

    @property
    def is_cut(self) -> bool:
        is_open = bool(self.pieces) and self.pieces[0][0] in "{[" and not self.is_complete
        # The end of a custom tool's text is that of the answer.
        return is_open and not self._is_custom

    @property
    def is_broken(self) -> bool:
        """Whether it is cut, and nothing that is known about its end makes it an object."""
        return self.is_cut and not self.lacks_brace and breaks_off(self.arguments)

    @property
    def lacks_brace(self) -> bool:
        """Whether a brace makes it complete."""
        return lacks_brace(self.arguments)

    @property
    def is_blank(self) -> bool:
        return not self.sent_pieces and self._size <= LONGEST_BLANK and is_blank(self.arguments)

    @property
    def has_sendable_arguments(self) -> bool:
        """Whether the arguments will stay as they are: some may still be replaced at the end."""
        if self.sent_pieces or not self.pieces:
            return bool(self.pieces)
        if self.pieces[0][0] != "{" or "".join(self.pieces[:2]).startswith(("{'", "{{")):
            # At the end it may be found to be an object.
            return False
        if self._size <= LONGEST_BLANK:
            text = "".join(self.arguments.split())
            if _WRAPPER.startswith(text[: len(_WRAPPER)]):
                # At the end they are found to be within another object.
                self._is_wrapped = len(text) >= len(_WRAPPER)
                return False
            return text not in _MAYBE_NO_ARGUMENTS and not "null".startswith(text)
        return not self._is_wrapped

    def is_repeated_by(self, fragment: ToolCallFragment) -> bool:
        """Whether a fragment under this call's id has the same name and the same arguments."""
        return (
            fragment.name == self.name
            and self.is_complete
            and not is_blank(fragment.arguments)
            and is_same_json(fragment.arguments, self.arguments)
        )

    def append(self, piece: str) -> str:
        """Take a piece of the arguments; what is left of it is another call's."""
        if self.is_complete:
            piece = piece.strip(_SEPARATORS)
            if not piece.startswith("{") or is_blank(piece):
                # Stray signs behind an object are no arguments.
                return ""
            if not self.is_blank:
                return "" if is_same_json(piece, self.arguments) else piece
        elif not self.pieces:
            piece = piece.lstrip()
        elif piece.startswith("{") and len(piece) >= self._size:
            piece = self._new_part(piece)
        if piece and self.is_blank and self.pieces and not self._may_continue(piece):
            # What came first was a placeholder.
            self.pieces, self._size, self._end = [], 0, _JsonEnd()
        return self._push(piece) if piece else ""

    def append_inner(self, piece: str) -> bool:
        """Take a piece that can only be the inside of an object; False: it may be more."""
        if not self.sent_pieces or self.is_complete:
            return False
        if _CONTROL.search(piece):
            return False
        if piece[0] == "{" or "}" in piece or "]" in piece or self.pieces[0][0] not in "{[":
            return False
        self._end.feed_inner(piece)
        self.pieces.append(piece)
        self._size += len(piece)
        self.sent_pieces += 1
        return True

    def take_arguments(self, *, is_final: bool) -> str:
        """The arguments that have not been emitted, as far as they are sure."""
        if not (is_final or self.has_sendable_arguments):
            return ""
        text = "".join(self.pieces[self.sent_pieces :])
        self.sent_pieces = len(self.pieces)
        return text

    def close_input(self) -> None:
        """The text of a custom tool is whole."""
        if self._is_custom and not self.is_complete:
            self._push(INPUT_END)

    def _may_continue(self, piece: str) -> bool:
        return not (self.is_complete or piece.lstrip().startswith("{"))

    def _push(self, piece: str) -> str:
        """Add a piece; what is left of it stands behind the arguments' end."""
        first = self.pieces[0] if self.pieces else piece
        # Only the end of an object can be seen.
        size = len(piece)
        if first[0] in "{[":
            if _CONTROL.search(piece):
                piece = self._end.escape_controls(piece)
            size = self._end.feed(piece)
        self.pieces.append(piece[:size])
        self._size += size
        return self.append(piece[size:]) if size < len(piece) else ""

    def _new_part(self, piece: str) -> str:
        """What a piece adds that repeats all before it, as some servers do."""
        text = self.arguments
        if piece.startswith(text) and (self._is_cumulative or not _is_json_beginning(text + piece)):
            self._is_cumulative = True
            return piece[len(text) :]
        return piece


def is_same_json(one: str, other: str) -> bool:
    if one.strip() == other.strip():
        return True
    try:
        return bool(msgspec.json.decode(one) == msgspec.json.decode(other))
    except DECODE_ERRORS:
        return False


def _is_json_beginning(text: str) -> bool:
    """Whether more text can make it JSON."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text) or error.msg.startswith("Unterminated string")
    except (ValueError, RecursionError):
        # Too many digits, or too deep.
        pass
    return True


def lacks_brace(arguments: str) -> bool:
    """Whether a brace makes arguments an object; of what has no member yet, nobody knows."""
    return arguments.strip() != "{" and is_object(arguments + "}")


def breaks_off(arguments: str) -> bool:
    """Whether arguments begin as an object, or a list, that has no end in any reading."""
    end = _JsonEnd()
    if not arguments.startswith(("{", "[")) or (end.feed(arguments) and end.is_reached):
        return False
    return not is_object(normalize_arguments(arguments))
