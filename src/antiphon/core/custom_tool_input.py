"""Custom tool input: a custom tool's text within the JSON arguments of a function. Pure.

A model that knows functions only calls a custom tool with ``{"input":"…"}``
(``core.tool_definitions.as_function``). The text is decoded while it arrives.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

#: The one parameter of the function that a custom tool is offered as.
CUSTOM_INPUT: Final = "input"

_HEAD: Final = re.compile(r'\s*\{\s*"' + CUSTOM_INPUT + r'"\s*:\s*"')
#: What may still become the head, and is not whole yet.
_PART_OF_HEAD: Final = re.compile(r"""\s*(\{\s*("(i(n(p(u(t("(\s*(:(\s*)?)?)?)?)?)?)?)?)?)?)?\Z""")
#: Characters and whole escapes of a JSON string. An escape that JSON does not have stands for
#: itself: models write ``\d`` in patterns.
_CHARACTERS: Final = re.compile(
    r'(?:[^"\\]|\\u[0-9a-fA-F]{4}|\\u(?=[0-9a-fA-F]{0,3}[^0-9a-fA-F])|\\[^u])*'
)
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED: Final = {
    '"': '"',
    "\\": "\\",
    "/": "/",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
}
_HIGH_SURROGATE: Final = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")


_encode = msgspec.json.Encoder().encode

#: How such arguments begin and end.
INPUT_START: Final = f'{{"{CUSTOM_INPUT}":"'
INPUT_END: Final = '"}'


def escape_input(text: str) -> str:
    """A piece of a custom tool's text, as it stands between ``INPUT_START`` and ``INPUT_END``."""
    return _encode(text).decode()[1:-1]


def custom_arguments(text: str) -> str:
    """The arguments by which a model calls a custom tool with this input."""
    return _encode({CUSTOM_INPUT: text}).decode()


class CustomInputDecoder:
    """Decodes the arguments of one call, which arrive in pieces."""

    def __init__(self) -> None:
        #: What is not decoded yet.
        self._rest = ""
        self._in_string = False
        self._is_whole = False
        #: Whether the arguments are of another form: they can only be read as a whole.
        self._is_other = False

    def feed(self, piece: str) -> str:
        """The text that a piece of the arguments adds."""
        if self._is_whole:
            return ""
        self._rest += piece
        if not self._in_string and not self._is_other:
            head = _HEAD.match(self._rest)
            if head is not None:
                self._in_string, self._rest = True, self._rest[head.end() :]
            else:
                self._is_other = _PART_OF_HEAD.match(self._rest) is None
        return self._decode_string() if self._in_string else ""

    def finish(self) -> str:
        """What is left of the text when the arguments have ended, be they whole or not."""
        if self._is_whole:
            return ""
        rest, self._rest, self._is_whole = self._rest, "", True
        if self._in_string:
            return _unescape(rest)
        return "" if _PART_OF_HEAD.match(rest) else input_of(rest)

    def _decode_string(self) -> str:
        found = _CHARACTERS.match(self._rest)
        assert found is not None
        end = found.end()
        self._is_whole = self._rest[end : end + 1] == '"'
        if not self._is_whole and (half := _HIGH_SURROGATE.search(self._rest, 0, end)):
            # The other half of a character may be next.
            end = half.start()
        text, self._rest = self._rest[:end], self._rest[end:]
        return _unescape(text)


def input_of(arguments: str) -> str:
    """The text in arguments that are whole: their ``input``, or what stands in its place.

    Arguments of which nothing of the kind can be said are the text themselves.
    """
    try:
        value: Any = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    if isinstance(value, dict):
        if CUSTOM_INPUT in value:
            value = value[CUSTOM_INPUT]
        elif len(value) == 1:
            value = next(iter(value.values()))
        elif not value:
            return ""
    if value is None:
        return ""
    return value if isinstance(value, str) else _encode(value).decode()


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    plain = _ESCAPE.sub(_unescaped, text)
    # Two halves of a character become one, a half that stays alone a replacement character.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unescaped(match: re.Match[str]) -> str:
    if match[1] is not None:
        return chr(int(match[1], 16))
    return _ESCAPED.get(match[2], match[0])
